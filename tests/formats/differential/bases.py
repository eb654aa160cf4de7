"""Small complete models that llama.cpp loads and runs, one for each architecture that it can make.

Which tensors an architecture needs is llama.cpp's own knowledge: it is given the metadata alone, makes the
model, and writes it; the tensors' names, types and shapes are read from that file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf

from tests.formats.build import BOOL, F32, I32, U32, Gguf, Tensor, number, numbers, text, texts, u32
from tests.formats.differential.oracle import Oracle

Pairs = dict[str, bytes]
EMBEDDING, HEADS, FEED_FORWARD, CONTEXT = 64, 2, 96, 256
HEAD = EMBEDDING // HEADS
_SPECIAL = 3
#: Blocks, where two are not enough.
_BLOCKS = {"llama4": 4, "gemma4": 5, "gemma3n": 22, "nemotron_h": 3, "nemotron_h_moe": 3, "deepseek4": 4}
#: They have attention in some blocks only: no heads in the others.
_HYBRID = frozenset(
    {"plamo2", "jamba", "nemotron_h", "nemotron_h_moe", "granitehybrid", "lfm2", "lfm2moe", "kimi-linear"}
)
_ONE_SHIFT = frozenset({"rwkv6qwen2", "arwkv7"})
_LATENT = frozenset({"deepseek2", "glm-dsa", "kimi-linear", "mistral4", "deepseek32"})


@dataclass(frozen=True, slots=True)
class Base:
    """A model that llama.cpp takes as it is."""

    architecture: str
    pairs: Pairs
    tensors: tuple[Tensor, ...]

    @property
    def file(self) -> Gguf:
        return Gguf(pairs=dict(self.pairs), tensors=self.tensors)


def vocabulary(kind: str, count: int = 32) -> Pairs:
    """The smallest of its kind that llama.cpp loads; `kind` is a `tokenizer.ggml.model`."""
    if kind in ("none", "no_vocab"):
        return {"tokenizer.ggml.model": text(kind)}
    words = [f"w{index}" for index in range(count)]
    kinds = [1] * count
    pairs: Pairs = {"tokenizer.ggml.model": text(kind), "tokenizer.ggml.pre": text("default")}
    if kind == "gpt2":
        words[:_SPECIAL] = ["\u010a", "a", "b"]
        pairs["tokenizer.ggml.merges"] = texts(["a b"])
    elif kind in ("llama", "gemma4", "t5", "plamo2"):
        words[:_SPECIAL] = ["<unk>", "<s>", "</s>"]
        words[3] = "<0x0A>"
        kinds[:4] = [2, 3, 3, 6]
        pairs["tokenizer.ggml.merges"] = texts(["a b"])
    elif kind == "bert":
        words[:6] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\n"]
    if kind == "plamo2":
        # The table of bytes is looked for as a whole.
        words[3:259] = [f"<0x{byte:02X}>" for byte in range(256)]
        kinds[3:259] = [6] * 256
        words += ["x"]
        kinds += [1]
    pairs["tokenizer.ggml.tokens"] = texts(words)
    pairs["tokenizer.ggml.token_type"] = numbers(I32, kinds)
    pairs["tokenizer.ggml.scores"] = numbers(F32, [0.0] * len(words))
    for name, index in (("bos", 1), ("eos", 2), ("unknown", 0)):
        pairs[f"tokenizer.ggml.{name}_token_id"] = u32(index)
    return pairs


def metadata(architecture: str, *, experts: bool = False, tokenizer: str = "gpt2") -> Pairs:
    """All that any architecture asks for, with small numbers; what one does not know it does not read."""
    blocks = _BLOCKS.get(architecture, 2)
    heads = u32(HEADS)
    if architecture in _HYBRID:
        heads = numbers(U32, [0 if index == 1 else HEADS for index in range(blocks)])
    own: Mapping[str, bytes] = {
        "context_length": u32(CONTEXT),
        "embedding_length": u32(EMBEDDING),
        "block_count": u32(blocks),
        "feed_forward_length": u32(FEED_FORWARD),
        "leading_dense_block_count": u32(1),
        "features_length": u32(EMBEDDING),
        "use_parallel_residual": number(BOOL, 0),
        "logit_scale": number(F32, 1),
        "residual_scale": number(F32, 1),
        "embedding_scale": number(F32, 1),
        "time_mix_extra_dim": u32(16),
        "time_decay_extra_dim": u32(16),
        "full_attention_interval": u32(2),
        "attention.head_count": heads,
        "attention.head_count_kv": heads,
        "attention.max_alibi_bias": number(F32, 8),
        "attention.clamp_kqv": number(F32, 1),
        "attention.layer_norm_epsilon": number(F32, 1e-5),
        "attention.layer_norm_rms_epsilon": number(F32, 1e-5),
        "attention.group_norm_epsilon": number(F32, 1e-5),
        "attention.group_norm_groups": u32(8),
        "attention.q_lora_rank": u32(32),
        "attention.kv_lora_rank": u32(32),
        "attention.relative_buckets_count": u32(8),
        "attention.sliding_window": u32(CONTEXT // 8),
        "attention.sliding_window_pattern": u32(2),
        "attention.causal": number(BOOL, 1),
        "attention.indexer.head_count": u32(2),
        "attention.indexer.key_length": u32(HEAD),
        "attention.indexer.top_k": u32(8),
        "pooling_type": u32(1),
        "rope.dimension_sections": numbers(I32, [HEAD // 4] * 4),
        "rope.freq_base": number(F32, 10_000),
        "wkv.head_size": u32(HEAD),
        "shortconv.l_cache": u32(3),
        "token_shift_count": u32(1 if architecture in _ONE_SHIFT else 2),
        "rescale_every_n_layers": u32(0),
        "decay_low_rank_dim": u32(16),
        "interleave_moe_layer_step": u32(2),
        "attention.decay_lora_rank": u32(16),
        "attention.iclr_lora_rank": u32(16),
        "attention.value_residual_mix_lora_rank": u32(16),
        "attention.gate_lora_rank": u32(16),
        "ssm.inner_size": u32(2 * EMBEDDING),
        "ssm.conv_kernel": u32(4),
        "ssm.state_size": u32(16),
        "ssm.time_step_rank": u32(HEADS),
        "ssm.group_count": u32(0 if architecture == "plamo2" else 2),
        "posnet.embedding_length": u32(EMBEDDING),
        "posnet.block_count": u32(blocks),
        "convnext.embedding_length": u32(EMBEDDING),
        "convnext.block_count": u32(blocks),
        "altup.num_inputs": u32(4),
        "altup.active_idx": u32(0),
        "laurel.rank": u32(16),
        "embedding_length_per_layer_input": u32(EMBEDDING // 2),
        "attention.shared_kv_layers": u32(0),
        "rope.scaling.type": text("none"),
        "decoder_start_token_id": u32(1),
        "decoder_block_count": u32(blocks),
        "kda.head_dim": u32(HEAD),
        "attention.kv_lora_rank_swa": u32(32),
        "classifier.output_labels": texts(["a"]),
    }
    own = dict(own)
    if architecture in _LATENT:
        own |= {
            "attention.key_length": u32(48),
            "attention.value_length": u32(32),
            "rope.dimension_count": u32(16),
            "attention.key_length_mla": u32(32),
            "attention.value_length_mla": u32(16),
        }
    if experts:
        own |= {
            "expert_count": u32(4),
            "expert_used_count": u32(2),
            "expert_shared_count": u32(1),
            "expert_feed_forward_length": u32(FEED_FORWARD),
            "expert_gating_func": u32(2),
            "expert_shared_feed_forward_length": u32(FEED_FORWARD),
            "expert_group_scale": number(F32, 1),
            "experts_per_group": u32(1),
            "expert_weights_scale": number(F32, 1),
            "moe_every_n_layers": u32(2),
            "expert_weights_norm": number(BOOL, 1),
            "moe_latent_size": u32(FEED_FORWARD),
        }
    pairs: Pairs = {"general.architecture": text(architecture), "general.name": text("small")}
    pairs |= {f"{architecture}.{name}": value for name, value in own.items()}
    pairs |= {f"xielu.{name}": number(F32, 1) for name in ("alpha_n", "alpha_p", "beta", "eps")}
    pairs["tokenizer.ggml.token_type_count"] = u32(2)
    return pairs | vocabulary(tokenizer)


def make(oracle: Oracle, pairs: Pairs, folder: Path) -> tuple[Tensor, ...] | None:
    """The tensors that llama.cpp wants beside this metadata; None if it makes no model of it."""
    asked, made = folder / "metadata.gguf", folder / "made.gguf"
    asked.write_bytes(Gguf(pairs=pairs, tensors=()).file())
    made.unlink(missing_ok=True)
    if oracle.ask("make", str(asked), str(made)).outcome != "taken":
        return None
    return tuple(_tensors(made))


def _tensors(path: Path) -> list[Tensor]:
    return [
        Tensor(str(tensor.name), tuple(int(size) for size in tensor.shape), int(tensor.tensor_type))
        for tensor in gguf.GGUFReader(path).tensors
    ]


def write(file: Gguf, path: Path) -> None:
    """The file, its tensors all zeros and taking no room on the disk."""
    with path.open("wb") as out:
        out.write(file.header)
        out.truncate(file.max_size_bytes)


def model(oracle: Oracle, architecture: str, folder: Path) -> Base | None:
    """The model of this architecture, without experts or with them; None if it cannot be brought to run."""
    for experts in (False, True):
        pairs = metadata(architecture, experts=experts)
        tensors = make(oracle, pairs, folder)
        if not tensors:
            continue
        base = Base(architecture, pairs, tensors)
        path = folder / "base.gguf"
        write(base.file, path)
        if oracle.ask("model", str(path)).outcome == "taken":
            return base
    return None


def models(oracle: Oracle, folder: Path, architectures: Iterable[str]) -> list[Base]:
    """Of these architectures every one that llama.cpp can be brought to load and to run."""
    found = (model(oracle, architecture, folder) for architecture in architectures)
    return [base for base in found if base is not None]


def all_architectures() -> list[str]:
    """Those that the `gguf` library knows."""
    return sorted(gguf.constants.MODEL_ARCH_NAMES.values())

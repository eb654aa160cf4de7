"""One file for each rule, and the same file with the one field put right."""

from __future__ import annotations

from dataclasses import dataclass

from ingest_service.formats.gguf import GgufLimits
from tests.formats.build import (
    BOOL,
    F32,
    F64,
    I32,
    U8,
    U16,
    U32,
    U64,
    Gguf,
    Tensor,
    array,
    counted,
    number,
    numbers,
    text,
    texts,
    u32,
)

G = Gguf()
LIMITS = GgufLimits()
LONG_KEY = "x" * 300
TOKENS = "tokenizer.ggml.tokens"
TEMPLATE = "tokenizer.chat_template"
CHARSMAP = "tokenizer.ggml.precompiled_charsmap"
SHARD = {"split.no": number(U16, 1), "split.count": number(U16, 2), "split.tensors.count": number(I32, 9)}
CLIP = G.but({"general.architecture": text("clip"), "general.type": text("mmproj")})
ADAPTER = Gguf({"general.architecture": text("llama"), "general.type": text("adapter")})
#: It splits an image of one size into patches.
VIT = CLIP.but({"clip.projector_type": text("mlp"), "clip.vision.block_count": u32(1),
                "clip.vision.embedding_length": u32(8)})  # fmt: skip
LFM2 = CLIP.but({"clip.projector_type": text("lfm2"), "clip.has_vision_encoder": number(BOOL, 1)})
#: It has no blocks, and all numbers that its graph is made of.
LLAVA = VIT.but(
    {
        "clip.has_vision_encoder": number(BOOL, 1), "clip.vision.block_count": u32(0),
        "clip.vision.patch_size": u32(4), "clip.vision.image_size": u32(8),
        "clip.vision.attention.head_count": u32(2),
    },
    tensors=(
        Tensor("v.patch_embd.weight", (4, 4, 3, 8)), Tensor("v.position_embd.weight", (8, 4)),
        Tensor("mm.0.weight", (8, 8)), Tensor("mm.0.bias", (8,)),
        Tensor("mm.2.weight", (8, 8)), Tensor("mm.2.bias", (8,)),
    ),
)  # fmt: skip
STRINGS = G.but({"k": texts(["abcde", "b"])})
#: So long a text puts the tensors of the model with an alignment of 1 at a multiple of 32.
FILL = -len(G.but({"general.alignment": u32(1), "k": text("")}).header) % 32
ONE = (Tensor("t", (32,), 0),)


@dataclass(frozen=True)
class Row:
    """`bad` breaks the rule at `field`; `good` differs from it in that one thing."""

    rule: str
    what: str
    field: str
    bad: Gguf
    good: Gguf
    limits: GgufLimits = LIMITS
    #: Added to the bad file's declared size.
    more_bytes: int = 0
    #: Declared size of the bad file, if it is not what its tensors say.
    bad_size_bytes: int | None = None

    @property
    def id(self) -> str:
        return f"{self.rule}: {self.what}"

    @property
    def size_bytes(self) -> int:
        size = self.bad.max_size_bytes if self.bad_size_bytes is None else self.bad_size_bytes
        return size + self.more_bytes


def key_row(rule: str, what: str, key: str, bad: bytes | None, good: bytes | None, base: Gguf = G) -> Row:
    """A row whose one field is one pair."""
    return Row(rule, what, key, base.but({key: bad}), base.but({key: good}))


def tensor_row(rule: str, what: str, bad: Tensor, good: Tensor, field: str = "t") -> Row:
    return Row(rule, what, field, G.but(tensors=(bad,)), G.but(tensors=(good,)))


HEADER = (
    Row("H1", "magic", "magic", G.but(magic=b"GGML"), G),
    Row("H1", "23 bytes", "magic", G, G, bad_size_bytes=23),
    Row("H1", "empty", "magic", G, G, bad_size_bytes=0),
    Row("H2", "version 4", "version", G.but(version=4), G),
    Row("H2", "version 0", "version", G.but(version=0), G.but(version=2)),
    Row("H3", "version 1", "version", G.but(version=1), G.but(version=2)),
    Row("H4", "big-endian magic", "version", G.but(magic=b"FUGG"), G),
    Row("H4", "big-endian version 3", "version", G.but(version=3 << 24), G),
    Row("H5", "no pairs", "kv_count", G.but(pair_count=0), G),
    Row("H5", "4097 pairs", "kv_count", G.but(pair_count=4097), G),
    Row("H5", "2^63 pairs", "kv_count", G.but(pair_count=2**63), G),
    Row("H6", "no tensors", "tensor_count", G.but(tensors=()), G),
    Row("H6", "65537 tensors", "tensor_count", G.but(tensor_count=65_537), G),
    Row("H6", "2^64 - 1 tensors", "tensor_count", G.but(tensor_count=2**64 - 1), G),
    Row(
        "H7",
        "header limit",
        "key 56",
        G.but({f"k.{index}": u32(1) for index in range(80)}),
        G.but({f"k.{index}": u32(1) for index in range(20)}),
        GgufLimits(max_header_bytes=len(G.header) + 31 * 20 - 10),
    ),
)

PAIRS = (
    Row("K1", "empty key", "key 17", G.but(extra=(counted(b"") + u32(1),)), G.but({"k": u32(1)})),
    Row("K1", "key of 2^63", "key 17", G.but(extra=(counted(b"k", 2**63) + u32(1),)), G.but({"k": u32(1)})),
    Row("K1", "key beyond the file", "key 17", G.but(extra=(counted(b"k", 9000),)), G.but({"k": u32(1)})),
    Row("K1", "key of 65536", "key 17", G.but({"k" * 65_536: u32(1)}), G.but({"k" * 65_535: u32(1)})),
    Row("K2", "NUL", "key 17", G.but({"general.architecture\0x": u32(1)}), G.but({"a.x": u32(1)})),
    Row("K2", "not ASCII", "key 17", G.but({"k\u00fc": u32(1)}), G.but({"ku": u32(1)})),
    Row("K2", "control", "key 17", G.but({"k\n": u32(1)}), G.but({"k ": u32(1)})),
    key_row("K3", "value type 13", "k", b"\x0d" + bytes(7), u32(0)),
    key_row("K4", "string of 2^64 - 1", "k", text("ab", 2**64 - 1), text("ab")),
    key_row("K4", "string of 2^63", "k", text("ab", 2**63), text("ab")),
    Row("K4", "string beyond the limit", "k", G.but({"k": text("a" * 65)}), G.but({"k": text("a" * 64)}),
        GgufLimits(max_string_bytes=64)),
    key_row("K4", "string beyond the file", "k", text("ab", 100_000), text("ab")),
    key_row("K4", "element of 2^63", "k", array(8, counted(b"a", 2**63), 1), texts(["a"])),
    Row("K4", "element beyond the limit", "k", G.but({"k": texts(["a" * 65])}),
        G.but({"k": texts(["a" * 64])}), GgufLimits(max_string_bytes=64)),
    key_row("K4", "element beyond the file", "k", array(8, counted(b"a", 100_000), 1), texts(["a"])),
    key_row("K5", "array of arrays", "k", array(9, bytes(12), 1), numbers(U8, [1])),
    key_row("K5", "element type 13", "k", array(13, bytes(12), 1), numbers(U8, [1])),
    key_row("K6", "2^63 elements", "k", numbers(U8, [1], 2**63), numbers(U8, [1])),
    key_row("K6", "2^62 elements of 4", "k", numbers(F32, [1], 2**62), numbers(F32, [1])),
    key_row("K6", "64 Mi strings", "k", texts(["a"], 64 << 20), texts(["a"])),
    Row("K6", "limit", "k", G.but({"k": numbers(U8, [1] * 11)}), G.but({"k": numbers(U8, [1] * 10)}),
        GgufLimits(max_array_elements=10)),
    Row("K8", "key twice", "llama.block_count", G.but(extra=(counted(b"llama.block_count") + u32(2),)),
        G.but(extra=(counted(b"llama.block_counu") + u32(2),))),
    Row("K8", "long key twice", "x" * 197 + "…",
        G.but({LONG_KEY: u32(1)}, extra=(counted(LONG_KEY.encode()) + u32(2),)),
        G.but({LONG_KEY: u32(1)}, extra=(counted(LONG_KEY[:-1].encode() + b"y") + u32(2),))),
    key_row("A1", "none", "general.architecture", None, text("llama")),
    key_row("A1", "number", "general.architecture", u32(1), text("llama")),
    key_row("A1", "slash", "general.architecture", text("ll/ma"), text("llama")),
    key_row("A1", "empty", "general.architecture", text(""), text("llama")),
    Row("A1", "65 letters", "general.architecture", CLIP.but({"general.architecture": text("a" * 65)}),
        CLIP.but({"general.architecture": text("a" * 64)})),
    key_row("A2", "0", "general.alignment", u32(0), u32(32)),
    key_row("A2", "48", "general.alignment", u32(48), u32(32)),
    Row("A2", "2 MiB", "general.alignment", G.but({"general.alignment": u32(2 << 20)}),
        G.but({"general.alignment": u32(1 << 20)}, alignment=1 << 20)),
    key_row("A2", "u64", "general.alignment", number(U64, 32), u32(32)),
    key_row("A2", "text", "general.alignment", text("32"), u32(32)),
    key_row("A3", "imatrix", "general.type", text("imatrix"), text("model")),
    key_row("A3", "number", "general.type", u32(1), text("adapter")),
    key_row("A3", "vocabulary", "general.type", text("vocab"), text("model")),
    key_row("A3", "dataset", "general.type", text("dataset"), text("model")),
    key_row("A3", "other case", "general.type", text("Adapter"), text("adapter")),
    key_row("A4", "no number", "split.no", None, SHARD["split.no"], G.but(SHARD)),
    Row("A2", "data that are not at a multiple of 32", "general.alignment",
        G.but({"general.alignment": u32(1), "k": text("")}, alignment=1),
        G.but({"general.alignment": u32(1), "k": text("x" * FILL)}, alignment=1)),
    key_row("A4", "count as i32", "split.count", number(I32, 2), SHARD["split.count"], G.but(SHARD)),
    key_row("A4", "shard 2 of 2", "split.no", number(U16, 2), number(U16, 0), G.but(SHARD)),
    key_row("A4", "tensors -1", "split.tensors.count", number(I32, -1), number(I32, 0), G.but(SHARD)),
)  # fmt: skip

TENSORS = (
    tensor_row("T1", "empty name", Tensor("", (1,)), Tensor("t", (1,)), "tensor 0"),
    tensor_row("T1", "64 bytes", Tensor("t" * 64, (1,)), Tensor("t" * 63, (1,)), "tensor 0"),
    tensor_row("T1", "2^64 - 1 bytes", Tensor("t", (1,), name_length=2**64 - 1), Tensor("t", (1,)),
               "tensor 0"),
    tensor_row("T1", "NUL", Tensor("t\0", (1,)), Tensor("tu", (1,)), "tensor 0"),
    Row("T2", "name twice", "t", G.but(tensors=(*ONE, *ONE)), G.but(tensors=(*ONE, Tensor("u", (32,))))),
    tensor_row("T3", "5 dimensions", Tensor("t", (1, 1, 1, 1, 1)), Tensor("t", (1, 1, 1, 1))),
    tensor_row("T3", "2^32 - 1 dimensions", Tensor("t", (1,), dimensions=2**32 - 1), Tensor("t", (1,))),
    tensor_row("T4", "0", Tensor("t", (4, 0)), Tensor("t", (4, 1))),
    tensor_row("T4", "2^63", Tensor("t", (2**63,), 24), Tensor("t", (2**62,), 24)),
    tensor_row("T4", "2^32 by 2^32", Tensor("t", (2**32, 2**32)), Tensor("t", (2**32, 2**24))),
    tensor_row("T4", "2^63 - 1 by 2", Tensor("t", (2**63 - 1, 2)), Tensor("t", (2**32 - 1, 2))),
    tensor_row("T4", "2^63 bytes", Tensor("t", (2**60,), 28), Tensor("t", (2**59,), 28)),
    tensor_row("T4", "2^64 - 16 bytes", Tensor("t", (2**62 - 4,), 0), Tensor("t", (2**60 - 4,), 0)),
    tensor_row("T5", "removed", Tensor("t", (32,), 4), Tensor("t", (32,), 2)),
    tensor_row("T5", "unknown", Tensor("t", (32,), 43), Tensor("t", (64,), 42)),
    tensor_row("T5", "negative", Tensor("t", (32,), 2**32 - 1), Tensor("t", (32,), 2)),
    Row("T6", "gap", "u", G.but(tensors=(*ONE, Tensor("u", (32,), 0, 160))),
        G.but(tensors=(*ONE, Tensor("u", (32,), 0, 128)))),
    Row("T6", "overlap", "u", G.but(tensors=(*ONE, Tensor("u", (32,), 0, 96))),
        G.but(tensors=(*ONE, Tensor("u", (32,), 0, 128)))),
    Row("T7", "sum", "v", G.but(tensors=tuple(Tensor(n, (2**60,)) for n in "tv")),
        G.but(tensors=(Tensor("t", (2**60,)), Tensor("v", (2**59,))))),
    # It is 2^63 bytes only once it is padded.
    Row("T7", "padding", "t", G.but({"general.alignment": u32(128)}, tensors=(Tensor("t", (2**63 - 1,), 24),),
        alignment=128),
        G.but({"general.alignment": u32(128)}, tensors=(Tensor("t", (2**63 - 2**20,), 24),), alignment=128)),
    Row("T7", "sum with the header", "file size", G.but(tensors=(Tensor("t", (2**61 - 16,)),)),
        G.but(tensors=(Tensor("t", (2**61 - 1024,)),))),
    tensor_row("T9", "integers", Tensor("blk.0.attn_q.weight", (64, 2), 24),
               Tensor("blk.0.x.weight", (64, 2), 24), "blk.0.attn_q.weight"),
    tensor_row("T9", "f64", Tensor("output.weight", (64, 2), 28), Tensor("output.weight", (64, 2), 30),
               "output.weight"),
    tensor_row("T9", "bias", Tensor("blk.1.ffn_up.bias", (64,), 27), Tensor("blk.1.ffn_up.bias", (64,), 0),
               "blk.1.ffn_up.bias"),
    tensor_row("T9", "of an adapter", Tensor("blk.0.ffn_up.weight.lora_a", (64, 2), 26),
               Tensor("blk.0.ffn_up.weight.lora_a", (64, 2), 8), "blk.0.ffn_up.weight.lora_a"),
    key_row("A5", "alpha", "adapter.lora.alpha", u32(16), number(F32, 16), ADAPTER),
    key_row("A5", "alphas", "adapter.lora.alpha", numbers(U32, [16]), numbers(F32, [16]), ADAPTER),
    key_row("A5", "type", "adapter.type", u32(1), text("lora"), ADAPTER),
    tensor_row("T8", "half a block", Tensor("t", (48, 2), 8), Tensor("t", (64, 2), 8)),
    Row("S1", "one byte short", "file size", G, G, bad_size_bytes=G.min_size_bytes - 1),
    Row("S1", "ends within the table", "output_norm.weight", G, G, bad_size_bytes=len(G.header) - 1),
    # Bytes that come after the declared end are not looked at.
    Row("S1", "ends within an array of strings", "k", STRINGS, STRINGS,
        bad_size_bytes=STRINGS.header.index(counted(b"abcde")) + 17),
    Row("S1", "ends after the counts", "key 0", G, G, bad_size_bytes=24),
    Row("S2", "one byte more", "file size", G, G, more_bytes=1),
    Row("S2", "between the ends", "file size", G, G, bad_size_bytes=G.min_size_bytes + 1),
)  # fmt: skip

GROUPS, GROUPS_USED = "llama.expert_group_count", "llama.expert_group_used_count"
EPSILON = "llama.attention.layer_norm_rms_epsilon"
UNIGRAM = G.but({"tokenizer.ggml.model": text("t5")})
EXPERTS = G.but({"llama.expert_count": u32(8), "llama.expert_used_count": u32(2)})
GROUPED = EXPERTS.but({GROUPS: u32(4), GROUPS_USED: u32(1)})


def of(architecture: str, pairs: dict[str, bytes]) -> Gguf:
    """The model as one of another architecture, with more keys of it."""
    own = {key.replace("llama.", architecture + ".", 1): value for key, value in G.pairs.items()}
    own |= {f"{architecture}.{key}": value for key, value in pairs.items()}
    return Gguf(pairs={**own, "general.architecture": text(architecture)})


#: The second of its blocks has experts.
USED = of("dots1", {"expert_count": u32(8), "expert_gating_func": u32(2)}).but(
    tensors=(*G.tensors, Tensor("blk.1.ffn_gate_inp.weight", (32,), 0))
)


MODEL = (
    key_row("M1", "0", "llama.block_count", u32(0), u32(1)),
    key_row("M1", "513", "llama.block_count", u32(513), u32(512)),
    key_row("M1", "2^32 - 1", "llama.block_count", u32(2**32 - 1), u32(512)),
    key_row("M2", "none", "llama.block_count", None, u32(1)),
    key_row("M2", "text", "llama.block_count", text("2"), u32(2)),
    key_row("M2", "u64", "llama.context_length", number(U64, 4096), u32(4096)),
    key_row("M2", "none", "llama.embedding_length", None, u32(256)),
    key_row("M2", "float", "llama.attention.head_count", number(F32, 8), u32(8)),
    key_row("M3", "none", "llama.attention.head_count", None, u32(8)),
    key_row("M3", "0", "llama.attention.head_count", u32(0), u32(8)),
    key_row("M3", "all 0", "llama.attention.head_count", numbers(I32, [0, 0]), numbers(I32, [0, 8])),
    key_row("M4", "1025 experts", "llama.expert_count", u32(1025), u32(1024), EXPERTS),
    key_row("M4", "used more", "llama.expert_used_count", u32(9), u32(8), EXPERTS),
    key_row("M4", "used none", "llama.expert_used_count", u32(0), u32(1), EXPERTS),
    key_row("M4", "used not said", "llama.expert_used_count", None, u32(1), EXPERTS),
    key_row("M5", "0", "llama.embedding_length", u32(0), u32(1)),
    key_row("M1", "more predicting blocks than blocks", "llama.nextn_predict_layers", u32(3), u32(1)),
    key_row("M4", "groups that do not divide", GROUPS, u32(3), u32(4), GROUPED),
    key_row("M4", "groups as many as experts", GROUPS, u32(8), u32(4), GROUPED),
    key_row("M4", "no groups used", GROUPS_USED, u32(0), u32(1), GROUPED),
    key_row("M4", "all groups used", GROUPS_USED, u32(4), u32(3), GROUPED),
    key_row("M4", "used by block", "llama.expert_used_count", numbers(U32, [2, 9]), numbers(U32, [2, 8]),
            EXPERTS),
    key_row("M4", "smallthinker without experts", "smallthinker.expert_count", None, u32(8),
            of("smallthinker", {"expert_count": u32(8), "expert_used_count": u32(2),
                                "expert_gating_func": u32(2)})),
    key_row("M7", "NaN", EPSILON, number(F32, float("nan")), number(F32, 1e-5)),
    key_row("M7", "negative", EPSILON, number(F32, -1.0), number(F32, 0.0)),
    *(key_row("M7", name, f"{name}.ssm.inner_size", u32(256), u32(512), of(name, {}))
      for name in ("jamba", "granitehybrid", "mamba2")),
    key_row("M7", "ssm rank", "mamba2.ssm.time_step_rank", u32(3), u32(4),
            of("mamba2", {"ssm.inner_size": u32(512)})),
    key_row("M7", "ssm groups", "falcon-h1.ssm.group_count", u32(3), u32(4),
            of("falcon-h1", {"ssm.inner_size": u32(512)})),
    key_row("M7", "plamo2 has no groups", "plamo2.ssm.group_count", u32(1), u32(0), of("plamo2", {})),
    key_row("M7", "deepseek2-ocr", "deepseek2-ocr.rope.freq_base", number(F32, 9999), number(F32, 10_000),
            of("deepseek2-ocr", {})),
    key_row("M7", "token shifts", "rwkv7.token_shift_count", u32(3), u32(2), of("rwkv7", {})),
    key_row("M7", "head size that does not divide", "rwkv7.wkv.head_size", u32(7), u32(64), of("rwkv7", {})),
    key_row("M7", "rwkv6 heads", "rwkv6.attention.head_count_kv", u32(3), u32(4),
            of("rwkv6", {"wkv.head_size": u32(64)})),
    key_row("M7", "step 0", "ernie4_5-moe.interleave_moe_layer_step", u32(0), u32(1), of("ernie4_5-moe", {})),
    key_row("M7", "no window", "afmoe.attention.sliding_window", None, u32(64), of("afmoe", {})),
    key_row("M7", "window 0", "afmoe.attention.sliding_window", u32(0), u32(64), of("afmoe", {})),
    key_row("M7", "every block", "gemma3.attention.sliding_window_pattern", u32(1), u32(6),
            of("gemma3", {"attention.sliding_window": u32(64)})),
    key_row("M7", "no block", "gemma2.attention.sliding_window_pattern", numbers(BOOL, [0, 0]),
            numbers(BOOL, [0, 1]), of("gemma2", {})),
    key_row("M4", "gating function 5", "glm4moe.expert_gating_func", u32(5), u32(4),
            of("glm4moe", {"expert_count": u32(8), "expert_used_count": u32(2)})),
    key_row("M4", "gating function 0", "dots1.expert_gating_func", u32(0), u32(2),
            of("dots1", {"expert_count": u32(8), "expert_used_count": u32(2)})),
    key_row("M4", "no gating function", "dots1.expert_gating_func", None, u32(2),
            of("dots1", {"expert_count": u32(8), "expert_used_count": u32(2)})),
    Row("M4", "a block uses none", "dots1.expert_used_count", USED.but({"dots1.expert_used_count":
        numbers(U32, [2, 0])}), USED.but({"dots1.expert_used_count": numbers(U32, [0, 2])})),
    key_row("M8", "no elements", "llama.attention.head_count_kv", numbers(U32, []), numbers(U32, [8] * 1024)),
    key_row("M8", "1025 elements", "llama.attention.head_count", numbers(U32, [8] * 1025),
            numbers(U32, [8] * 1024)),
    key_row("M4", "the first block uses none", "afmoe.expert_used_count", numbers(U32, [0, 2]),
            numbers(U32, [2, 0]), of("afmoe", {"attention.sliding_window": u32(64), "expert_count": u32(8)})),
    key_row("M9", "minicpm3's odd rope", "minicpm3.rope.dimension_count", u32(7), u32(8), of("minicpm3", {})),
    key_row("M9", "sections", "qwen3vl.rope.dimension_sections", numbers(I32, [16, 16, 8, 0]),
            numbers(I32, [16, 8, 8, 0]), of("qwen3vl", {})),
    key_row("M9", "no block without heads", "lfm2.attention.head_count_kv", u32(4), numbers(U32, [0, 4]),
            of("lfm2", {"attention.head_count": numbers(U32, [0, 8])})),
    key_row("M9", "heads that share",  "llama.attention.head_count_kv", u32(3), u32(4)),
    key_row("M9", "heads that share none", "olmoe.attention.head_count_kv", u32(4), u32(8), of("olmoe", {})),
    key_row("M9", "keys and values", "llama.attention.value_length", u32(64), u32(32)),
    key_row("M9", "keys alone", "llama.attention.key_length", u32(64), u32(32)),
    Row("M9", "as wide as the embedding", "mpt.attention.key_length",
        of("mpt", {"attention.key_length": u32(64), "attention.value_length": u32(64)}),
        of("mpt", {"attention.key_length": u32(32), "attention.value_length": u32(32)})),
    key_row("M9", "rope of a whole head", "qwen3.rope.dimension_count", u32(16), u32(32), of("qwen3", {})),
    key_row("M9", "rope beyond a head", "phi3.rope.dimension_count", u32(34), u32(16), of("phi3", {})),
    key_row("M9", "odd rope", "phi3.rope.dimension_count", u32(7), u32(8), of("phi3", {})),
    key_row("M7", "head size 0", "rwkv6qwen2.wkv.head_size", u32(0), u32(64), of("rwkv6qwen2", {})),
    key_row("M8", "text", "llama.attention.head_count_kv", texts(["8", "8"]), numbers(U32, [8, 8])),
    key_row("M8", "floats", "llama.feed_forward_length", numbers(F32, [8, 8]), numbers(I32, [8, 8])),
    key_row("M8", "heads as floats", "llama.attention.head_count", numbers(F32, [8, 8]),
            numbers(U32, [8, 8])),
    key_row("M5", "2^31", "llama.embedding_length", u32(2**31), u32(2**31 - 1)),
    key_row("M6", "unknown", "llama.rope.scaling.type", text("dynamic"), text("yarn")),
    key_row("M6", "number", "llama.rope.scaling.type", u32(1), text("none")),
    key_row("V1", "no tokenizer", "tokenizer.ggml.model", None, text("gpt2")),
    key_row("V1", "number", "tokenizer.ggml.model", u32(1), text("gpt2")),
    key_row("V1", "tokens are numbers", TOKENS, numbers(U8, [1, 2, 3]), texts(["a", "b", "c"])),
    key_row("V1", "token is a text", TOKENS, text("abc"), texts(["a", "b", "c"])),
    Row("V1", "no tokens", TOKENS, G.but({TOKENS: None}),
        G.but({TOKENS: texts("abc")})),
    key_row("V1", "no token", TOKENS, texts([]), texts("abc")),
    key_row("V2", "scores as u8", "tokenizer.ggml.scores", numbers(U8, [0, 0, 0]), numbers(F32, [0, 0, 0])),
    key_row("V2", "two scores", "tokenizer.ggml.scores", numbers(F32, [0, 0]), numbers(F32, [0, 0, 0])),
    key_row("V2", "types as u8", "tokenizer.ggml.token_type", numbers(U8, [1, 1, 1]),
            numbers(I32, [1, 1, 1])),
    key_row("V2", "two types", "tokenizer.ggml.token_type", numbers(I32, [1, 1]), numbers(I32, [1, 1, 1])),
    key_row("V2", "types as text", "tokenizer.ggml.token_type", text("111"), numbers(I32, [1, 1, 1])),
    key_row("V2", "suppressed as u8", "tokenizer.ggml.suppress_tokens", numbers(U8, [1]), numbers(I32, [1])),
    key_row("V3", "merges as u8", "tokenizer.ggml.merges", numbers(U8, [1]), texts(["a b"])),
    key_row("V3", "merges as text", "tokenizer.ggml.merges", text("a b"), texts(["a b"])),
    Row("V3", "long token", TOKENS, G.but({TOKENS: texts(["a", "b", "c" * 65])}),
        G.but({TOKENS: texts(["a", "b", "c" * 64])}), GgufLimits(max_token_bytes=64)),
    key_row("V4", "text twice", TOKENS, texts(["a", "b", "a"]), texts(["a", "b", "c"])),
    key_row("V4", "twice up to the NUL", TOKENS, texts(["a", "b", b"a\0x"]), texts(["a", "b", b"c\0x"])),
    key_row("V4", "an empty one's name", TOKENS, texts(["a", "", "[EMPTY_1]"]), texts(["a", "", ""])),
    key_row("V5", "3 bytes", CHARSMAP, numbers(U8, [0] * 3), numbers(U8, [0] * 5), UNIGRAM),
    key_row("V5", "inner size", CHARSMAP, numbers(U8, [4, 0, 0, 0] + [0] * 4),
            numbers(U8, [4, 0, 0, 0] + [0] * 5), UNIGRAM),
    key_row("V5", "text", CHARSMAP, text("abcdefgh"), numbers(U8, [0] * 5), UNIGRAM),
    key_row("V5", "numbers of 4", CHARSMAP, numbers(I32, [0] * 5), numbers(U8, [0] * 5), UNIGRAM),
    key_row("V6", "<0x-1>", TOKENS, texts(["a", "b", "<0x-1>"]), texts(["a", "b", "<0xFF>"]),
            G.but({"tokenizer.ggml.model": text("plamo2")})),
    key_row("V7", "2^32 - 1", "llama.vocab_size", u32(2**32 - 1), u32(1 << 20),
            G.but({TOKENS: None, "tokenizer.ggml.scores": None, "tokenizer.ggml.token_type": None,
                   "tokenizer.ggml.model": text("no_vocab")})),
    Row("V7", "4 tokens", TOKENS, G.but({TOKENS: texts("abcd")}),
        G.but({TOKENS: texts("abc")}), GgufLimits(max_tokens=3)),
    key_row("C1", "__class__", TEMPLATE, text("{{ ''.__class__ }}"), text("{{ '__x__' }}")),
    key_row("C1", "assembled", TEMPLATE + ".tool_use", text("{{ x['_' ~ '_class__'] }}"),
            text("{# __class__ #}{{ x['a' ~ '__class__'] }}")),
    key_row("C6", "brackets", TEMPLATE, text("{{ " + "(" * 9_000), text("{{ ((1)) }}")),
    key_row("C2", "number", TEMPLATE, u32(1), text("a")),
    Row("C2", "together", TEMPLATE + ".b", G.but({TEMPLATE: text("a" * 6), TEMPLATE + ".b": text("b" * 5)}),
        G.but({TEMPLATE: text("a" * 6), TEMPLATE + ".b": text("b" * 4)}), GgufLimits(max_template_bytes=10)),
    key_row("C3", "NUL in a text", "general.name", text("a\0b"), text("a b")),
    key_row("C3", "NUL in a template", TEMPLATE, text("a\0b"), text("a b")),
    key_row("C5", "blocks without heads", "clip.vision.attention.head_count", u32(0), u32(1),
            CLIP.but({"clip.vision.block_count": u32(2)})),
    key_row("C5", "no heads that hear", "clip.audio.attention.head_count", u32(0), u32(1),
            CLIP.but({"clip.audio.block_count": u32(2), "clip.has_audio_encoder": number(BOOL, 1)})),
    key_row("C5", "heads that do not divide the width", "clip.vision.attention.head_count", u32(3), u32(4),
            VIT),
    key_row("C5", "513 blocks", "clip.vision.block_count", u32(513), u32(0), CLIP),
    key_row("C5", "chunk_size", "clip.audio.chunk_size", u32(8193), u32(8192), CLIP),
    key_row("C5", "patches of 0", "clip.vision.patch_size", u32(0), u32(1), CLIP),
    key_row("C5", "patches of 4097", "clip.vision.patch_size", u32(4097), u32(4096), CLIP),
    key_row("C5", "larger than the image", "clip.vision.patch_size", u32(15), u32(14),
            VIT.but({"clip.vision.image_size": u32(14)})),
    key_row("C5", "larger than an image of no size", "clip.vision.patch_size", u32(1), None,
            VIT.but({"clip.vision.image_size": u32(0)})),
    key_row("C5", "several patches as one", "clip.vision.projector.scale_factor", None, u32(2), LFM2),
    key_row("C5", "one patch as one", "clip.vision.projector.scale_factor", u32(1), u32(2), LFM2),
    key_row("C5", "a text to merge by", "clip.vision.spatial_merge_size", text("2"), u32(2),
            CLIP.but({"clip.projector_type": text("qwen2vl_merger")})),
    Row("C7", "patches of another width", "v.patch_embd.weight",
        LLAVA.but(tensors=(Tensor("v.patch_embd.weight", (4, 4, 3, 16)), *LLAVA.tensors[1:])), LLAVA),
    key_row("C5", "image_size", "clip.vision.image_size", u32(65_537), u32(0), CLIP),
    key_row("C5", "embedding_length", "clip.vision.embedding_length", u32(2**20 + 1), u32(2**20), CLIP),
    key_row("C5", "no width", "clip.vision.embedding_length", u32(0), u32(1), CLIP),
    key_row("C5", "image_size as u64", "clip.vision.image_size", number(U64, 14), u32(14), CLIP),
    key_row("C5", "image_size as text", "clip.vision.image_size", text("14"), u32(14), CLIP),
    key_row("C5", "epsilon as f64", "clip.vision.attention.layer_norm_epsilon", number(F64, 1),
            number(F32, 1), CLIP),
    key_row("C5", "a number as flag", "clip.has_vision_encoder", u32(1), number(BOOL, 1), CLIP),
    key_row("C5", "a number as kind", "clip.projector_type", u32(1), text("mlp"), CLIP),
)  # fmt: skip

ROWS = (*HEADER, *PAIRS, *TENSORS, *MODEL)

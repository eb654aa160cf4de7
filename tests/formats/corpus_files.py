"""The fuzzers' small corpus: sound files of every kind, each as small as it can be; `scripts/make_corpus.py`
writes them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from tests.formats.build import (
    F32,
    F64,
    I32,
    I64,
    U8,
    U16,
    Gguf,
    Tensor,
    number,
    numbers,
    safetensors,
    text,
    texts,
    u32,
)
from tests.formats.template_rows import SOUND

DIRECTORY = Path(__file__).parent / "corpus"

_MODEL = Gguf(
    pairs={
        "general.architecture": text("llama"),
        "llama.block_count": u32(1),
        "llama.context_length": u32(8),
        "llama.embedding_length": u32(4),
        "llama.attention.head_count": u32(1),
        "tokenizer.ggml.model": text("gpt2"),
        "tokenizer.ggml.tokens": texts(["a", "b"]),
    },
    tensors=(Tensor("t", (4,)), Tensor("u", (32, 1), 2)),
)
_CLIP = Gguf(
    pairs={
        "general.architecture": text("clip"),
        "clip.vision.image_size": u32(28),
        "clip.vision.patch_size": u32(14),
    },
    tensors=(Tensor("v", (2,)),),
)
_SHARD = Gguf(
    pairs={"split.no": number(U16, 1), "split.count": number(U16, 2), "split.tensors.count": number(I32, 2)},
    tensors=(Tensor("t", (256,), 12),),
)


def _gguf() -> dict[str, bytes]:
    more = {
        "tokenizer.ggml.scores": numbers(F32, [0, 0]),
        "tokenizer.ggml.token_type": numbers(I32, [1, 1]),
        "tokenizer.ggml.merges": texts(["a b"]),
        "tokenizer.ggml.precompiled_charsmap": numbers(U8, [0] * 5),
        "tokenizer.chat_template": text("{{ m }}"),
        "llama.rope.scaling.type": text("yarn"),
        "llama.expert_count": u32(8),
        "llama.expert_used_count": u32(2),
    }
    aligned = _MODEL.but({"general.alignment": u32(8)}, alignment=8)
    types = {f"k{kind}": number(kind, 1) for kind in (0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12)}
    adapter = {
        "general.architecture": text("llama"),
        "general.type": text("adapter"),
        "adapter.type": text("lora"),
        "adapter.lora.alpha": number(F32, 16),
    }
    return {
        "model": _MODEL.file(),
        "more": _MODEL.but(more).file(),
        "aligned": aligned.file()[: aligned.min_size_bytes],
        "version-2": _MODEL.but(version=2).file(),
        "values": _CLIP.but({**types, "a": numbers(F64, [1]), "b": numbers(I64, [1])}).file(),
        "clip": _CLIP.file(),
        "adapter": Gguf(pairs=adapter, tensors=(Tensor("t.lora_a", (2, 2)),)).file(),
        "shard": _SHARD.file(),
    }


def _safetensors() -> dict[str, bytes]:
    def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
        return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}

    return {
        "one": safetensors({"a": entry("U8", [4], 0, 4)}, 4),
        "three": safetensors(
            {
                "__metadata__": {"format": "pt"},
                "b": entry("F32", [2, 1], 4, 12),
                "a": entry("BF16", [2], 0, 4),
                "c\u00e9": entry("I64", [], 12, 20),
            },
            20,
            padding=3,
        ),
        "none": safetensors({}, 0),
    }


def piece(content: str, score: float = 0.0, kind: int = 1) -> bytes:
    """One piece of a SentencePiece model."""
    raw = content.encode()
    body = b"\x0a" + bytes([len(raw)]) + raw + b"\x15" + struct.pack("<f", score) + b"\x18" + bytes([kind])
    return b"\x0a" + bytes([len(body)]) + body


def _sentencepiece() -> dict[str, bytes]:
    specs = b"\x12\x04\x0a\x02ab" + b"\x1a\x03\x0a\x01n" + b"\x28\x01" + b"\x31" + bytes(8)
    return {
        "two": piece("<unk>", kind=2) + piece("a", -1.5),
        "specs": piece("<unk>", kind=2) + piece("\u2581b") + specs,
    }


CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "vocab_size": 4,
    "rope_scaling": {"type": "yarn", "factor": 4.0},
    "torch_dtype": "bfloat16",
}


def _json() -> dict[str, bytes]:
    tokenizer = {
        "version": "1.0",
        "added_tokens": [{"id": 2, "content": "<s>", "special": True}],
        "model": {"type": "BPE", "vocab": {"a": 0, "b\u00e9": 1}, "merges": ["a b", ["b", "a"]]},
        "pre_tokenizer": None,
    }
    config = {"chat_template": [{"name": "default", "template": "{{ m }}"}], "bos_token": "<s>", "max": 1e30}
    special = {"additional_special_tokens": [{"content": "<e>"}], "eos_token": "<e>"}
    index = {"metadata": {"total_size": 4}, "weight_map": {"a": "m-00001-of-00002.safetensors"}}
    contents: dict[str, Any] = {
        "config.json": CONFIG,
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": config,
        "special_tokens_map.json": special,
        "added_tokens.json": {"<pad>": 3},
        "generation_config.json": {"eos_token_id": [1, 2], "temperature": 0.6},
        "adapter_config.json": {"r": 8, "lora_alpha": 16},
        "model.safetensors.index.json": index,
        "modules.json": [{"type": "x", "path": ""}],
        "vocab.json": {"a": 0, "b": 1},
    }
    return {name: json.dumps(content).encode() for name, content in contents.items()}


def _templates() -> dict[str, bytes]:
    """Short ones: mutations make of them what has to be refused."""
    return {
        name.replace(" ", "-"): template.encode() for name, template in SOUND.items() if len(template) < 250
    }


#: Reader -> name -> file.
CORPUS = {
    "gguf": _gguf(),
    "safetensors": _safetensors(),
    "sentencepiece": _sentencepiece(),
    "json": _json(),
    "template": _templates(),
}

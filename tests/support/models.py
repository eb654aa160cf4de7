"""GGUF files of any size that the format rules accept."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from tests.ollama_emulator.gguf_write import encode_pair

_I8 = 24
#: The least that makes a model; `none` is a tokenizer without tokens.
MODEL: dict[str, Any] = {
    "general.architecture": "llama",
    "general.name": "sample",
    "general.alignment": 1,
    "llama.block_count": 1,
    "llama.context_length": 128,
    "llama.embedding_length": 8,
    "llama.attention.head_count": 1,
    "tokenizer.ggml.model": "none",
}
PROJECTOR: dict[str, Any] = {
    "general.architecture": "clip",
    "general.type": "mmproj",
    "general.alignment": 1,
}
ADAPTER: dict[str, Any] = {
    "general.architecture": "llama",
    "general.type": "adapter",
    "general.alignment": 1,
}


def shard(number: int, count: int, tensors: int) -> dict[str, Any]:
    """The pairs of one shard, counted from 0; only the first has the model's own."""
    split = {"split.no": U16(number), "split.count": U16(count), "split.tensors.count": I32(tensors)}
    return (MODEL if number == 0 else {"general.alignment": 1}) | split


class U16(int):
    """Encoded as u16."""


class I32(int):
    """Encoded as i32."""


def model(
    size_bytes: int = 0, seed: int = 0, kv: Mapping[str, Any] | None = None, tensors: Sequence[str] = ("w",)
) -> bytes:
    """A GGUF of `size_bytes`, or as small as it can be; its data are random, the same for the same seed."""
    pairs = b"".join(_pair(key, value) for key, value in (MODEL if kv is None else kv).items())
    count = len(MODEL if kv is None else kv)
    data_bytes = len(tensors)
    head = _head(pairs, count, tensors, data_bytes)
    data_bytes = max(data_bytes, size_bytes - len(head))
    return _head(pairs, count, tensors, data_bytes) + random.Random(seed).randbytes(data_bytes)


def beginning(size_bytes: int, length_bytes: int, seed: int = 0) -> bytes:
    """The first `length_bytes` of a model of `size_bytes`, which may be far more than there is memory."""
    pairs = b"".join(_pair(key, value) for key, value in MODEL.items())
    head = _head(pairs, len(MODEL), ("w",), 1)
    head = _head(pairs, len(MODEL), ("w",), size_bytes - len(head))
    return (head + random.Random(seed).randbytes(length_bytes))[:length_bytes]


def _pair(key: str, value: Any) -> bytes:
    head = struct.pack("<Q", len(key)) + key.encode()
    if isinstance(value, U16):
        return head + struct.pack("<IH", 2, value)
    if isinstance(value, I32):
        return head + struct.pack("<Ii", 5, value)
    return encode_pair(key, value)


def _head(pairs: bytes, count: int, tensors: Sequence[str], data_bytes: int) -> bytes:
    """One element for each tensor, and the rest for the last one."""
    infos = b""
    for index, name in enumerate(tensors):
        elements = data_bytes - index if index == len(tensors) - 1 else 1
        infos += struct.pack("<Q", len(name)) + name.encode()
        infos += struct.pack("<IQIQ", 1, elements, _I8, index)
    # llama.cpp wants the data at a multiple of 32; an alignment of 1 leaves the data as long as is asked for.
    key = b"filler"
    bare_bytes = 24 + len(pairs) + len(infos) + 8 + len(key) + 12
    filler = (
        struct.pack("<Q", len(key))
        + key
        + struct.pack("<IQ", 8, -bare_bytes % 32)
        + b" " * (-bare_bytes % 32)
    )
    return struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), count + 1) + pairs + filler + infos


#: The least of what lies beside safetensors that the rules accept.
CONFIG_JSON = b'{"architectures":["LlamaForCausalLM"],"num_attention_heads":1}'
#: One piece of one letter.
TOKENIZER_MODEL = b"\n\x03\n\x01a"

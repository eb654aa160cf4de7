"""Builds GGUF and safetensors headers byte by byte, right ones and wrong ones."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ingest_service.formats.gguf.types import CODES, TENSOR_TYPES

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)


def counted(data: bytes, length: int | None = None) -> bytes:
    """A string, with its true length or another."""
    return struct.pack("<Q", len(data) if length is None else length) + data


def number(kind: int, value: float) -> bytes:
    return struct.pack("<I" + CODES[kind], kind, value)


def u32(value: int) -> bytes:
    return number(U32, value)


def text(value: str | bytes, length: int | None = None) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<I", STRING) + counted(data, length)


def array(kind: int, content: bytes, count: int) -> bytes:
    return struct.pack("<IIQ", ARRAY, kind, count) + content


def numbers(kind: int, values: Sequence[float], count: int | None = None) -> bytes:
    content = struct.pack(f"<{len(values)}{CODES[kind]}", *values)
    return array(kind, content, len(values) if count is None else count)


def texts(values: Sequence[str | bytes], count: int | None = None) -> bytes:
    content = b"".join(counted(v.encode() if isinstance(v, str) else v) for v in values)
    return array(STRING, content, len(values) if count is None else count)


@dataclass(frozen=True)
class Tensor:
    """One tensor; its offset is worked out unless it is given."""

    name: str | bytes
    shape: tuple[int, ...]
    kind: int = 0
    offset: int | None = None
    dimensions: int | None = None
    name_length: int | None = None

    @property
    def size_bytes(self) -> int:
        elements = 1
        for dimension in self.shape:
            elements *= dimension
        _, block, block_bytes = TENSOR_TYPES.get(self.kind, ("", 1, 1))
        return elements // block * block_bytes

    def encode(self, running: int) -> bytes:
        name = self.name.encode() if isinstance(self.name, str) else self.name
        dimensions = len(self.shape) if self.dimensions is None else self.dimensions
        shape = struct.pack(f"<I{len(self.shape)}Q", dimensions, *self.shape)
        offset = running if self.offset is None else self.offset
        return counted(name, self.name_length) + shape + struct.pack("<IQ", self.kind, offset % 2**64)


MODEL_PAIRS = {
    "general.architecture": text("llama"),
    "general.name": text("A small model"),
    "general.license": text("mit"),
    "general.size_label": text("1K"),
    "general.file_type": u32(15),
    "llama.block_count": u32(2),
    "llama.context_length": u32(4096),
    "llama.embedding_length": u32(256),
    "llama.attention.head_count": u32(8),
    "tokenizer.ggml.model": text("gpt2"),
    "tokenizer.ggml.pre": text("llama-bpe"),
    "tokenizer.ggml.tokens": texts(["<s>", "a", "<0x0A>"]),
    "tokenizer.ggml.scores": numbers(F32, [0.0, -1.0, -2.0]),
    "tokenizer.ggml.token_type": numbers(I32, [3, 1, 6]),
    "tokenizer.ggml.merges": texts(["a b", "b c"]),
    "tokenizer.ggml.add_bos_token": number(BOOL, 1),
    "tokenizer.chat_template": text("{% for m in messages %}{{ m.content }}{% endfor %}"),
}
MODEL_TENSORS = (
    Tensor("token_embd.weight", (256, 3), 12),
    Tensor("blk.1.attn_q.weight", (64, 2), 8),
    # Its 12 bytes leave room for padding, so that the two right ends of a file differ.
    Tensor("output_norm.weight", (3,), 0),
)


@dataclass(frozen=True)
class Gguf:
    """A file; without changes a sound model."""

    pairs: dict[str, bytes] = field(default_factory=lambda: dict(MODEL_PAIRS))
    tensors: tuple[Tensor, ...] = MODEL_TENSORS
    #: Pairs that a dict cannot hold: repeated keys, keys with a wrong length.
    extra: tuple[bytes, ...] = ()
    magic: bytes = b"GGUF"
    version: int = 3
    pair_count: int | None = None
    tensor_count: int | None = None
    alignment: int = 32

    def but(self, pairs: Mapping[str, bytes | None] | None = None, **changes: Any) -> Gguf:
        """The same with other pairs (None takes one away) and other fields."""
        merged = dict(self.pairs)
        for key, value in (pairs or {}).items():
            merged.pop(key, None)
            if value is not None:
                merged[key] = value
        return replace(self, pairs=merged, **changes)

    @property
    def header(self) -> bytes:
        """Up to where the tensors' descriptions end."""
        listed = [counted(k.encode()) + v for k, v in self.pairs.items()]
        listed += self.extra
        count = len(listed) if self.pair_count is None else self.pair_count
        tensor_count = len(self.tensors) if self.tensor_count is None else self.tensor_count
        out = self.magic + struct.pack("<IQQ", self.version, tensor_count, count) + b"".join(listed)
        running = 0
        for tensor in self.tensors:
            out += tensor.encode(running)
            running += self.padded(tensor.size_bytes)
        return out

    def padded(self, count: int) -> int:
        return count + -count % self.alignment

    @property
    def data_offset(self) -> int:
        return self.padded(len(self.header)) if self.tensors else len(self.header)

    @property
    def max_size_bytes(self) -> int:
        """As llama.cpp ends its files."""
        return self.data_offset + sum(self.padded(t.size_bytes) for t in self.tensors)

    @property
    def min_size_bytes(self) -> int:
        """As Ollama ends its files."""
        last = self.tensors[-1].size_bytes if self.tensors else 0
        return self.max_size_bytes - self.padded(last) + last

    def file(self) -> bytes:
        return self.header.ljust(self.max_size_bytes, b"\0")


def safetensors(
    header: bytes | dict[str, Any], data_bytes: int, length: int | None = None, padding: int = 0
) -> bytes:
    """A whole file."""
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    content += b" " * padding
    return counted(content, length) + bytes(data_bytes)

"""Reads a GGUF header as far as Ollama does, with its error texts (contract section 7).

Values of long arrays are skipped, not kept: the emulator's memory stays bounded.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from .gguf_types import BLOCKS, FILE_TYPES
from .golang import quote

_MAX_STRING = 16 << 20
_MAX_ARRAY = 64 << 20
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_KEEP = 1024  # elements of an array that are kept for show


class GGUFError(Exception):
    """The text Ollama would answer."""


class NotGGUF(GGUFError):
    """`supplied file was not in GGUF format`: a 400 where statuses still can be sent."""


@dataclass
class Tensor:
    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int
    size: int = 0


@dataclass
class GGUF:
    version: int
    order: str
    size: int
    kv: dict[str, Any] = field(default_factory=dict)
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    tensors: list[Tensor] = field(default_factory=list)
    alignment: int = 32
    data_offset: int = 0
    parameters: int = 0

    @property
    def architecture(self) -> str:
        value = self.kv.get("general.architecture")
        return value if isinstance(value, str) and value else "unknown"

    @property
    def kind(self) -> str:
        value = self.kv.get("general.type")
        return value if isinstance(value, str) else "unknown"

    @property
    def file_type(self) -> str:
        value = self.number("general.file_type")
        # The trap of section 3.3: 0 (F32) reads as unknown.
        return FILE_TYPES.get(value, "unknown") if value else "unknown"

    def number(self, key: str) -> int:
        """A numeric key, with or without the architecture prefix; 0 when absent."""
        for name in (key, f"{self.architecture}.{key}"):
            value = self.kv.get(name)
            if isinstance(value, int):
                return int(value)
        return 0

    def has(self, key: str) -> bool:
        return key in self.kv or f"{self.architecture}.{key}" in self.kv

    @property
    def is_projector(self) -> bool:
        if self.kind in ("projector", "mmproj"):
            return True
        if self.number("block_count") == 0 and self.number("vision.block_count") > 0:
            return True
        encoders = self.number("has_vision_encoder") or self.number("has_audio_encoder")
        return self.architecture == "clip" and self.number("block_count") == 0 and bool(encoders)


class _Reader:
    def __init__(self, file: BinaryIO, order: str) -> None:
        self.file = file
        self.order = order

    def take(self, count: int) -> bytes:
        data = self.file.read(count)
        if len(data) < count:
            raise GGUFError("unexpected EOF" if data else "EOF")
        return data

    def unpack(self, code: str) -> Any:
        return struct.unpack(self.order + code, self.take(struct.calcsize(self.order + code)))[0]

    def string(self) -> str:
        length = self.unpack("Q")
        if length > _MAX_STRING:
            raise GGUFError(f"GGUF string length {length} exceeds maximum {_MAX_STRING}")
        return self.take(length).decode("utf-8", "replace")

    def array(self) -> Any:
        kind, count = self.unpack("I"), self.unpack("Q")
        if count > _MAX_ARRAY:
            raise GGUFError(f"GGUF array size {count} exceeds maximum {_MAX_ARRAY}")
        if kind == 8:
            values = [self.string() for _ in range(min(count, _KEEP))]
            for _ in range(count - len(values)):
                self.string()
            return values
        if kind not in _SCALARS:
            raise GGUFError(f"invalid array type: {kind}")
        width = struct.calcsize(self.order + _SCALARS[kind])
        kept = min(count, _KEEP)
        raw = self.take(kept * width)
        here = self.file.tell()
        self.file.seek(0, os.SEEK_END)
        if here + (count - kept) * width > self.file.tell():
            raise GGUFError("unexpected EOF")
        self.file.seek(here + (count - kept) * width)
        return list(struct.unpack(f"{self.order}{kept}{_SCALARS[kind]}", raw))

    def value(self) -> Any:
        kind = self.unpack("I")
        if kind == 8:
            return self.string()
        if kind == 9:
            return self.array()
        if kind not in _SCALARS:
            raise GGUFError(f"invalid type: {kind}")
        return self.unpack(_SCALARS[kind])


def sniff(head: bytes) -> bool:
    return head[:4] in (b"GGUF", b"FUGG")


def read(path: Path) -> GGUF:
    """Decodes the header and checks every tensor against the end of the file. Blocking."""
    with path.open("rb") as file:
        head = file.read(4)
        if not sniff(head):
            raise NotGGUF("supplied file was not in GGUF format")
        reader = _Reader(file, "<" if head == b"GGUF" else ">")
        version = reader.unpack("I")
        # Version 1 had 32-bit counts; every number but 1 and 2 is read as version 3.
        counts = "I" if version == 1 else "Q"
        tensors, pairs = reader.unpack(counts), reader.unpack(counts)
        model = GGUF(version, reader.order, path.stat().st_size)
        for _ in range(pairs):
            start = file.tell()
            key = reader.string()
            model.kv[key] = reader.value()
            model.spans[key] = (start, file.tell())
        for _ in range(tensors):
            model.tensors.append(_tensor(reader))
        _check(model, file.tell())
        return model


def _tensor(reader: _Reader) -> Tensor:
    name = _named("name", reader.string)
    dims = _named("dimensions", lambda: reader.unpack("I"))
    if dims > 4:
        raise GGUFError(f"tensor {quote(name)} dimensions {dims} exceeds maximum 4")
    shape = tuple(_named("shape", lambda: reader.unpack("Q")) for _ in range(dims))
    kind = _named("kind", lambda: reader.unpack("I"))
    return Tensor(name, shape, kind, _named("offset", lambda: reader.unpack("Q")))


def _named(what: str, take: Callable[[], Any]) -> Any:
    try:
        return take()
    except GGUFError as error:
        raise GGUFError(f"failed to read tensor {what}: {error}") from None


def _check(model: GGUF, header_end: int) -> None:
    alignment = model.kv.get("general.alignment", 32)
    model.alignment = alignment if isinstance(alignment, int) else 32
    if model.alignment == 0:
        raise GGUFError("invalid GGUF alignment: 0")
    model.data_offset = header_end + -header_end % model.alignment
    for tensor in model.tensors:
        elements = 1
        for dim in tensor.shape:
            elements *= dim
        if elements >= 1 << 64:
            raise GGUFError(f"tensor {quote(tensor.name)} elements overflow")
        model.parameters += elements
        block, width = BLOCKS.get(tensor.kind, (256, 0))
        if width == 0 or (tensor.shape[0] if tensor.shape else 1) % block:
            raise GGUFError(f"tensor {quote(tensor.name)} size overflow")
        tensor.size = elements // block * width
        end = model.data_offset + tensor.offset + tensor.size
        if end > model.size:
            text = f"offset+size ({end}) exceeds file size ({model.size})"
            raise GGUFError(f"tensor {quote(tensor.name)} {text}")

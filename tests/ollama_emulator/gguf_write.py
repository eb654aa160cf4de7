"""Writes GGUF files: samples for tests, and the stand-in for `llama-quantize`.

The stand-in copies tensor data unchanged under a new header. That is enough for what a client
can see of era B: another digest, another file type, shards become one file (section 3.3).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from .gguf import GGUF, Tensor
from .gguf_types import BLOCKS

MARK = "emulator.llama_quantize"
_PIECE = 4 << 20


class Sink(Protocol):
    """What bytes are written to: a file, or a blob's temporary."""

    def write(self, data: bytes, /) -> int: ...


def _string(text: str, order: str) -> bytes:
    data = text.encode()
    return struct.pack(order + "Q", len(data)) + data


def encode_pair(key: str, value: Any, order: str = "<") -> bytes:
    """One key and its value; ints become uint32 (or uint64), floats float32."""
    kind, payload = _encode(value, order)
    return _string(key, order) + struct.pack(order + "I", kind) + payload


def _encode(value: Any, order: str) -> tuple[int, bytes]:
    if isinstance(value, bool):
        return 7, struct.pack(order + "?", value)
    if isinstance(value, int):
        wide = value >= 1 << 32
        return (10, struct.pack(order + "Q", value)) if wide else (4, struct.pack(order + "I", value))
    if isinstance(value, float):
        return 6, struct.pack(order + "f", value)
    if isinstance(value, str):
        return 8, _string(value, order)
    items = [_encode(item, order) for item in value]
    kind = items[0][0] if items else 8
    head = struct.pack(order + "IQ", kind, len(items))
    return 9, head + b"".join(payload for _, payload in items)


def _tensor(tensor: Tensor, order: str) -> bytes:
    head = _string(tensor.name, order) + struct.pack(order + "I", len(tensor.shape))
    dims = struct.pack(f"{order}{len(tensor.shape)}Q", *tensor.shape)
    return head + dims + struct.pack(order + "IQ", tensor.kind, tensor.offset)


def header(pairs: Sequence[bytes], tensors: Sequence[Tensor], alignment: int, order: str) -> bytes:
    magic = b"GGUF" if order == "<" else b"FUGG"
    out = magic + struct.pack(order + "IQQ", 3, len(tensors), len(pairs))
    out += b"".join(pairs) + b"".join(_tensor(tensor, order) for tensor in tensors)
    return out + b"\0" * (-len(out) % alignment)


def sample(
    kv: dict[str, Any] | None = None,
    tensors: Sequence[tuple[str, tuple[int, ...], int, bytes | None]] = (),
) -> bytes:
    """A small valid GGUF. Tensors are (name, shape, ggml type, data or None for zeros)."""
    pairs = {"general.architecture": "llama", "general.name": "sample", **(kv or {})}
    infos: list[Tensor] = []
    data = b""
    for name, shape, kind, given in tensors:
        elements = 1
        for dim in shape:
            elements *= dim
        block, width = BLOCKS.get(kind, (1, 1))
        content = bytes(elements // block * width) if given is None else given
        infos.append(Tensor(name, shape, kind, len(data)))
        data += content + b"\0" * (-len(content) % 32)
    return header([encode_pair(key, value) for key, value in pairs.items()], infos, 32, "<") + data


def rewrite(source: Path, model: GGUF, out: Sink, changes: dict[str, Any]) -> None:
    """Copies one file under a marked header. A file that already has the mark and needs no
    change keeps its bytes: Ollama's digest may be equal for files it produced itself."""
    with source.open("rb") as file:
        if MARK in model.kv and not changes:
            _copy(file, out, model.size)
            return
        pairs = _raw_pairs(file, model, set(changes) | {MARK})
        extra = [encode_pair(key, value, model.order) for key, value in changes.items()]
        extra.append(encode_pair(MARK, True, model.order))
        out.write(header(pairs + extra, model.tensors, model.alignment, model.order))
        file.seek(min(model.data_offset, model.size))
        _copy(file, out, max(0, model.size - model.data_offset))


def merge(parts: Sequence[tuple[Path, GGUF]], out: Sink) -> None:
    """Split shards, in order, into one file without the `split.*` keys."""
    first_path, first = parts[0]
    dropped = {key for key in first.kv if key.split(".")[-2:-1] == ["split"]}
    dropped |= {key for key in first.kv if key.endswith("split.tensors.count")}
    with first_path.open("rb") as file:
        pairs = _raw_pairs(file, first, dropped | {MARK})
    pairs.append(encode_pair(MARK, True, first.order))
    tensors: list[Tensor] = []
    position = 0
    for _, model in parts:
        for tensor in model.tensors:
            tensors.append(Tensor(tensor.name, tensor.shape, tensor.kind, position, tensor.size))
            position += tensor.size + -tensor.size % first.alignment
    out.write(header(pairs, tensors, first.alignment, first.order))
    for path, model in parts:
        with path.open("rb") as file:
            for tensor in model.tensors:
                file.seek(model.data_offset + tensor.offset)
                _copy(file, out, tensor.size)
                out.write(b"\0" * (-tensor.size % first.alignment))


def _raw_pairs(file: BinaryIO, model: GGUF, dropped: set[str]) -> list[bytes]:
    pairs = []
    for key, (start, end) in model.spans.items():
        if key not in dropped:
            file.seek(start)
            pairs.append(file.read(end - start))
    return pairs


def _copy(file: BinaryIO, out: Sink, count: int) -> None:
    while count > 0:
        piece = file.read(min(_PIECE, count))
        if not piece:
            raise OSError("unexpected EOF")
        out.write(piece)
        count -= len(piece)

"""The table of tensors: rules T, exactly llama.cpp's, and what the file's size has to be (S)."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from ingest_service.formats.faults import refuse
from ingest_service.formats.gguf.limits import GgufLimits
from ingest_service.formats.gguf.types import NEVER_WEIGHTS, OLD_MXFP4, REMOVED_TENSOR_TYPES, TENSOR_TYPES
from ingest_service.formats.source import Source, Steps

_U64 = struct.Struct("<Q")
_U32 = struct.Struct("<I")
_TAIL = struct.Struct("<IQ")
_MAX_NAME_BYTES = 63
_MAX_DIMENSIONS = 4
_TOO_MUCH = 2**63
DEFAULT_ALIGNMENT = 32
#: Tensors that every architecture multiplies with; others may be tables of integers.
_WEIGHTS = re.compile(
    rb"(?:token_embd|output|output_norm|rope_freqs"
    rb"|blk\.\d+\.(?:attn_(?:norm|[qkv]|output)|ffn_(?:norm|gate|up|down)))"
    rb"\.(?:weight|weight\.lora_[ab]|bias|scale)"
)


@dataclass(slots=True)
class TypeShare:
    """What the tensors of one type amount to."""

    tensors: int = 0
    parameters: int = 0
    size_bytes: int = 0


class Described(NamedTuple):
    """One tensor: its shape of four numbers, its type, and where in the file its description begins."""

    shape: tuple[int, int, int, int]
    type: int
    offset: int


@dataclass(slots=True)
class Tensors:
    """The whole table, summed up; offsets are from the start of the data."""

    count: int = 0
    parameters: int = 0
    #: Where the last tensor's bytes end, and the same rounded up to the alignment.
    end_bytes: int = 0
    padded_end_bytes: int = 0
    #: The last one's bytes rounded up to 32, as llama.cpp's tools do whatever the alignment.
    default_end_bytes: int = 0
    by_type: dict[int, TypeShare] = field(default_factory=dict)
    names: set[bytes] = field(default_factory=set)
    #: By name, where they were asked for.
    described: dict[str, Described] = field(default_factory=dict)
    #: Every tensor's size is known, so that it is known where the file ends.
    is_sound: bool = True
    #: Where the next tensor begins is known, and so where the file ends: the last one's type is known.
    is_next_known: bool = True


def read_tensors(
    source: Source, count: int, alignment: int | None, *, are_described: bool = False
) -> Steps[Tensors]:
    """All descriptions, one after the other; the data they tell of is not looked at.

    Without an alignment it is not known where a tensor has to begin. `are_described`: each shape is kept.
    """
    tensors = Tensors(is_sound=alignment is not None)
    for index in range(count):
        start = source.offset
        name = yield from _read_name(source, tensors.names, index)
        shown = name.decode("utf-8", "replace")
        shape = yield from _read_shape(source, shown)
        at = source.offset
        number, offset = _TAIL.unpack((yield from source.take(_TAIL.size, shown)))
        size_bytes = _size_bytes(source, shape, number, at, shown)
        if number in NEVER_WEIGHTS and _WEIGHTS.fullmatch(name):
            message = f"Weights of type {TENSOR_TYPES[number].name}: llama.cpp crashes when it uses them."
            source.faults.add("T9", at, shown, message)
        if tensors.is_sound and tensors.is_next_known and offset != tensors.padded_end_bytes:
            message = f"The tensor is at {offset}; after the one before it comes {tensors.padded_end_bytes}."
            source.faults.add_policy("T6", at + 4, shown, message)
            tensors.is_sound = source.faults.is_warning("T6")
        if shape is not None and number not in TENSOR_TYPES and source.faults.is_warning("T5"):
            # Its size is not known: the next one may begin anywhere.
            tensors.is_next_known = False
            _count(tensors, number, shape.elements, 0)
            continue
        if size_bytes is None or shape is None:
            # Where the next one begins is not known: it is not told of each that it is not there.
            tensors.is_sound = False
            continue
        if are_described:
            tensors.described[shown] = Described(shape.four, number, start)
        _place(tensors, offset, size_bytes, alignment or 1)
        _count(tensors, number, shape.elements, size_bytes)
        if tensors.is_sound and tensors.padded_end_bytes >= _TOO_MUCH:
            source.faults.add("T7", at, shown, "The tensors have 2^63 bytes or more together.")
            tensors.is_sound = False
    return tensors


def _size_bytes(source: Source, shape: Shape | None, number: int, at: int, shown: str) -> int | None:
    """None if it is not known, which is a fault that has been told."""
    kind = TENSOR_TYPES.get(number)
    if kind is None:
        message = f"{number} is no known tensor type."
        if number in REMOVED_TENSOR_TYPES:
            message = f"{number} is no longer a tensor type."
        if number == OLD_MXFP4:
            message += " Ollama 0.11 and 0.12 had it for MXFP4 in their own gpt-oss models; MXFP4 is 39 now."
        source.faults.add_policy("T5", at, shown, message)
        return None
    if shape is None:
        return None
    if shape.row % kind.block:
        message = f"A row of {shape.row} elements is no multiple of {kind.name}'s block of {kind.block}."
        source.faults.add("T8", at, shown, message)
        return None
    size_bytes = shape.elements // kind.block * kind.block_bytes
    if size_bytes >= _TOO_MUCH:
        message = f"{shape.elements} elements of {kind.name} have 2^63 bytes or more."
        source.faults.add("T4", at, shown, message)
        return None
    return size_bytes


def _place(tensors: Tensors, start: int, size_bytes: int, alignment: int) -> None:
    # Where tensors may overlap, the last one need not be the one that ends last.
    if start + size_bytes >= tensors.end_bytes:
        tensors.default_end_bytes = start + size_bytes + -size_bytes % DEFAULT_ALIGNMENT
        tensors.end_bytes = start + size_bytes
        tensors.padded_end_bytes = tensors.end_bytes + -tensors.end_bytes % alignment
    tensors.is_next_known = True


def _count(tensors: Tensors, number: int, parameters: int, size_bytes: int) -> None:
    tensors.count += 1
    tensors.parameters += parameters
    share = tensors.by_type.setdefault(number, TypeShare())
    share.tensors += 1
    share.parameters += parameters
    share.size_bytes += size_bytes


def _read_name(source: Source, names: set[bytes], index: int) -> Steps[bytes]:
    start, shown = source.offset, f"tensor {index}"
    (length,) = _U64.unpack((yield from source.take(8, shown)))
    if not 1 <= length <= _MAX_NAME_BYTES:
        refuse("T1", start, shown, f"A tensor's name has 1 to {_MAX_NAME_BYTES} bytes, not {length}.")
    name = yield from source.take(length, shown)
    if b"\0" in name:
        source.faults.add_policy("T1", start + 8 + name.index(0), shown, "A tensor's name has no NUL.")
    if name in names:
        source.faults.add_policy("T2", start, name.decode("utf-8", "replace"), "Two tensors have this name.")
    names.add(name)
    return name


class Shape(NamedTuple):
    """The number of elements, how many of them are a row, and all four numbers, 1 where none is said."""

    elements: int
    row: int
    four: tuple[int, int, int, int]


def _read_shape(source: Source, shown: str) -> Steps[Shape | None]:
    """None if it is no shape that can be, which is a fault that has been told."""
    at = source.offset
    (dimensions,) = _U32.unpack((yield from source.take(4, shown)))
    if dimensions > _MAX_DIMENSIONS:
        refuse("T3", at, shown, f"A tensor has at most {_MAX_DIMENSIONS} dimensions, not {dimensions}.")
    at = source.offset
    shape = struct.unpack(f"<{dimensions}Q", (yield from source.take(8 * dimensions, shown)))
    elements = 1
    for index, dimension in enumerate(shape):
        elements *= dimension
        # llama.cpp divides by every dimension but the first: only that one may be 0.
        if not (index == 0 or dimension) or dimension >= _TOO_MUCH or elements >= _TOO_MUCH:
            message = f"The shape {list(shape)} has a 0 behind its first number, or 2^63 elements or more."
            source.faults.add("T4", at + 8 * index, shown, message)
            return None
    first, second, third, fourth = (*shape, 1, 1, 1, 1)[:4]
    return Shape(elements, first, (first, second, third, fourth))


@dataclass(frozen=True, slots=True)
class Extent:
    """Where the header ends, where the data begins, and the two sizes that a file may have."""

    header_bytes: int
    data_offset: int
    min_size_bytes: int
    max_size_bytes: int


def check_extent(
    source: Source, tensors: Tensors, alignment: int | None, limits: GgufLimits, *, shown: str = "file size"
) -> Extent:
    """llama.cpp's writers pad the last tensor, to the alignment or to 32; Ollama's do not."""
    end = source.offset
    padded = end + -end % (alignment or 1)
    data = padded if tensors.count else end
    # Without tensors nothing has to follow, but what writers pad to the alignment may.
    extent = Extent(end, data, data + tensors.end_bytes, padded + tensors.padded_end_bytes)
    right = {extent.min_size_bytes, extent.max_size_bytes}
    if tensors.count:
        right.add(data + tensors.default_end_bytes)
    size = source.size_bytes
    if not tensors.is_sound:
        return extent
    if extent.max_size_bytes >= _TOO_MUCH:
        source.faults.add("T7", end, shown, "The file would have 2^63 bytes or more.")
    elif size < extent.min_size_bytes:
        message = f"Its tensors need {extent.min_size_bytes} bytes; the file has {size}: it is cut short."
        source.faults.add("S1", end, shown, message)
    elif tensors.is_next_known and size not in right and not limits.allow_trailing_bytes:
        message = f"The file has {size} bytes; its tensors end at {extent.min_size_bytes}, padded"
        message += f" at {extent.max_size_bytes}."
        source.faults.add("S2", end, shown, message)
    return extent

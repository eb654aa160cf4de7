"""The safetensors reader: a malformed header kills a whole Ollama, so none may pass (security.md, rules F).

The header is one JSON object. It is cut into its members as it arrives and only one of them is decoded at a
time: a JSON text of megabytes decodes into many times as much.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b

from ingest_service.formats.faults import refuse
from ingest_service.formats.incremental import IncrementalReader
from ingest_service.formats.json_members import Member, read_members
from ingest_service.formats.source import Source, Steps

_LENGTH_BYTES = 8
_MAX_NUMBER = 2**63
_MAX_DIMENSIONS = 8
_MAX_NAME_CHARACTERS = 512
_METADATA = "__metadata__"
_KEYS = frozenset({"dtype", "shape", "data_offsets"})

#: Type -> bits of one element.
_BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8,
    "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32,
    "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SafetensorsLimits:
    """The format allows 100 000 000 bytes of header; real ones have a few hundred thousand."""

    max_header_bytes: int = 32 << 20
    max_tensors: int = 65_536
    #: Of one tensor's description, or of the whole `__metadata__`.
    max_member_bytes: int = 1 << 20
    cpu_budget_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class SafetensorsFacts:
    """What a sound header says."""

    header_bytes: int
    tensor_count: int
    parameter_count: int
    #: Type -> parameters.
    types: dict[str, int]


@dataclass(slots=True)
class _Table:
    """What is kept of each tensor: its two offsets and where in the file it is described."""

    begins: array[int] = field(default_factory=lambda: array("Q"))
    ends: array[int] = field(default_factory=lambda: array("Q"))
    places: array[int] = field(default_factory=lambda: array("Q"))
    types: dict[str, int] = field(default_factory=dict)


class SafetensorsReader(IncrementalReader[SafetensorsFacts]):
    """Reads the header of one file of `size_bytes`."""

    def __init__(
        self, limits: SafetensorsLimits, size_bytes: int, cpu_clock: Callable[[], float] = time.thread_time
    ) -> None:
        source = Source(size_bytes, _LENGTH_BYTES + limits.max_header_bytes)
        super().__init__(source, _read(source, limits), limits.cpu_budget_seconds, cpu_clock)


def _read(source: Source, limits: SafetensorsLimits) -> Steps[SafetensorsFacts]:
    size = source.size_bytes
    if size < _LENGTH_BYTES + 2:
        refuse("F1", 0, "header", f"A safetensors file has at least 10 bytes; this one has {size}.")
    length = int.from_bytes((yield from source.take(_LENGTH_BYTES, "header length")), "little")
    most = min(limits.max_header_bytes, size - _LENGTH_BYTES)
    if not 2 <= length <= most:
        message = f"A header of {length} bytes; 2 to {most} can be in this file."
        refuse("F2", 0, "header length", message)
    table = _Table()
    names: set[bytes] = set()
    members = read_members(source, _LENGTH_BYTES + length, limits.max_member_bytes)
    while (member := (yield from members.next())) is not None:
        with source.faults.collected():
            _take_in(member, table, names, limits)
    data_bytes = size - _LENGTH_BYTES - length
    # What was refused has no place in the table, and would be told again as a hole.
    source.faults.stop()
    _check_coverage(table, data_bytes, _LENGTH_BYTES + length)
    return SafetensorsFacts(
        _LENGTH_BYTES + length,
        len(table.begins),
        sum(table.types.values()),
        dict(sorted(table.types.items())),
    )


def _take_in(member: Member, table: _Table, names: set[bytes], limits: SafetensorsLimits) -> None:
    digest = blake2b(member.name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    if digest in names:
        refuse(
            "F4", member.offset, member.name, "The name is there twice; programs differ in which they use."
        )
    names.add(digest)
    if member.name == _METADATA:
        if not isinstance(member.value, dict) or not all(isinstance(v, str) for v in member.value.values()):
            refuse("F5", member.offset, _METADATA, "Its values are strings, and it is an object.")
        if any(key.casefold() in _KEYS for key in member.value):
            # Ollama decodes it like a tensor, and would die of the missing data_offsets.
            message = "It has a name of a tensor's description: Ollama's server would die of it."
            refuse("F5", member.offset, _METADATA, message)
        return
    if len(table.begins) >= limits.max_tensors:
        refuse("F2", member.offset, member.name, f"More than {limits.max_tensors} tensors.")
    if not 1 <= len(member.name) <= _MAX_NAME_CHARACTERS or "\0" in member.name:
        message = f"A tensor's name has 1 to {_MAX_NAME_CHARACTERS} characters and no NUL."
        refuse("F5", member.offset, member.name, message)
    _add(member, table)


def _add(member: Member, table: _Table) -> None:
    at, name, entry = member.offset, member.name, member.value
    if not isinstance(entry, dict) or entry.keys() != _KEYS:
        refuse("F6", at, name, "A tensor is an object of dtype, shape and data_offsets.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        refuse("F6", at, name, f"{dtype!r} is no known dtype.")
    if not _numbers(shape) or len(shape) > _MAX_DIMENSIONS:
        refuse("F6", at, name, f"A shape is up to {_MAX_DIMENSIONS} numbers from 0 to 2^63 - 1.")
    if not _numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        refuse("F7", at, name, "data_offsets are two numbers, the second not below the first.")
    elements = 1
    for dimension in shape:
        elements *= dimension
    if not elements:
        refuse("F6", at, name, "A tensor of no elements: Ollama's server would die of it.")
    bits = elements * _BITS[dtype]
    if bits != 8 * (offsets[1] - offsets[0]):
        message = f"{elements} elements of {dtype} are not the {offsets[1] - offsets[0]} bytes it has."
        refuse("F8", at, name, message)
    table.begins.append(offsets[0])
    table.ends.append(offsets[1])
    table.places.append(at)
    table.types[dtype] = table.types.get(dtype, 0) + elements


def _numbers(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < _MAX_NUMBER for item in value)


def _check_coverage(table: _Table, data_bytes: int, data_offset: int) -> None:
    """F9: the tensors follow each other without holes or overlaps, to the end of the file."""
    end = 0
    for index in sorted(range(len(table.begins)), key=lambda i: (table.begins[i], table.ends[i])):
        if table.begins[index] != end:
            message = f"A tensor's data is at {table.begins[index]}; the one before it ends at {end}."
            refuse("F9", table.places[index], "data_offsets", message)
        end = table.ends[index]
    if end != data_bytes:
        what = "it is cut short" if end > data_bytes else "there are bytes that belong to nothing"
        message = f"The tensors have {end} bytes and the file has {data_bytes} for them: {what}."
        refuse("F9", data_offset, "file size", message)

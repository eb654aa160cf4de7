"""The GGUF reader: the header as it arrives, refused at the first rule of security.md that it breaks."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from ingest_service.formats.faults import refuse
from ingest_service.formats.gguf.expert_rules import check_used_experts
from ingest_service.formats.gguf.facts import GgufFacts, facts_of
from ingest_service.formats.gguf.limits import GgufLimits
from ingest_service.formats.gguf.pairs import read_pairs
from ingest_service.formats.gguf.projector_tensors import check_projector_tensors
from ingest_service.formats.gguf.rules import check_data_offset, check_pairs, check_tensor_count
from ingest_service.formats.gguf.tensors import Extent, check_extent, read_tensors
from ingest_service.formats.gguf.values import Metadata
from ingest_service.formats.incremental import IncrementalReader
from ingest_service.formats.source import Source, Steps

_HEADER = struct.Struct("<4sI")
_COUNTS = struct.Struct("<QQ")
_HEADER_BYTES = _HEADER.size + _COUNTS.size
_VERSIONS = (2, 3)
_MAGICS = {b"FUGG": "H4", b"GGUF": ""}


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a sound header says."""

    version: int
    extent: Extent
    facts: GgufFacts


class GgufReader(IncrementalReader[GgufHeader]):
    """Reads the header of one file of `size_bytes`."""

    def __init__(
        self, limits: GgufLimits, size_bytes: int, cpu_clock: Callable[[], float] = time.thread_time
    ) -> None:
        source = Source(size_bytes, limits.max_header_bytes, limits.rules_as_warnings)
        super().__init__(source, _read(source, limits), limits.cpu_budget_seconds, cpu_clock)


def _read(source: Source, limits: GgufLimits) -> Steps[GgufHeader]:
    version, tensor_count, pair_count = yield from _read_start(source, limits)
    metadata = Metadata(source.faults)
    with source.faults.collected():
        yield from read_pairs(source, pair_count, metadata, limits)
    alignment = check_pairs(metadata, limits)
    if not metadata.is_complete or tensor_count > limits.max_tensors:
        source.faults.stop()
    check_tensor_count(metadata, tensor_count, _HEADER.size, limits)
    is_projector = metadata.architecture == "clip"
    tensors = yield from read_tensors(source, tensor_count, alignment, are_described=is_projector)
    extent = check_extent(source, tensors, alignment, limits)
    check_data_offset(metadata, tensors, extent)
    if metadata.is_model:
        check_used_experts(metadata, tensors.names)
    if is_projector:
        check_projector_tensors(metadata, tensors)
    return GgufHeader(version, extent, facts_of(metadata, tensors))


def _read_start(source: Source, limits: GgufLimits) -> Steps[tuple[int, int, int]]:
    if source.size_bytes < _HEADER_BYTES:
        message = f"A GGUF header has at least {_HEADER_BYTES} bytes; this file has {source.size_bytes}."
        refuse("H1", 0, "magic", message)
    magic, version = _HEADER.unpack((yield from source.take(_HEADER.size, "magic")))
    if magic not in _MAGICS:
        refuse("H1", 0, "magic", "The file does not start with `GGUF`.")
    if _MAGICS[magic] or version & 0xFFFF == 0 < version:
        refuse("H4", 4, "version", "It is a big-endian GGUF, which little-endian hosts refuse.")
    if version == 1:
        refuse("H3", 4, "version", "It is GGUF version 1, which llama.cpp no longer reads: convert it anew.")
    if version not in _VERSIONS:
        refuse("H2", 4, "version", f"GGUF version {version} is not known; 2 and 3 are.")
    tensor_count, pair_count = _COUNTS.unpack((yield from source.take(_COUNTS.size, "tensor_count")))
    if tensor_count > limits.max_tensors:
        message = f"{tensor_count} tensors; at most {limits.max_tensors}."
        source.faults.add("H6", _HEADER.size, "tensor_count", message)
    if not 1 <= pair_count <= limits.max_pairs:
        message = f"{pair_count} key-value pairs; 1 to {limits.max_pairs} can be."
        refuse("H5", _HEADER.size + 8, "kv_count", message)
    return version, tensor_count, pair_count

"""One reader for whatever a file's name says it is: fed with its first bytes, it accepts or refuses the file.

It is fed as `IncrementalReader` says: in order, from byte 0, one call at a time, on a worker thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ingest_service.formats.gguf import GgufHeader, GgufLimits, GgufReader
from ingest_service.formats.incremental import IncrementalReader, State
from ingest_service.formats.json_files import JsonLimits, JsonReader, SetFacts
from ingest_service.formats.recognise import (
    DECIDING_BYTES,
    GGUF,
    JSON,
    MAGIC_BYTES,
    SAFETENSORS,
    TEMPLATE,
    TEXT,
    format_for,
    recognise,
)
from ingest_service.formats.safetensors import SafetensorsFacts, SafetensorsLimits, SafetensorsReader
from ingest_service.formats.sentencepiece import SentencePieceLimits, SentencePieceReader
from ingest_service.formats.text_files import TemplateFileReader, WordsReader
from ingest_service.vocabulary.errors import FormatInvalid
from ingest_service.vocabulary.records import Inspection

#: Kept beside each blob that passed; raised with every rule or default, of whatever format, that refuses more
#: than before: what was accepted under an older one is looked at again before it is used again.
RULES_VERSION = 8


@dataclass(frozen=True, slots=True)
class FormatLimits:
    """What the readers allow."""

    gguf: GgufLimits = field(default_factory=GgufLimits)
    safetensors: SafetensorsLimits = field(default_factory=SafetensorsLimits)
    json: JsonLimits = field(default_factory=JsonLimits)
    sentencepiece: SentencePieceLimits = field(default_factory=SentencePieceLimits)


class FormatReader:
    """Reads one file of `size_bytes`, of which the name is known."""

    def __init__(self, file_name: str, size_bytes: int, limits: FormatLimits) -> None:
        self._file_name = file_name
        self._size_bytes = size_bytes
        self._limits = limits
        self._head: bytes | None = b""
        self._reader: IncrementalReader[Any] | None = None
        #: Why the file is refused; nothing more is read then.
        self.error: FormatInvalid | None = None
        #: Set once all that is checked was read, and is sound.
        self.inspection: Inspection | None = None
        #: How many bytes it has taken: the next ones are fed from here on.
        self.fed_bytes = 0

    @property
    def wants_more(self) -> bool:
        """It has neither accepted nor refused the file."""
        return self.error is None and self.inspection is None

    def feed(self, data: bytes) -> None:
        """Takes the file's next bytes. Never raises."""
        self.fed_bytes += len(data)
        if not self.wants_more:
            return
        if self._head is not None:
            data = self._recognised(data)
        if self._reader is not None:
            self._reader.feed(data)
            self._look(self._reader)

    def _recognised(self, data: bytes) -> bytes:
        """What is to be read on, once there is enough to tell what the file is."""
        assert self._head is not None
        head = self._head + data
        if len(head) < min(DECIDING_BYTES, self._size_bytes):
            self._head = head
            return b""
        self._head = None
        try:
            file_format = recognise(head[:MAGIC_BYTES], self._size_bytes, self._file_name)
        except FormatInvalid as error:
            self.error = error
            return b""
        self._reader = self._reader_of(file_format)
        return head

    def _reader_of(self, file_format: str) -> IncrementalReader[Any]:
        limits, size_bytes = self._limits, self._size_bytes
        if file_format == GGUF:
            return GgufReader(limits.gguf, size_bytes)
        if file_format == SAFETENSORS:
            return SafetensorsReader(limits.safetensors, size_bytes)
        if file_format == JSON:
            return JsonReader(limits.json, size_bytes, self._file_name)
        if file_format == TEMPLATE:
            return TemplateFileReader(limits.json, size_bytes, self._file_name)
        if file_format == TEXT:
            return WordsReader(limits.json, size_bytes)
        return SentencePieceReader(limits.sentencepiece, size_bytes)

    def _look(self, reader: IncrementalReader[Any]) -> None:
        if reader.state is State.FAULT:
            self.error = reader.faults.as_error()
        elif reader.state is State.DONE:
            self.inspection = _inspection(format_for(self._file_name), reader.result)


def _inspection(file_format: str, result: object) -> Inspection:
    if isinstance(result, GgufHeader):
        return Inspection(file_format, RULES_VERSION, result.facts.as_dict(), result.facts.warnings)
    if isinstance(result, SetFacts):
        return Inspection(file_format, RULES_VERSION, result.facts, result.warnings)
    assert isinstance(result, SafetensorsFacts)
    facts = {
        "parameter_count": result.parameter_count,
        "tensor_count": result.tensor_count,
        "parameters_by_type": result.types,
    }
    return Inspection(file_format, RULES_VERSION, facts)

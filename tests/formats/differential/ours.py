"""Our own verdict on a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest_service.formats import FormatLimits, FormatReader
from ingest_service.formats.gguf import GgufLimits
from ingest_service.formats.policies import POLICIES
from ingest_service.ingests.agreement import check_file, check_together
from ingest_service.ingests.file_set import check_file_set
from ingest_service.ingests.requests import NewFile
from ingest_service.vocabulary.errors import FormatInvalid, IngestError
from ingest_service.vocabulary.states import FileRole

_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Ours:
    """`rule` is that of the refusal, or ""; `facts` and `warnings` are those of an accepted file."""

    rule: str
    message: str = ""
    facts: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()


def judge(path: Path, file_name: str = "m.gguf", *, is_lifted: bool = False) -> Ours:
    """As an upload of this file would be judged, by its header alone.

    `is_lifted`: all policies are warnings.
    """
    size = path.stat().st_size
    limits = GgufLimits(rules_as_warnings=tuple(POLICIES) if is_lifted else ())
    reader = FormatReader(file_name, size, FormatLimits(gguf=limits))
    with path.open("rb") as file:
        while reader.wants_more:
            data = file.read(_READ_BYTES)
            reader.feed(data)
            if not data:
                break
    if reader.error is not None:
        return refusal(reader.error)
    if reader.inspection is None:
        return Ours("S1", "the file ends within its header")
    return Ours("", "", dict(reader.inspection.facts), tuple(reader.inspection.warnings))


def refusal(error: FormatInvalid) -> Ours:
    return Ours(error.metadata.get("rule", "H1"), f"{error.field}: {error.message}")


def judge_split(paths: list[Path]) -> Ours:
    """As the shards of one request would be judged, all of them."""
    files = [NewFile(path.name, FileRole.SHARD, path.stat().st_size) for path in paths]
    try:
        check_file_set(files, {}, allow_safetensors=False)
    except IngestError as error:
        # The request is refused before a byte is sent.
        return Ours("names", error.message)
    facts = []
    for file, path in zip(files, paths, strict=True):
        found = judge(path, file.file_name)
        if found.rule:
            return found
        facts.append(found.facts or {})
    try:
        for file, said in zip(files, facts, strict=True):
            check_file(file, said)
        check_together(list(zip(files, facts, strict=True)))
    except FormatInvalid as error:
        return refusal(error)
    return Ours("", "", facts[0])

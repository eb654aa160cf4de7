"""Which models the blobs of a store make, when only the blobs are left: names, and which shards make a set.

Pure rules. What a header does not say is not guessed: the operator may say it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ingest_service.ingests.names import parse_model_name
from ingest_service.vocabulary.errors import NameInvalid

_INVALID = re.compile(r"[^A-Za-z0-9_.-]+")
_MAX_PART_CHARACTERS = 80
_SUFFIX_DIGITS = 8


class Kind(StrEnum):
    """What a blob is by its header."""

    MODEL = "model"
    SHARD = "shard"
    ADAPTER = "adapter"
    PROJECTOR = "projector"
    #: No GGUF, or one that the rules of today refuse.
    OTHER = "other"


_WITH_ARTICLE = {Kind.ADAPTER: "an adapter", Kind.PROJECTOR: "a projector"}


@dataclass(frozen=True, slots=True)
class FoundBlob:
    """A blob whose bytes have its digest."""

    sha256: str
    size_bytes: int
    kind: Kind
    #: A valid model name made of what the header says; "" if it says none.
    name: str = ""
    #: Of a shard: its number from 1, of how many, and how many tensors all of them have.
    split: tuple[int, int, int] | None = None
    #: Why it is OTHER.
    why: str = ""


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """Blobs that make one model, in the order of their shards. `name` is "" if nothing says one."""

    blobs: tuple[FoundBlob, ...]
    name: str
    is_given: bool


@dataclass(frozen=True, slots=True)
class LeftBlobs:
    """Blobs that make no model, and why."""

    blobs: tuple[FoundBlob, ...]
    why: str
    #: A person could change that.
    needs_attention: bool


def found_blob(sha256: str, size_bytes: int, facts: Mapping[str, Any]) -> FoundBlob:
    """Of the facts of an accepted GGUF."""
    name = header_name(facts)
    if facts.get("architecture") == "clip" or facts.get("type") in {"mmproj", "projector"}:
        return FoundBlob(sha256, size_bytes, Kind.PROJECTOR, name)
    if facts.get("type") != "model":
        return FoundBlob(sha256, size_bytes, Kind.ADAPTER, name)
    split = facts.get("split")
    if split is None:
        return FoundBlob(sha256, size_bytes, Kind.MODEL, name)
    place = (split["number"] + 1, split["count"], split["tensors"])
    return FoundBlob(sha256, size_bytes, Kind.SHARD, name, place)


def header_name(facts: Mapping[str, Any]) -> str:
    """A valid name of general.name, or of general.basename and general.size_label; "" if there is none."""
    parts = (facts.get("basename"), facts.get("size_label"))
    for text in (facts.get("name"), "-".join(parts) if all(parts) else None):  # type: ignore[arg-type]
        name = re.sub(r"\.{2,}", ".", _INVALID.sub("-", text or "")).strip("-.")
        name = name[:_MAX_PART_CHARACTERS].rstrip("-.")
        try:
            parse_model_name(name)
        except NameInvalid:
            continue
        return name
    return ""


def with_suffix(name: str, sha256: str) -> str:
    """Another name for a model whose own is taken: the same one whenever it is asked for."""
    digits = sha256.removeprefix("sha256:")[:_SUFFIX_DIGITS]
    return f"{name[: _MAX_PART_CHARACTERS - _SUFFIX_DIGITS - 1]}-{digits}"


def plan_models(
    blobs: Sequence[FoundBlob], given: Mapping[str, str]
) -> tuple[list[PlannedModel], list[LeftBlobs]]:
    """Models, those with a name of the operator's first; and what is left. `given`: digest -> name."""
    planned: list[PlannedModel] = []
    left: list[LeftBlobs] = []
    shards: dict[tuple[int, int], list[FoundBlob]] = {}
    for blob in blobs:
        if blob.kind is Kind.MODEL:
            planned.append(_model((blob,), given))
        elif blob.split is not None:
            shards.setdefault(blob.split[1:], []).append(blob)
        else:
            why = blob.why or f"{_WITH_ARTICLE[blob.kind]} is no model of its own"
            left.append(LeftBlobs((blob,), why, needs_attention=False))
    for alike in shards.values():
        for some in _sets(alike, given):
            why = _why_not_whole(some)
            if why:
                left.append(LeftBlobs(tuple(some), why, needs_attention=True))
            else:
                planned.append(_model(tuple(sorted(some, key=_number)), given))
    return sorted(planned, key=lambda model: (not model.is_given, model.blobs[0].sha256)), left


def file_names(name: str, count: int) -> list[str]:
    """For the files of a model: their own were only in the database."""
    parsed = parse_model_name(name).display.rpartition("/")[2]
    stem = parsed.removesuffix(":latest").replace(":", "-")
    if count == 1:
        return [f"{stem}.gguf"]
    return [f"{stem}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)]


def _model(blobs: tuple[FoundBlob, ...], given: Mapping[str, str]) -> PlannedModel:
    names = [given[blob.sha256] for blob in blobs if blob.sha256 in given]
    return PlannedModel(blobs, names[0] if names else blobs[0].name, is_given=bool(names))


def _number(blob: FoundBlob) -> int:
    return blob.split[0] if blob.split else 0


def _sets(alike: list[FoundBlob], given: Mapping[str, str]) -> Iterable[list[FoundBlob]]:
    """Shards of one count and one number of tensors. Only the first shard says which model it is of, so
    several sets of the same shape are told apart by the names that the operator gives to each shard."""
    if len({_number(blob) for blob in alike}) == len(alike):
        return [alike]
    by_name: dict[str, list[FoundBlob]] = {}
    for blob in alike:
        by_name.setdefault(given.get(blob.sha256, ""), []).append(blob)
    return by_name.values()


def _why_not_whole(shards: Sequence[FoundBlob]) -> str:
    count = (shards[0].split or (0, 0, 0))[1]
    numbers = [_number(blob) for blob in shards]
    if len(set(numbers)) != len(numbers):
        return (
            f"shards of several models in {count} parts look alike: give each shard of one model the same"
            " name with --name"
        )
    missing = [str(number) for number in range(1, count + 1) if number not in numbers]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        return f"a split model of {count} shards is not whole, missing: {shown}; push it again"
    return ""

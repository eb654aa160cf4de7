"""What the headers of its files say of a model as a whole."""

from __future__ import annotations

from typing import Any

from ingest_service.vocabulary.records import TENSOR_NAMES, Model
from ingest_service.vocabulary.states import FileRole

_WEIGHTS = frozenset({FileRole.MODEL, FileRole.SHARD})
#: Counted over all of a model's files; everything else is said by the first that says it.
_COUNTS = ("parameter_count", "tensor_count")
#: What is said of one file only.
_OF_FILES = ("split", TENSOR_NAMES)


def facts_of(model: Model) -> dict[str, Any]:
    """Plain JSON data; empty if no file's header was read yet (it came before there were readers)."""
    facts: dict[str, Any] = {}
    for file in model.newest.files:
        blob = model.blobs.get(file.sha256 or "")
        if file.role not in _WEIGHTS or blob is None:
            continue
        for key, value in (blob.facts or {}).items():
            if key in _COUNTS:
                facts[key] = facts.get(key, 0) + value
            elif key == "quantization_mix":
                facts[key] = _added(facts.get(key, []), value)
            elif key not in _OF_FILES:
                facts.setdefault(key, value)
    return facts


def _added(mix: list[dict[str, Any]], more: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Two shards' shares, added by type; most bytes first."""
    by_type = {share["type"]: dict(share) for share in mix}
    for share in more:
        known = by_type.setdefault(share["type"], {"type": share["type"]})
        for key in ("tensors", "parameters", "size_bytes"):
            known[key] = known.get(key, 0) + share[key]
    return sorted(by_type.values(), key=lambda share: (-share["size_bytes"], share["type"]))

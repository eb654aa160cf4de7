"""The shards of one model against each other: how many tensors they have, and that no two have the same one.

llama.cpp refuses a split model whose shards have a tensor twice or do not have as many as they say. A shard's
facts keep a digest of each tensor's name: the files need not be read again once all of them are there.
"""

from __future__ import annotations

import base64
import heapq
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NoReturn

from ingest_service.vocabulary.errors import FormatInvalid
from ingest_service.vocabulary.records import TENSOR_NAMES

Facts = Mapping[str, Any]
_DIGEST_BYTES = 8
#: No known model has so many tensors in one file. Of more names only those with the least digests are kept:
#: then a shard that is there twice is still found, and a single tensor mostly.
MAX_KEPT_NAMES = 4096


def names_fact(names: Iterable[bytes]) -> str:
    """The digests of the tensors' names, in base64: at most 44 kB.

    Two names with one digest would make a false refusal: for 65 536 tensors the odds are 1 to 8 billion.
    """
    digests = (blake2b(name, digest_size=_DIGEST_BYTES).digest() for name in names)
    return base64.b64encode(b"".join(heapq.nsmallest(MAX_KEPT_NAMES, digests))).decode("ascii")


def check_shards(shards: Sequence[tuple[str, Facts]]) -> None:
    """X3: file name and facts of every shard of one model. Raises FormatInvalid.

    Nothing is compared if a shard's header was never read (it came before there were readers); of facts from
    before names were kept only the counts are.
    """
    if not all(facts for _, facts in shards):
        return
    present = sum(facts["tensor_count"] for _, facts in shards)
    # llama.cpp goes by what the first one says.
    first = [facts["split"] for _, facts in shards if facts.get("split") and not facts["split"]["number"]]
    if first and present != first[0]["tensors"]:
        said = first[0]["tensors"]
        _refuse(f"The shards have {present} tensors together; the first one says {said}.")
    seen: dict[bytes, str] = {}
    for file_name, facts in shards:
        for digest in _digests(facts):
            if digest in seen:
                _refuse(
                    f"The shards {seen[digest]} and {file_name} have a tensor of the same name, which"
                    " llama.cpp refuses: push the shards of one split, each once."
                )
            seen[digest] = file_name


def _digests(facts: Facts) -> list[bytes]:
    data = base64.b64decode(facts.get(TENSOR_NAMES, ""))
    return [data[start : start + _DIGEST_BYTES] for start in range(0, len(data), _DIGEST_BYTES)]


def _refuse(message: str) -> NoReturn:
    field = "split.tensors.count"
    raise FormatInvalid(f"{message} (rule X3)", field=field, metadata={"rule": "X3", "field": field})

"""Which models blobs make without a database: names from headers, and which shards make a set."""

from __future__ import annotations

from typing import Any

import pytest

from ingest_service.ingests.rebuild_plan import (
    FoundBlob,
    Kind,
    file_names,
    found_blob,
    header_name,
    plan_models,
    with_suffix,
)


def sha(number: int) -> str:
    return f"sha256:{number:064x}"


def shard(number: int, place: int, count: int = 2, tensors: int = 9) -> FoundBlob:
    split = {"number": place - 1, "count": count, "tensors": tensors}
    name = {"name": "big"} if place == 1 else {}
    return found_blob(sha(number), 100, {"type": "model", "split": split, **name})


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({"name": "Llama 3.1 8B: Instruct/v2"}, "Llama-3.1-8B-Instruct-v2"),
        ({"name": "../../etc/passwd"}, "etc-passwd"),
        ({"name": "模型", "basename": "Qwen3", "size_label": "4B"}, "Qwen3-4B"),
        ({"basename": "Qwen3"}, ""),
        ({"name": "x" * 300}, "x" * 80),
        ({"name": " - . "}, ""),
        ({}, ""),
    ],
)
def test_the_name_of_a_header_becomes_a_valid_one(facts: dict[str, Any], name: str) -> None:
    assert header_name(facts) == name


def test_kinds() -> None:
    kinds = [
        found_blob(sha(1), 1, facts).kind
        for facts in (
            {"type": "model", "architecture": "llama"},
            {"type": "adapter", "architecture": "llama"},
            {"type": "mmproj", "architecture": "clip"},
            {"type": "model", "architecture": "clip"},
        )
    ]
    assert kinds == [Kind.MODEL, Kind.ADAPTER, Kind.PROJECTOR, Kind.PROJECTOR]


def test_shards_make_a_set_in_their_order_and_one_name_names_it() -> None:
    (planned,), left = plan_models([shard(1, 2), shard(2, 1)], {})
    assert ([blob.sha256 for blob in planned.blobs], planned.name, left) == ([sha(2), sha(1)], "big", [])
    ((named,), _) = plan_models([shard(1, 2), shard(2, 1)], {sha(1): "mine"})
    assert (named.name, named.is_given) == ("mine", True)


def test_a_set_that_is_not_whole_is_left() -> None:
    planned, (left,) = plan_models([shard(1, 3, count=3), shard(2, 1, count=3)], {})
    assert planned == []
    assert left.needs_attention
    assert "missing: 2" in left.why


def test_sets_that_look_alike_are_told_apart_by_the_names_of_all_shards_only() -> None:
    shards = [shard(1, 1), shard(2, 2), shard(3, 1), shard(4, 2)]
    planned, (left,) = plan_models(shards, {})
    assert planned == []
    assert "give each shard" in left.why
    planned, left_over = plan_models(shards, {sha(1): "a", sha(4): "a", sha(3): "b", sha(2): "b"})
    assert left_over == []
    assert {model.name: [blob.sha256 for blob in model.blobs] for model in planned} == {
        "a": [sha(1), sha(4)],
        "b": [sha(3), sha(2)],
    }


def test_file_names_and_suffixes_are_valid() -> None:
    assert file_names("me/llama:q4", 1) == ["llama-q4.gguf"]
    assert file_names("big", 2) == ["big-00001-of-00002.gguf", "big-00002-of-00002.gguf"]
    assert with_suffix("x" * 80, sha(1)) == "x" * 71 + "-00000000"

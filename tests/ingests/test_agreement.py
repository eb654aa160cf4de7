"""A file's header against its role and name, and shards against each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from ingest_service.formats.shards import MAX_KEPT_NAMES, check_shards, names_fact
from ingest_service.ingests.agreement import check_file, check_quantize, check_together
from ingest_service.vocabulary.errors import FormatInvalid
from ingest_service.vocabulary.states import FileRole

MODEL: dict[str, Any] = {"type": "model", "architecture": "llama", "tensor_count": 3}
CLIP = {"type": "mmproj", "architecture": "clip", "tensor_count": 1}
#: As older writers left it: only the architecture says that it is a projector.
OLD_CLIP = {"type": "model", "architecture": "clip", "tensor_count": 1}
LORA = {"type": "adapter", "architecture": "llama", "tensor_count": 2}


@dataclass(frozen=True)
class Named:
    file_name: str
    role: FileRole


def shard(number: int, count: int = 2, tensors: int = 5, own: int = 3) -> dict[str, Any]:
    split = {"number": number, "count": count, "tensors": tensors}
    return {"type": "model", "split": split, "tensor_count": own}


def name(number: int, count: int = 2) -> str:
    return f"m-{number:05}-of-{count:05}.gguf"


@pytest.mark.parametrize(
    ("role", "file_name", "facts"),
    [
        (FileRole.MODEL, "m.gguf", MODEL),
        (FileRole.PROJECTOR, "p.gguf", CLIP),
        (FileRole.PROJECTOR, "p.gguf", OLD_CLIP),
        (FileRole.ADAPTER, "a.gguf", LORA),
        (FileRole.DRAFT, "d.gguf", MODEL),
        (FileRole.SHARD, name(1), shard(0)),
        (FileRole.SHARD, name(2), shard(1)),
        # A model that was split into one is whole.
        (FileRole.MODEL, "m.gguf", shard(0, 1)),
        (FileRole.MODEL, "m.gguf", shard(0, 0)),
        # So is one that is called like the only shard of one, whatever its header says of that.
        (FileRole.MODEL, name(1, 1), MODEL),
        (FileRole.SHARD, name(1, 1), MODEL),
        (FileRole.SHARD, name(1, 1), shard(0, 1)),
        (FileRole.SHARD, name(1, 1), shard(0, 0)),
        (FileRole.SHARD, "m-00002-of-00002.GGUF", shard(1)),
        # Files of a safetensors set, and files from before there were readers.
        (FileRole.MODEL, "config.json", {}),
        (FileRole.MODEL, "m.safetensors", {"tensor_count": 3}),
    ],
)
def test_what_agrees(role: FileRole, file_name: str, facts: dict[str, Any]) -> None:
    check_file(Named(file_name, role), facts)


@pytest.mark.parametrize(
    ("role", "file_name", "facts", "rule", "field"),
    [
        (FileRole.MODEL, "m.gguf", CLIP, "X1", "general.type"),
        (FileRole.MODEL, "m.gguf", OLD_CLIP, "X1", "general.type"),
        (FileRole.MODEL, "m.gguf", LORA, "X1", "general.type"),
        (FileRole.PROJECTOR, "m.gguf", MODEL, "X1", "general.type"),
        (FileRole.PROJECTOR, "m.gguf", LORA, "X1", "general.type"),
        (FileRole.ADAPTER, "m.gguf", MODEL, "X1", "general.type"),
        (FileRole.ADAPTER, "m.gguf", CLIP, "X1", "general.type"),
        (FileRole.DRAFT, "m.gguf", CLIP, "X1", "general.type"),
        (FileRole.DRAFT, "m.gguf", LORA, "X1", "general.type"),
        (FileRole.SHARD, name(1), CLIP, "X1", "general.type"),
        (FileRole.MODEL, "m.gguf", shard(0), "X2", "split.count"),
        (FileRole.MODEL, name(1), shard(0), "X2", "split.count"),
        (FileRole.SHARD, name(1), MODEL, "X2", "split.count"),
        (FileRole.SHARD, name(1), shard(1), "X2", "split.no"),
        (FileRole.SHARD, name(2), shard(0), "X2", "split.no"),
        (FileRole.SHARD, name(1, 3), shard(0), "X2", "split.no"),
        (FileRole.SHARD, name(1, 1), shard(0), "X2", "split.no"),
        (FileRole.SHARD, name(1), shard(0, 1), "X2", "split.count"),
    ],
)
def test_what_does_not(role: FileRole, file_name: str, facts: dict[str, Any], rule: str, field: str) -> None:
    with pytest.raises(FormatInvalid) as refused:
        check_file(Named(file_name, role), facts)
    assert (refused.value.metadata["rule"], refused.value.field) == (rule, field)


def test_shards_that_make_a_whole() -> None:
    check_together(
        [(Named(name(1), FileRole.SHARD), shard(0)), (Named(name(2), FileRole.SHARD), shard(1, own=2))]
    )
    # llama.cpp goes by what the first says.
    check_together(
        [
            (Named(name(2), FileRole.SHARD), shard(1, tensors=6, own=2)),
            (Named(name(1), FileRole.SHARD), shard(0)),
        ]
    )
    check_together([(Named("m.gguf", FileRole.MODEL), MODEL), (Named("a.gguf", FileRole.ADAPTER), LORA)])


@pytest.mark.parametrize("second", [shard(1, own=3), shard(1, own=1)])
def test_shards_that_do_not(second: dict[str, Any]) -> None:
    files = [(Named(name(1), FileRole.SHARD), shard(0)), (Named(name(2), FileRole.SHARD), second)]
    with pytest.raises(FormatInvalid) as refused:
        check_together(files)
    assert refused.value.metadata["rule"] == "X3"


def test_shards_that_hold_a_tensor_twice_although_the_counts_are_right() -> None:
    def named(number: int, *names: bytes) -> tuple[Named, dict[str, Any]]:
        facts = shard(number, tensors=4, own=2) | {"tensor_names": names_fact(names)}
        return Named(name(number + 1), FileRole.SHARD), facts

    check_together([named(0, b"a", b"b"), named(1, b"c", b"d")])
    with pytest.raises(FormatInvalid, match=r"00001-of-00002\.gguf and m-00002-of") as refused:
        check_together([named(0, b"a", b"b"), named(1, b"c", b"a")])
    assert (refused.value.metadata["rule"], refused.value.field) == ("X3", "split.tensors.count")
    # From before names were kept.
    check_together([named(0, b"a", b"b"), (Named(name(2), FileRole.SHARD), shard(1, tensors=4, own=2))])


def test_the_names_that_are_kept_are_bounded() -> None:
    many = [b"blk.%d.w" % index for index in range(MAX_KEPT_NAMES * 2)]
    kept = names_fact(many)
    assert len(kept) <= 44 << 10
    assert names_fact(reversed(many)) == kept
    facts = shard(0, tensors=len(many) * 2, own=len(many)) | {"tensor_names": kept}
    with pytest.raises(FormatInvalid):
        check_shards([("a", facts), ("b", facts)])


PIECES, TOKENS = Named("tokenizer.model", FileRole.MODEL), Named("special_tokens_map.json", FileRole.MODEL)
TEXTS = {"additional_special_tokens": "texts"}


def test_special_tokens_that_ollama_dies_of_beside_a_sentencepiece_model() -> None:
    for files in ([(PIECES, {}), (TOKENS, TEXTS)], [(TOKENS, TEXTS), (PIECES, {})]):
        with pytest.raises(FormatInvalid) as refused:
            check_together(files)
        assert refused.value.metadata["rule"] == "X4"
    check_together([(PIECES, {}), (TOKENS, {})])
    # Without it, Ollama does not read the map.
    check_together([(Named("tokenizer.json", FileRole.MODEL), {}), (TOKENS, TEXTS)])


def mix(*types: str) -> dict[str, Any]:
    return MODEL | {"quantization_mix": [{"type": name} for name in types]}


WEIGHTS = Named("m.gguf", FileRole.MODEL)


def test_what_can_be_quantized() -> None:
    check_quantize(WEIGHTS, mix("F16", "F32", "BF16"), {"quantize": "Q4_K_M"})
    check_quantize(WEIGHTS, mix("Q4_K"), {"system": "x"})
    check_quantize(WEIGHTS, {"tensor_count": 3}, {"quantize": "int4"})
    check_quantize(Named("p.gguf", FileRole.PROJECTOR), mix("Q8_0"), {"quantize": "Q4_K_M"})


def test_what_cannot() -> None:
    with pytest.raises(FormatInvalid) as refused:
        check_quantize(WEIGHTS, mix("F16", "I8"), {"quantize": "Q4_K_M"})
    assert (refused.value.metadata["rule"], refused.value.field) == ("X5", "options.quantize")

"""Which files make a model together; what does not is refused before a byte is sent."""

from __future__ import annotations

from typing import Any

import pytest

from ingest_service.ingests.file_set import check_file_set
from ingest_service.ingests.requests import NewFile
from ingest_service.vocabulary.errors import FileNameInvalid, IngestError, OptionUnsupported
from ingest_service.vocabulary.states import FileRole

MODEL, PROJECTOR, ADAPTER, SHARD = FileRole.MODEL, FileRole.PROJECTOR, FileRole.ADAPTER, FileRole.SHARD
DRAFT = FileRole.DRAFT
SAFE = [
    ("model-00001-of-00002.safetensors", MODEL),
    ("model-00002-of-00002.safetensors", MODEL),
    ("config.json", MODEL),
    ("tokenizer.json", MODEL),
]
SHARDS = [("m-00001-of-00002.gguf", SHARD), ("m-00002-of-00002.gguf", SHARD)]
FROM = {"from": "llama"}


def check(files: list[tuple[str, FileRole]], options: dict[str, Any], *, allow: bool = True) -> None:
    new = [NewFile(name, role, 1) for name, role in files]
    check_file_set(new, options, allow_safetensors=allow)


@pytest.mark.parametrize(
    ("files", "options"),
    [
        ([("model.gguf", MODEL)], {}),
        ([("weights.bin", MODEL)], {}),
        ([("model.gguf", MODEL), ("mm.gguf", PROJECTOR)], {}),
        ([("mm.gguf", PROJECTOR), ("model.gguf", MODEL), ("lora.gguf", ADAPTER)], {}),
        (SHARDS, {}),
        (SHARDS[::-1], {}),
        ([*SHARDS, ("mm.gguf", PROJECTOR), ("lora.gguf", ADAPTER)], {}),
        ([("m-00001-of-00001.gguf", SHARD)], {}),
        ([("m-00001-of-00001.gguf", MODEL)], {}),
        ([("m-00001-of-00002.GGUF", SHARD), ("m-00002-of-00002.gguf", SHARD)], {}),
        (SAFE, {}),
        ([*SAFE[:3], ("tokenizer.model", MODEL)], {}),
        ([*SAFE, ("lora.gguf", ADAPTER)], {}),
        ([], FROM),
        ([("lora.gguf", ADAPTER)], FROM),
        ([("model.gguf", MODEL), ("d.gguf", DRAFT)], {}),
        ([("model.gguf", MODEL), ("d.gguf", DRAFT)], {"draft_quantize": "Q8_0"}),
        ([*SHARDS, ("d.gguf", DRAFT)], {}),
        ([*SAFE, ("d.gguf", DRAFT)], {}),
        ([("lora.gguf", ADAPTER), ("d.gguf", DRAFT)], FROM),
    ],
)
def test_a_good_set_passes(files: list[tuple[str, FileRole]], options: dict[str, Any]) -> None:
    check(files, options)


@pytest.mark.parametrize(
    ("files", "options", "error", "field"),
    [
        ([], {}, OptionUnsupported, "files"),
        ([("a.gguf", MODEL), ("b.gguf", MODEL)], {}, OptionUnsupported, "files"),
        ([("mm.gguf", PROJECTOR)], {}, OptionUnsupported, "files"),
        ([("lora.gguf", ADAPTER)], {}, OptionUnsupported, "files"),
        ([("a.gguf", MODEL), ("b.gguf", ADAPTER), ("c.gguf", ADAPTER)], {}, OptionUnsupported, "files"),
        ([("a.gguf", MODEL), ("b.gguf", PROJECTOR), ("c.gguf", PROJECTOR)], {}, OptionUnsupported, "files"),
        ([("a.gguf", MODEL), ("b.safetensors", ADAPTER)], {}, OptionUnsupported, "files[1].role"),
        ([("a.gguf", MODEL), ("b.json", PROJECTOR)], {}, OptionUnsupported, "files[1].role"),
        ([("a.gguf", MODEL), ("config.json", MODEL)], {}, OptionUnsupported, "files"),
        ([("config.json", MODEL)], {}, OptionUnsupported, "files"),
        (SHARDS[:1], {}, OptionUnsupported, "files"),
        (SHARDS[1:], {}, OptionUnsupported, "files"),
        ([*SHARDS, ("a.gguf", MODEL)], {}, OptionUnsupported, "files"),
        ([*SHARDS, ("n-00001-of-00001.gguf", SHARD)], {}, OptionUnsupported, "files"),
        ([("m-00000-of-00002.gguf", SHARD), *SHARDS], {}, OptionUnsupported, "files"),
        ([*SHARDS, ("m.gguf", SHARD)], {}, FileNameInvalid, "files[2].file_name"),
        ([*SHARDS, ("m-1-of-2.gguf", SHARD)], {}, FileNameInvalid, "files[2].file_name"),
        ([*SHARDS, ("m-0000\u0663-of-00002.gguf", SHARD)], {}, FileNameInvalid, "files[2].file_name"),
        (SAFE[:3], {}, OptionUnsupported, "files"),
        ([*SAFE[:2], SAFE[3]], {}, OptionUnsupported, "files"),
        ([*SAFE, ("a.gguf", MODEL)], {}, OptionUnsupported, "files"),
        ([*SAFE, ("mm.gguf", PROJECTOR)], {}, OptionUnsupported, "files"),
        ([("a.gguf", MODEL)], FROM, OptionUnsupported, "options.from"),
        ([("mm.gguf", PROJECTOR)], FROM, OptionUnsupported, "options.from"),
        (SHARDS, FROM, OptionUnsupported, "options.from"),
        ([("d.gguf", DRAFT)], {}, OptionUnsupported, "files"),
        ([("a.gguf", MODEL), ("d.gguf", DRAFT), ("e.gguf", DRAFT)], {}, OptionUnsupported, "files"),
        ([("a.gguf", MODEL), ("d.safetensors", DRAFT)], {}, OptionUnsupported, "files[1].role"),
        ([("a.gguf", MODEL)], {"draft_quantize": "Q8_0"}, OptionUnsupported, "options.draft_quantize"),
        ([], {**FROM, "draft_quantize": "Q8_0"}, OptionUnsupported, "options.draft_quantize"),
    ],
)
def test_a_set_that_makes_no_model_is_refused(
    files: list[tuple[str, FileRole]], options: dict[str, Any], error: type[IngestError], field: str
) -> None:
    with pytest.raises(error) as caught:
        check(files, options)
    assert caught.value.field == field


def test_safetensors_can_be_switched_off_and_the_refusal_says_so() -> None:
    with pytest.raises(OptionUnsupported, match="INGEST_ALLOW_SAFETENSORS is off") as caught:
        check(SAFE, {}, allow=False)
    assert caught.value.field == "files"

"""What a header says is told by the events and by the catalog; templates as text, nothing rendered."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from model_ingest.cli._tables import ingest_text
from model_ingest.v1.catalog_service_pb2 import GetModelRequest, ListModelsRequest
from model_ingest.v1.ingest_service_pb2 import GetIngestRequest, WatchIngestRequest
from model_ingest.v1.resources_pb2 import CreateOptions, File, Ingest

from tests.conftest import StartService
from tests.formats.build import I32, U32, Gguf, Tensor, counted, number, text, texts, u32
from tests.ollama_emulator import OllamaEmulator
from tests.rpc.refusals import refused
from tests.rpc.test_several_files import ended, several
from tests.support.files import MEBIBYTE, create_request, digest, push, send, upload_messages
from tests.support.models import MODEL, model, shard
from tests.support.service import RunningService

pytestmark = pytest.mark.extended_when("postgresql")

TEMPLATE = "{{ messages }}"


async def events(service: RunningService, name: str) -> list[Any]:
    watch = service.ingests.WatchIngest(WatchIngestRequest(name=name), timeout=60)
    return [item.event async for item in watch if item.HasField("event")]


async def facts_told(service: RunningService, name: str) -> list[dict[str, Any]]:
    told = [event.file_facts for event in await events(service, name) if event.HasField("file_facts")]
    return [MessageToDict(facts.facts) for facts in told]


async def get_model(service: RunningService, name: str) -> Any:
    return await service.catalog.GetModel(GetModelRequest(name=f"models/{name}"))


async def test_a_models_facts(start_service: StartService) -> None:
    service = await start_service()
    data = Gguf().but({"tokenizer.chat_template": text(TEMPLATE)}).file()
    ingest = await push(service.ingests, data, "told")
    (told,) = await facts_told(service, ingest.name)
    found = await get_model(service, "told")
    facts = MessageToDict(found.facts)
    assert {key: facts[key] for key in told if key != "chat_template_bytes"} == {
        key: value for key, value in told.items() if key != "chat_template_bytes"
    }
    assert told["chat_template_bytes"] == len(TEMPLATE)
    assert "chat_template" not in told
    expected = {
        "architecture": "llama", "type": "model", "name": "A small model",
        "license": "mit", "size_label": "1K",
        "quantization": "Q4_K_M", "context_length": 4096, "embedding_length": 256, "block_count": 2,
        "tokenizer": "gpt2", "vocabulary_size": 3, "parameter_count": 256 * 3 + 64 * 2 + 3,
        "chat_template": TEMPLATE,
    }  # fmt: skip
    assert {key: facts[key] for key in expected} == expected
    assert MessageToDict(found.files[0].facts) == facts
    assert found.files[0].format == "gguf"
    assert not found.files[0].corrupt
    assert found.files[0].HasField("verify_time")


async def test_what_is_unusual_is_a_notice_and_no_fault(start_service: StartService) -> None:
    service = await start_service()
    data = model(kv={**MODEL, "general.file_type": 999})
    ingest = await push(service.ingests, data, "odd")
    assert ingest.state == Ingest.STATE_STORED
    notices = [
        event.notice.message for event in await events(service, ingest.name) if event.HasField("notice")
    ]
    assert notices == ["model.gguf: general.file_type 999 is not known"]


async def test_facts_are_told_once_however_often_the_header_is_read(start_service: StartService) -> None:
    service = await start_service()
    data = model(2 * MEBIBYTE)
    name = (await service.ingests.CreateIngest(create_request(data))).files[0].name
    messages = upload_messages(name, data)
    for _ in range(3):
        await send(service.ingests, messages[:2])
    await send(service.ingests, messages)
    assert len(await facts_told(service, name.partition("/files/")[0])) == 1


async def test_stored_bytes_tell_their_facts_to_the_next_ingest(start_service: StartService) -> None:
    service = await start_service()
    data = model(5000)
    await push(service.ingests, data, "first")
    second = await service.ingests.CreateIngest(create_request(data, "second", sha256=digest(data)))
    assert second.files[0].deduplicated
    (told,) = await facts_told(service, second.name)
    assert told["architecture"] == "llama"


SHARDS = [
    ("m-00001-of-00002.gguf", shard(0, 2, 3), ("a", "b")),
    ("m-00002-of-00002.gguf", shard(1, 2, 3), ("c",)),
]


async def test_a_models_facts_are_those_of_all_its_shards(start_service: StartService) -> None:
    service = await start_service()
    files = [(name, File.ROLE_SHARD, model(1000, kv=kv, tensors=names)) for name, kv, names in SHARDS]
    ingest = await service.ingests.CreateIngest(several(files, "shards"))
    for file, (_, _, data) in zip(ingest.files, files, strict=True):
        await send(service.ingests, upload_messages(file.name, data))
    stored = await get_model(service, "shards")
    found = MessageToDict(stored.facts)
    # What is kept to compare shards is told to nobody.
    told = [MessageToDict(file.facts) for file in stored.files]
    assert all(facts["split"] for facts in told)
    assert not any("tensor_names" in facts for facts in [found, *told])
    assert found["tensor_count"] == 3
    assert found["architecture"] == "llama"
    assert "split" not in found
    (share,) = found["quantization_mix"]
    assert (share["tensors"], share["parameters"]) == (3, found["parameter_count"])


@pytest.mark.extended_unless("True")
@pytest.mark.parametrize("dedup", [False, True])
async def test_shards_that_do_not_fit_together(start_service: StartService, *, dedup: bool) -> None:
    """The last one shows it: the ingest fails, also if its bytes are here already."""
    service = await start_service()
    files = [(name, File.ROLE_SHARD, model(1000, kv=kv, tensors=names)) for name, kv, names in SHARDS]
    files[1] = (files[1][0], File.ROLE_SHARD, model(1000, kv=SHARDS[1][1], tensors=("c", "d")))
    ingest = await service.ingests.CreateIngest(several(files, "shards"))
    await send(service.ingests, upload_messages(ingest.files[0].name, files[0][2]))
    last = send(service.ingests, upload_messages(ingest.files[1].name, files[1][2]))
    refusal = await refused(last, "FORMAT_INVALID")
    assert refusal.metadata["rule"] == "X3"
    after = await service.ingests.GetIngest(GetIngestRequest(name=ingest.name))
    assert after.state == Ingest.STATE_FAILED
    if dedup:
        again = service.ingests.CreateIngest(several(files, "again", declared=True))
        assert (await refused(again, "FORMAT_INVALID")).metadata["rule"] == "X3"


@pytest.mark.extended
async def test_shards_with_the_same_tensors_reach_no_target(
    start_service: StartService, emulator: OllamaEmulator
) -> None:
    """Their counts are right: only the names show it. llama.cpp says that a tensor is duplicated."""
    service = await start_service(f"default={emulator.url}")
    names = [("a", "b"), ("b", "c")]
    files = [
        (f"m-0000{n + 1}-of-00002.gguf", File.ROLE_SHARD, model(1000, kv=shard(n, 2, 4), tensors=names[n]))
        for n in range(2)
    ]
    ingest = await service.ingests.CreateIngest(several(files, "twice"))
    await send(service.ingests, upload_messages(ingest.files[0].name, files[0][2]))
    refusal = await refused(
        send(service.ingests, upload_messages(ingest.files[1].name, files[1][2])), "FORMAT_INVALID"
    )
    assert refusal.metadata["rule"] == "X3"
    after = await service.ingests.GetIngest(GetIngestRequest(name=ingest.name))
    assert after.state == Ingest.STATE_FAILED
    again = service.ingests.CreateIngest(several(files, "again", declared=True))
    assert (await refused(again, "FORMAT_INVALID")).metadata["rule"] == "X3"
    assert not emulator.calls.named("blob_post") + emulator.calls.named("create")


@pytest.mark.extended
async def test_a_whole_model_may_be_called_like_the_only_shard_of_one(
    start_service: StartService, emulator: OllamaEmulator
) -> None:
    service = await start_service(f"default={emulator.url}")
    for role in (File.ROLE_SHARD, File.ROLE_MODEL):
        data = model(1000, seed=role)
        files = [("m-00001-of-00001.gguf", role, data)]
        ingest = await service.ingests.CreateIngest(several(files, f"whole{role}"))
        await send(service.ingests, upload_messages(ingest.files[0].name, data))
        assert (await ended(service, ingest.name)).state == Ingest.STATE_READY
    assert {tuple(call.json["files"]) for call in emulator.calls.named("create")} == {("model.gguf",)}


@pytest.mark.extended
async def test_a_role_that_the_header_denies(start_service: StartService) -> None:
    service = await start_service()
    data = model()
    files = [("model.gguf", File.ROLE_MODEL, data), ("p.gguf", File.ROLE_PROJECTOR, data)]
    ingest = await service.ingests.CreateIngest(several(files, "roles"))
    refusal = await refused(
        send(service.ingests, upload_messages(ingest.files[1].name, data)), "FORMAT_INVALID"
    )
    assert refusal.metadata["rule"] == "X1"
    # Nor does it pass because its bytes are here already.
    await push(service.ingests, data, "kept")
    again = service.ingests.CreateIngest(several(files, "again", declared=True))
    assert (await refused(again, "FORMAT_INVALID", "files[1].sha256")).metadata["rule"] == "X1"


async def test_what_cannot_be_quantized(start_service: StartService, emulator: OllamaEmulator) -> None:
    service = await start_service(f"default={emulator.url}")
    data, options = model(), CreateOptions(quantize="Q4_K_M")
    name = (await service.ingests.CreateIngest(create_request(data, options=options))).files[0].name
    refusal = await refused(send(service.ingests, upload_messages(name, data)), "FORMAT_INVALID")
    assert (refusal.metadata["rule"], refusal.fields) == ("X5", ("options.quantize",))
    await push(service.ingests, data, "kept", store_only=True)
    again = create_request(data, sha256=digest(data), options=options)
    assert (await refused(service.ingests.CreateIngest(again), "FORMAT_INVALID")).metadata["rule"] == "X5"
    assert not emulator.calls.names()


TRAILING = Gguf().file() + b"more"
UNSAFE = Gguf().but({"tokenizer.chat_template": text("{{ ''.__class__ }}")}).file()


TWICE = Gguf().but(extra=(counted(b"llama.block_count") + u32(U32),)).file()


@pytest.mark.extended_unless("C1")
@pytest.mark.parametrize(
    ("setting", "value", "data", "rule"),
    [
        ("allow_trailing_bytes", True, TRAILING, "S2"),
        ("allow_unsafe_templates", True, UNSAFE, "C1"),
        ("rules_as_warnings", "K8", TWICE, "K8"),
    ],
)
async def test_what_a_setting_allows(
    start_service: StartService, setting: str, value: object, data: bytes, rule: str
) -> None:
    strict, lax = await start_service(), await start_service(**{setting: value})
    name = (await strict.ingests.CreateIngest(create_request(data))).files[0].name
    refusal = await refused(send(strict.ingests, upload_messages(name, data)), "FORMAT_INVALID")
    assert refusal.metadata["rule"] == rule
    stored = await push(lax.ingests, data, "lax")
    assert stored.state == Ingest.STATE_STORED
    if rule == "K8":
        told = [event.notice.message for event in await events(lax, stored.name) if event.HasField("notice")]
        assert [words for words in told if "(rule K8, byte " in words]


async def test_a_file_declared_shorter_than_its_header_says_is_refused_with_the_header(
    start_service: StartService,
) -> None:
    service = await start_service()
    whole = Gguf(tensors=(Tensor("w", (1 << 20, 16), 0),))
    name = (await service.ingests.CreateIngest(create_request(whole.max_size_bytes - 4096))).files[0].name
    sending = send(service.ingests, upload_messages(name, whole.header)[:-1])
    refusal = await refused(sending, "FORMAT_INVALID")
    assert refusal.metadata["rule"] == "S1"


async def test_a_fault_behind_what_was_committed_is_found_by_the_next_process(
    start_service: StartService, database_url: str
) -> None:
    """The header is parsed again from the committed prefix, of which nothing is in memory any more."""
    bad = Gguf().but({"pad": texts(["x" * 1000] * 3000), "llama.block_count": number(I32, 2), "z": u32(U32)})
    data = bad.file()
    first = await start_service(database_url=database_url)
    name = (await first.ingests.CreateIngest(create_request(data))).files[0].name
    messages = upload_messages(name, data)
    left = await send(first.ingests, messages[:2])
    assert left.committed_size == MEBIBYTE
    await first.service.stop(0.0)
    second = await start_service(database_url=database_url)
    refusal = await refused(send(second.ingests, [messages[0], *messages[2:]]), "FORMAT_INVALID")
    assert (refusal.metadata["rule"], refusal.metadata["field"]) == ("M2", "llama.block_count")
    assert not list((second.settings.data_dir / "uploads").glob("*.part"))


@pytest.mark.extended
async def test_more_facts_than_a_message_holds(start_service: StartService) -> None:
    service = await start_service()
    count, template = 50, "x" * (63 << 10)
    pairs = [shard(n, count, count) | {"tokenizer.chat_template": f"{n}{template}"} for n in range(count)]
    names = [f"m-{n + 1:05}-of-{count:05}.gguf" for n in range(count)]
    files = [
        (name, File.ROLE_SHARD, model(kv=kv, tensors=(name,))) for name, kv in zip(names, pairs, strict=True)
    ]
    ingest = await service.ingests.CreateIngest(several(files, "large"))
    for file, (_, _, data) in zip(ingest.files, files, strict=True):
        await send(service.ingests, upload_messages(file.name, data))
    (listed,) = (await service.catalog.ListModels(ListModelsRequest())).models
    assert listed.facts["chat_template_bytes"] == len(template) + 1
    assert "chat_template" not in listed.facts
    assert not any(file.HasField("facts") for file in listed.files)
    found = await get_model(service, "large:latest")
    assert [file.file_name for file in found.files] == names
    assert found.facts["tensor_count"] == count
    assert found.files[0].HasField("facts")
    assert not found.files[-1].HasField("facts")


async def test_every_defect_of_a_file_can_be_seen_after_the_fact(start_service: StartService) -> None:
    """The client that uploaded it may be gone; how many are kept is bounded."""
    service = await start_service()
    names = [f"t{index}" for index in range(40)]
    defects: list[tuple[dict[str, bytes | None], tuple[Tensor, ...], int]] = [
        ({"llama.block_count": u32(0), "llama.context_length": None}, Gguf().tensors, 1),
        ({}, tuple(Tensor(name, (33,), 2) for name in names), 20),
    ]
    for pairs, tensors, count in defects:
        bad = Gguf().but(pairs, tensors=tensors)
        data = bad.file()
        name = (await service.ingests.CreateIngest(create_request(data))).files[0].name
        await refused(send(service.ingests, upload_messages(name, data)), "FORMAT_INVALID")
        ingest = await service.ingests.GetIngest(GetIngestRequest(name=name.partition("/files/")[0]))
        violations = ingest.files[0].failure.violations
        assert len(violations) == count
        assert ingest.failure.message == ingest.files[0].failure.message
        assert not ingest.failure.violations
        for event in await events(service, ingest.name):
            assert not event.file_state.failure.violations
            assert not event.ingest_state.failure.violations
        lines = ingest_text(ingest)
        assert len([line for line in lines if line.startswith("  also: ")]) == count
        if count == 1:
            assert violations[0].field == "llama.context_length"
            assert "(rule M2)" in violations[0].description
        else:
            assert violations[-1].description == "And 20 more."

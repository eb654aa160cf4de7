"""An ingest of several files: each with an upload of its own, stored when all are, failed when one is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from google.protobuf.struct_pb2 import Struct
from model_ingest.v1 import errors_pb2
from model_ingest.v1.catalog_service_pb2 import ListModelsRequest
from model_ingest.v1.ingest_service_pb2 import (
    CreateIngestRequest,
    FileSpec,
    GetIngestRequest,
    ListIngestsRequest,
    WatchIngestRequest,
)
from model_ingest.v1.resources_pb2 import CreateOptions, File, Ingest

from ingest_service.app import now
from tests.conftest import StartService
from tests.ollama_emulator import OllamaEmulator
from tests.rpc.refusals import refused
from tests.support.files import digest, gguf, send, upload_messages
from tests.support.formats import ACCEPTED
from tests.support.models import ADAPTER, CONFIG_JSON, PROJECTOR, TOKENIZER_MODEL, model
from tests.support.service import RunningService

pytestmark = pytest.mark.extended_when("postgresql")

WEIGHTS = gguf(300_000)
MMPROJ = model(kv=PROJECTOR)
LORA = model(kv=ADAPTER)
FILES = [
    ("model.gguf", File.ROLE_MODEL, WEIGHTS),
    ("mmproj.gguf", File.ROLE_PROJECTOR, MMPROJ),
    ("lora.gguf", File.ROLE_ADAPTER, LORA),
]
Parts = Sequence[tuple[str, "File.Role.ValueType", bytes]]


def several(
    files: Parts = FILES, model: str = "m", *, declared: bool = False, **fields: object
) -> CreateIngestRequest:
    specs = [
        FileSpec(file_name=name, role=role, size_bytes=len(data), sha256=digest(data) if declared else "")
        for name, role, data in files
    ]
    return CreateIngestRequest(model=model, files=specs, **fields)  # type: ignore[arg-type]


async def ended(service: RunningService, name: str) -> Ingest:
    async for _ in service.ingests.WatchIngest(WatchIngestRequest(name=name), timeout=60):
        pass
    return await service.ingests.GetIngest(GetIngestRequest(name=name))


def options() -> CreateOptions:
    parameters = Struct()
    parameters.update({"num_ctx": 4096, "stop": ["<end>"]})
    return CreateOptions(system="Be brief.", licenses=["MIT"], parameters=parameters)


async def test_each_file_is_uploaded_and_the_ingest_is_stored_once_all_are(
    service: RunningService, emulator: OllamaEmulator
) -> None:
    ingest = await service.ingests.CreateIngest(several(options=options()))
    assert [(file.file_name, file.role) for file in ingest.files] == [(name, role) for name, role, _ in FILES]
    for file, (_, _, data) in reversed([*zip(ingest.files, FILES, strict=True)]):
        assert (
            await service.ingests.GetIngest(GetIngestRequest(name=ingest.name))
        ).state == Ingest.STATE_UPLOADING
        assert not emulator.calls.names()
        await send(service.ingests, upload_messages(file.name, data))
    last = await ended(service, ingest.name)
    assert last.state == Ingest.STATE_READY
    assert last.options == ingest.options == options()
    body = emulator.calls.named("create")[0].json
    assert body["files"] == {"model.gguf": digest(WEIGHTS), "projector.gguf": digest(MMPROJ)}
    assert body["adapters"] == {"adapter.gguf": digest(LORA)}
    assert (body["system"], body["license"]) == ("Be brief.", ["MIT"])
    assert body["parameters"] == {"num_ctx": 4096, "stop": ["<end>"]}


async def test_files_are_uploaded_side_by_side(service: RunningService) -> None:
    ingest = await service.ingests.CreateIngest(several())
    await asyncio.gather(
        *(
            send(service.ingests, upload_messages(file.name, data, chunk_bytes=1000))
            for file, (_, _, data) in zip(ingest.files, FILES, strict=True)
        )
    )
    assert (await ended(service, ingest.name)).state == Ingest.STATE_READY


async def test_a_list_of_ingests_leaves_the_options_out(service: RunningService) -> None:
    ingest = await service.ingests.CreateIngest(several(options=options()))
    listed = (await service.ingests.ListIngests(ListIngestsRequest())).ingests
    assert [one.name for one in listed] == [ingest.name]
    assert not listed[0].HasField("options")
    assert ingest.HasField("options")


@pytest.mark.extended
async def test_a_list_of_ingests_with_many_files_comes_in_pages_that_fit(start_service: StartService) -> None:
    service = await start_service()
    names = [f"{'n' * 234}-{n:05}-of-01024.gguf" for n in range(1, 1025)]
    files: Parts = [(name, File.ROLE_SHARD, b"x") for name in names]
    made = [(await service.ingests.CreateIngest(several(files, f"m{number}"))).name for number in range(8)]
    found, token, pages = [], "", 0
    while True:
        page = await service.ingests.ListIngests(ListIngestsRequest(page_size=500, page_token=token))
        found += [ingest.name for ingest in page.ingests]
        token, pages = page.next_page_token, pages + 1
        if not token:
            break
    assert found == made[::-1]
    assert pages > 1


@pytest.mark.extended
async def test_a_list_of_models_with_many_files_comes_in_pages_that_fit(start_service: StartService) -> None:
    service = await start_service()
    names = [f"{'n' * 234}-{n:05}-of-01024.gguf" for n in range(1, 1025)]
    # By hand, and all with the same few bytes: sending a thousand shards is not what is looked at.
    tiny = gguf()
    first = await service.ingests.CreateIngest(several([("m.gguf", File.ROLE_MODEL, tiny)], "m"))
    await send(service.ingests, upload_messages(first.files[0].name, tiny))
    await service.service.database.transact(lambda tx: tx.blobs.accept(digest(tiny), ACCEPTED))
    files: Parts = [(name, File.ROLE_SHARD, tiny) for name in names]
    for number in range(13):
        # Stored at once: the bytes are there.
        made = await service.ingests.CreateIngest(several(files, f"m{number:02}", declared=True))
        assert made.done
    found, token, pages = [], "", 0
    while True:
        page = await service.catalog.ListModels(ListModelsRequest(page_size=500, page_token=token))
        found += [model.display_name for model in page.models]
        token, pages = page.next_page_token, pages + 1
        if not token:
            break
    assert found == [*(f"m{number:02}:latest" for number in range(13)), "m:latest"]
    assert pages > 1


async def test_options_are_part_of_what_a_request_id_stands_for(service: RunningService) -> None:
    first = await service.ingests.CreateIngest(several(options=options(), request_id="r"))
    again = await service.ingests.CreateIngest(several(options=options(), request_id="r"))
    assert again.name == first.name
    other = several(options=CreateOptions(system="Be long."), request_id="r")
    await refused(service.ingests.CreateIngest(other), "REQUEST_ID_REUSED", "request_id")


async def test_one_bad_file_fails_the_ingest_and_closes_the_others(
    service: RunningService, emulator: OllamaEmulator
) -> None:
    ingest = await service.ingests.CreateIngest(several())
    await send(service.ingests, upload_messages(ingest.files[1].name, MMPROJ))
    bad = b"not a model".ljust(len(LORA), b".")
    await refused(
        send(service.ingests, upload_messages(ingest.files[2].name, bad)), "FORMAT_INVALID", "magic"
    )
    last = await ended(service, ingest.name)
    assert (last.state, last.failure.reason) == (Ingest.STATE_FAILED, errors_pb2.FORMAT_INVALID)
    assert [file.state for file in last.files] == [File.STATE_FAILED, File.STATE_STORED, File.STATE_FAILED]
    assert last.files[0].failure.reason == errors_pb2.UPLOAD_CLOSED
    await refused(send(service.ingests, upload_messages(ingest.files[0].name, WEIGHTS)), "UPLOAD_CLOSED")
    # No room is kept for bytes that will never come.
    assert await service.service.database.read(lambda tx: tx.files.reserved_bytes(now(), now())) == 0
    assert not emulator.calls.names()


@pytest.mark.extended
async def test_an_upload_that_runs_ends_when_another_file_fails(service: RunningService) -> None:
    ingest = await service.ingests.CreateIngest(several())
    call = service.ingests.Upload(timeout=60)
    for message in upload_messages(ingest.files[0].name, WEIGHTS, chunk_bytes=1000)[:3]:
        await call.write(message)
    while True:
        seen = await service.ingests.GetIngest(GetIngestRequest(name=ingest.name))
        if seen.files[0].state == File.STATE_UPLOADING:
            break
        await asyncio.sleep(0.02)
    bad = b"not a model".ljust(len(LORA), b".")
    await refused(
        send(service.ingests, upload_messages(ingest.files[2].name, bad)), "FORMAT_INVALID", "magic"
    )
    await refused(call, "UPLOAD_CLOSED")
    assert not list((service.settings.data_dir / "uploads").glob("*.part"))


@pytest.mark.extended
async def test_files_that_are_stored_already_are_not_sent_again(service: RunningService) -> None:
    first = await service.ingests.CreateIngest(several())
    for file, (_, _, data) in zip(first.files, FILES, strict=True):
        await send(service.ingests, upload_messages(file.name, data))
    await ended(service, first.name)
    changed = [*FILES[:2], ("lora.gguf", File.ROLE_ADAPTER, model(kv={**ADAPTER, "a": 1}))]
    second = await service.ingests.CreateIngest(several(changed, "other", declared=True))
    assert [file.deduplicated for file in second.files] == [True, True, False]
    assert second.state == Ingest.STATE_UPLOADING


async def test_stored_bytes_do_not_pass_for_what_another_name_says(start_service: StartService) -> None:
    """What is stored as JSON is no GGUF, though its digest is known."""
    service = await start_service(allow_safetensors=True)
    config = CONFIG_JSON
    safe: Parts = [
        ("model.safetensors", File.ROLE_MODEL, b"\x02" + bytes(7) + b"{}"),
        ("config.json", File.ROLE_MODEL, config),
        ("tokenizer.model", File.ROLE_MODEL, TOKENIZER_MODEL),
        ("chat_template.jinja", File.ROLE_MODEL, b"{{ messages }}"),
    ]
    first = await service.ingests.CreateIngest(several(safe))
    for file, (_, _, data) in zip(first.files, safe, strict=True):
        await send(service.ingests, upload_messages(file.name, data))
    assert (await ended(service, first.name)).state == Ingest.STATE_STORED
    as_model: Parts = [("model.gguf", File.ROLE_MODEL, config)]
    second = await service.ingests.CreateIngest(several(as_model, "other", declared=True))
    assert second.files[0].state == File.STATE_PENDING
    await refused(
        send(service.ingests, upload_messages(second.files[0].name, config)), "FORMAT_INVALID", "magic"
    )


async def test_an_ingest_without_files_builds_upon_a_targets_model(
    database_url: str, start_service: StartService, emulator: OllamaEmulator
) -> None:
    service = await start_service(f"default={emulator.url}", database_url=database_url, allow_from=True)
    base = await service.ingests.CreateIngest(several(FILES[:1], "base"))
    await send(service.ingests, upload_messages(base.files[0].name, WEIGHTS))
    assert (await ended(service, base.name)).state == Ingest.STATE_READY
    new = CreateOptions(system="Be brief.")
    setattr(new, "from", "base")
    ingest = await service.ingests.CreateIngest(several([], "derived", options=new))
    last = await ended(service, ingest.name)
    assert last.state == Ingest.STATE_READY
    assert last.deployments[0].layer_digest == digest(WEIGHTS)
    assert [name.split(":")[0] for name in sorted(emulator.state()["models"])] == ["base", "derived"]


@pytest.mark.parametrize("formats", [["gguf"], ["gguf", "safetensors"]])
async def test_the_formats_that_are_taken_are_told(start_service: StartService, formats: list[str]) -> None:
    from model_ingest.v1.ingest_service_pb2 import GetCapabilitiesRequest

    service = await start_service(allow_safetensors=len(formats) > 1)
    assert list((await service.ingests.GetCapabilities(GetCapabilitiesRequest())).formats) == formats

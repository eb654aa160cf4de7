"""Cut-through: the target gets the bytes while they arrive, and never a byte too many.

Breaks when: the last MiB is not withheld, a wrong digest's bytes are sent to their end, the upload waits for
a target, or the worker pushes a second time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import (
    CancelIngestRequest,
    GetIngestRequest,
    UploadRequest,
    UploadStart,
)

from ingest_service.forwarding import cut_through
from tests.conftest import StartService
from tests.formats.build import Gguf, Tensor, texts, u32
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.support.files import MEBIBYTE, create_request, digest, gguf, send, upload_messages
from tests.support.service import RunningService

DATA = gguf(12 * MEBIBYTE + 5)
_D = resources_pb2.Deployment


async def begun(service: RunningService, sha256: str = "") -> str:
    """An ingest whose digest is declared; answers its name."""
    request = create_request(DATA, "through", sha256=sha256 or digest(DATA))
    return (await service.ingests.CreateIngest(request)).name


async def until_done(service: RunningService, name: str) -> resources_pb2.Ingest:
    async with asyncio.timeout(60):
        while not (ingest := await service.ingests.GetIngest(GetIngestRequest(name=name))).done:
            await asyncio.sleep(0.05)
    return ingest


def sent(emulator: OllamaEmulator) -> int:
    return sum(call.body_bytes for call in emulator.calls.named("blob_post"))


class SlowUpload:
    """An Upload call that stops before `finish` until it is told to go on."""

    def __init__(self, service: RunningService, name: str) -> None:
        self._messages = upload_messages(f"{name}/files/model.gguf", DATA)
        self._go_on = asyncio.Event()
        self.call = service.ingests.Upload(self._all(), timeout=60)

    async def _all(self) -> AsyncIterator[UploadRequest]:
        for message in self._messages:
            if message.HasField("finish"):
                await self._go_on.wait()
            yield message

    def finish(self) -> None:
        self._go_on.set()


async def until_sent(emulator: OllamaEmulator, size_bytes: int) -> None:
    async with asyncio.timeout(30):
        while sent(emulator) < size_bytes:
            await asyncio.sleep(0.02)


async def test_all_but_the_last_mebibyte_is_there_before_the_upload_ends(
    start_service: StartService, emulator: OllamaEmulator
) -> None:
    service = await start_service(f"default={emulator.url}")
    name = await begun(service)
    upload = SlowUpload(service, name)
    await until_sent(emulator, len(DATA) - MEBIBYTE)
    await asyncio.sleep(0.5)
    assert sent(emulator) == len(DATA) - MEBIBYTE
    upload.finish()
    assert (await upload.call).state == resources_pb2.File.STATE_STORED
    ingest = await until_done(service, name)
    assert ingest.state == resources_pb2.Ingest.STATE_READY
    # One push, one create: the worker found the blob.
    assert [call.name for call in emulator.calls if call.name in {"blob_post", "create"}] == [
        "blob_post", "create",
    ]  # fmt: skip
    assert sent(emulator) == len(DATA)


LONG_HEADER = {"pad": texts(["x" * 1000] * 3000)}


async def test_a_target_hears_nothing_before_the_whole_header_is_accepted(
    start_service: StartService, emulator: OllamaEmulator
) -> None:
    service = await start_service(f"default={emulator.url}")
    tensors = (Tensor("w", (12 * MEBIBYTE,), 24),)
    sound = Gguf(tensors=tensors).but(LONG_HEADER)
    # The same with its last pair wrong, which is seen only at the header's end.
    for model, told in ((sound.but({"llama.block_count": u32(0)}), False), (sound, True)):
        data = model.file()
        request = create_request(data, f"through{told}", sha256=digest(data))
        name = (await service.ingests.CreateIngest(request)).name
        upload = service.ingests.Upload(timeout=60)
        messages = upload_messages(f"{name}/files/model.gguf", data)
        for message in messages[:3]:
            await upload.write(message)
        await asyncio.sleep(0.3)
        assert not emulator.calls.names()
        for message in messages[3:-1]:
            with contextlib.suppress(Exception):
                await upload.write(message)
        if told:
            await until_sent(emulator, MEBIBYTE)
            await upload.write(messages[-1])
            await upload.done_writing()
            assert (await upload).state == resources_pb2.File.STATE_STORED
        else:
            assert (await until_done(service, name)).state == resources_pb2.Ingest.STATE_FAILED
            await asyncio.sleep(0.3)
            assert not emulator.calls.names()


async def test_a_wrong_digest_leaves_no_blob_at_the_target(
    start_service: StartService, emulator: OllamaEmulator
) -> None:
    service = await start_service(f"default={emulator.url}")
    name = await begun(service, digest(b"something else"))
    messages = upload_messages(f"{name}/files/model.gguf", DATA, sha256="")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await send(service.ingests, messages)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    async with asyncio.timeout(30):
        while any(call.outcome == "open" for call in emulator.calls.named("blob_post")):
            await asyncio.sleep(0.05)
    assert sent(emulator) <= len(DATA) - MEBIBYTE
    assert list(emulator.blobs.digests()) == []
    assert not emulator.calls.named("create")


async def test_a_target_that_stands_still_does_not_slow_the_upload(
    start_service: StartService, emulator: OllamaEmulator
) -> None:
    stall = emulator.faults.add(Fault("stall", "blob_post", at_bytes=10))
    service = await start_service(f"default={emulator.url}")
    name = await begun(service)
    upload = SlowUpload(service, name)
    await stall.wait_stalled()
    upload.finish()
    assert (await upload.call).state == resources_pb2.File.STATE_STORED
    assert stall.stalled
    stall.release()
    assert (await until_done(service, name)).state == resources_pb2.Ingest.STATE_READY


async def test_an_upload_that_stands_still_drops_the_push(
    start_service: StartService, emulator: OllamaEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cut_through, "_PATIENCE_SECONDS", 1.0)
    service = await start_service(f"default={emulator.url}")
    name = await begun(service)
    upload = SlowUpload(service, name)
    await until_sent(emulator, MEBIBYTE)
    async with asyncio.timeout(30):
        while any(call.outcome == "open" for call in emulator.calls.named("blob_post")):
            await asyncio.sleep(0.05)
    assert list(emulator.blobs.digests()) == []
    upload.finish()
    assert (await upload.call).state == resources_pb2.File.STATE_STORED
    assert (await until_done(service, name)).state == resources_pb2.Ingest.STATE_READY
    assert len(emulator.calls.named("blob_post")) == 2


async def test_a_cancelled_ingest_sends_no_further(
    start_service: StartService, emulator: OllamaEmulator
) -> None:
    service = await start_service(f"default={emulator.url}")
    name = await begun(service)
    upload = SlowUpload(service, name)
    await until_sent(emulator, MEBIBYTE)
    await service.ingests.CancelIngest(CancelIngestRequest(name=name))
    with pytest.raises(grpc.aio.AioRpcError):
        await upload.call
    upload.finish()  # gRPC waits for the next message even of a call that is over
    async with asyncio.timeout(30):
        while any(call.outcome == "open" for call in emulator.calls.named("blob_post")):
            await asyncio.sleep(0.05)
    assert list(emulator.blobs.digests()) == []


@pytest.mark.extended
@pytest.mark.parametrize("how", ["switched off", "not declared"])
async def test_when_it_does_not_happen(
    how: str, start_service: StartService, emulator: OllamaEmulator
) -> None:
    service = await start_service(f"default={emulator.url}", cut_through=how != "switched off")
    declared = "" if how == "not declared" else digest(DATA)
    request = create_request(DATA, "through", sha256=declared)
    name = (await service.ingests.CreateIngest(request)).name
    upload = SlowUpload(service, name)
    async with asyncio.timeout(30):
        while not (service.service.uploads.active and service.service.uploads.held_bytes == 0):
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)
    assert sent(emulator) == 0
    upload.finish()
    await upload.call
    assert (await until_done(service, name)).state == resources_pb2.Ingest.STATE_READY


async def test_an_upload_that_breaks_off_and_goes_on_is_sent_on_in_one_push(
    start_service: StartService, emulator: OllamaEmulator
) -> None:
    service = await start_service(f"default={emulator.url}")
    name = await begun(service)
    half = upload_messages(f"{name}/files/model.gguf", DATA)[:7]
    file = await send(service.ingests, half)
    assert 0 < file.committed_size < len(DATA)
    rest = [
        message
        for message in upload_messages(f"{name}/files/model.gguf", DATA)
        if message.HasField("finish") or message.chunk.offset >= file.committed_size
    ]
    start = UploadRequest(start=UploadStart(file=f"{name}/files/model.gguf"))
    stored = await send(service.ingests, [start, *(m for m in rest if not m.HasField("start"))])
    assert stored.state == resources_pb2.File.STATE_STORED
    assert (await until_done(service, name)).state == resources_pb2.Ingest.STATE_READY
    assert sent(emulator) == len(DATA)
    assert len(emulator.calls.named("blob_post")) == 1


async def test_a_target_that_cannot_do_what_is_asked_gets_no_byte(
    start_service: StartService, tmp_path: Path
) -> None:
    async with OllamaEmulator(version="0.34.1", data_dir=tmp_path / "c") as emulator:
        service = await start_service(f"default={emulator.url}")
        request = create_request(DATA, "through", sha256=digest(DATA))
        request.files.add(file_name="lora.gguf", role=resources_pb2.File.ROLE_ADAPTER, size_bytes=10**6)
        name = (await service.ingests.CreateIngest(request)).name
        upload = SlowUpload(service, name)
        async with asyncio.timeout(30):
            while not emulator.calls.named("version"):
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        assert sent(emulator) == 0
        upload.finish()
        await upload.call


async def test_the_same_bytes_arriving_elsewhere_hold_up_no_deployment(
    start_service: StartService, emulator: OllamaEmulator
) -> None:
    service = await start_service(f"default={emulator.url}")
    slow = SlowUpload(service, await begun(service))
    await until_sent(emulator, MEBIBYTE)
    request = create_request(DATA, "quick", sha256=digest(DATA))
    quick = (await service.ingests.CreateIngest(request)).name
    await send(service.ingests, upload_messages(f"{quick}/files/model.gguf", DATA))
    async with asyncio.timeout(20):
        assert (await until_done(service, quick)).state == resources_pb2.Ingest.STATE_READY
    slow.finish()
    await slow.call


@pytest.mark.extended
async def test_the_worker_of_another_process_does_not_send_it_as_well(
    start_service: StartService, emulator: OllamaEmulator
) -> None:
    # Two services on one store, as two processes would be: whichever claims, it finds the blob there.
    first = await start_service(f"default={emulator.url}")
    second = await start_service(f"default={emulator.url}")
    for number, service in enumerate([first, second]):
        data = gguf(len(DATA), seed=number + 1)
        request = create_request(data, f"through{number}", sha256=digest(data))
        name = (await service.ingests.CreateIngest(request)).name
        await send(service.ingests, upload_messages(f"{name}/files/model.gguf", data))
        assert (await until_done(service, name)).state == resources_pb2.Ingest.STATE_READY
        posts = [call for call in emulator.calls.named("blob_post") if digest(data) in call.path]
        assert len(posts) == 1

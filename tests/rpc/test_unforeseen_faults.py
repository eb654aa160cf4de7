"""A fault nobody foresaw: INTERNAL with an id, its text in the log alone; a cancel is no fault."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import grpc
import pytest
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import GetIngestRequest, WatchIngestRequest, WatchIngestResponse

from ingest_service.events import Heartbeat
from ingest_service.ingests.session import UploadSession
from ingest_service.rpc.interceptors import ErrorInterceptor
from ingest_service.vocabulary.errors import IngestNotFound
from tests.rpc.refusals import error_of, refused, refused_without_reason
from tests.rpc.scenes import Scene, until
from tests.rpc.uploading import chunk, start, upload, upload_call
from tests.support.files import MEBIBYTE, digest, gguf, upload_messages

SECRET = "password=hunter2 in /srv/secret.py"
DATA = gguf(3 * MEBIBYTE)


def boom(*_: object, **__: object) -> NoReturn:
    """What nobody foresaw."""
    raise RuntimeError(SECRET)


def fault_records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What the log says about unforeseen faults."""
    return [record for record in caplog.records if hasattr(record, "fault")]


async def assert_internal(call: Any, caplog: pytest.LogCaptureFixture, method: str) -> None:
    """INTERNAL with an id; the log has the id, the method and the traceback, the client nothing else."""
    error = await error_of(call)
    assert error.code() is grpc.StatusCode.INTERNAL
    told = f"{error} {error.details()} {error.trailing_metadata()}"
    for word in ("hunter2", "RuntimeError", "Traceback", "secret"):
        assert word not in told
    found = re.fullmatch(r"An unforeseen .* under ([0-9a-f]{16})\.", error.details() or "")
    assert found is not None, error.details()
    (record,) = fault_records(caplog)
    assert record.levelno == logging.ERROR
    assert vars(record)["fault"] == found[1]
    assert vars(record)["method"] == f"/model_ingest.v1.IngestService/{method}"
    assert SECRET in caplog.text
    assert "Traceback" in caplog.text


async def test_in_a_unary_call(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scene.running.service.ingests, "get", boom)
    call = scene.running.ingests.GetIngest(GetIngestRequest(name="ingests/a"))
    await assert_internal(call, caplog, "GetIngest")


async def test_two_faults_have_two_ids(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene.running.service.ingests, "get", boom)
    request = GetIngestRequest(name="ingests/a")
    messages = {
        (
            await refused_without_reason(scene.running.ingests.GetIngest(request), grpc.StatusCode.INTERNAL)
        ).message
        for _ in range(3)
    }
    assert len(messages) == 3


async def test_in_a_server_stream_after_its_first_message(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def watch(*_: object) -> AsyncIterator[Heartbeat]:
        yield Heartbeat(7)
        boom()

    monkeypatch.setattr(scene.running.service.watches, "watch", watch)
    seen: list[WatchIngestResponse] = []

    async def read() -> None:
        async for item in scene.running.ingests.WatchIngest(WatchIngestRequest(name="ingests/a")):
            seen.append(item)  # noqa: PERF401 (what came before the error counts)

    await assert_internal(read(), caplog, "WatchIngest")
    assert [item.heartbeat.last_sequence for item in seen] == [7]


async def test_an_error_of_the_domain_after_the_first_message_keeps_its_reason(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def watch(*_: object) -> AsyncIterator[Heartbeat]:
        yield Heartbeat(7)
        raise IngestNotFound

    monkeypatch.setattr(scene.running.service.watches, "watch", watch)

    async def read() -> None:
        async for _ in scene.running.ingests.WatchIngest(WatchIngestRequest(name="ingests/a")):
            pass

    await refused(read(), "INGEST_NOT_FOUND")


async def test_in_the_middle_of_an_upload(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = await scene.new_file(DATA)
    take = UploadSession.chunk

    async def second_fails(self: UploadSession, offset: int, data: bytes, crc32c: int | None) -> None:
        await (boom() if offset else take(self, offset, data, crc32c))

    monkeypatch.setattr(UploadSession, "chunk", second_fails)
    messages = [start(file), chunk(0, DATA[:MEBIBYTE]), chunk(MEBIBYTE, DATA[MEBIBYTE : 2 * MEBIBYTE])]
    await assert_internal(upload(scene.running, messages, half_close=False), caplog, "Upload")
    monkeypatch.undo()
    ingest = await scene.assert_resumable(file, MEBIBYTE)
    assert "hunter2" not in str(ingest)
    assert (await upload(scene.running, upload_messages(file, DATA))).sha256 == digest(DATA)


async def test_in_an_upload_before_it_began(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = await scene.new_file(DATA)
    monkeypatch.setattr(scene.running.service.store, "create_partial", boom)
    await assert_internal(upload(scene.running, [start(file)]), caplog, "Upload")
    monkeypatch.undo()
    assert "hunter2" not in str(await scene.get(file))


async def test_a_fault_of_one_call_is_none_of_the_next(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest = await scene.create(DATA)
    monkeypatch.setattr(scene.running.service.ingests, "get", boom)
    await refused_without_reason(scene.get(ingest.name), grpc.StatusCode.INTERNAL)
    monkeypatch.undo()
    assert await scene.get(ingest.name) == ingest


@pytest.mark.extended_unless("upload")
@pytest.mark.parametrize("kind", ["unary", "stream", "upload"])
async def test_a_client_that_cancels_cancels_the_handler_and_is_no_fault(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """The handler waits in the domain when the cancel comes: there it arrives, and nothing is logged."""
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(*_: object, **__: object) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def wait_in_stream(*_: object) -> AsyncIterator[Heartbeat]:
        await wait()
        yield Heartbeat(0)

    service = scene.running.service
    file = await scene.new_file(DATA)
    with monkeypatch.context() as patch:
        patch.setattr(service.ingests, "get", wait)
        patch.setattr(service.watches, "watch", wait_in_stream)
        patch.setattr(UploadSession, "chunk", wait)
        async with scene.running.channel() as channel:
            call: Any
            if kind == "unary":
                call = scene.running.ingests.GetIngest(GetIngestRequest(name="ingests/a"))
            elif kind == "stream":
                call = scene.running.ingests.WatchIngest(WatchIngestRequest(name="ingests/a"))
            else:
                call = upload_call(channel)
                await call.write(start(file))
                await call.write(chunk(0, DATA[:MEBIBYTE]))
            await asyncio.wait_for(entered.wait(), 30)
            call.cancel()
            await asyncio.wait_for(cancelled.wait(), 30)
    if kind == "upload":
        await scene.assert_resumable(file, 0)
    else:
        assert (await scene.get(file)).state == resources_pb2.Ingest.STATE_UPLOADING
    await until(lambda: service.uploads.active == 0)
    assert not fault_records(caplog)


class _Untouched:
    """A context on which nothing may be called but who the peer is, for the log."""

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"


async def _cancelled(request: object, context: object) -> NoReturn:
    raise asyncio.CancelledError


async def _cancelled_stream(request: object, context: object) -> AsyncIterator[object]:
    yield request
    raise asyncio.CancelledError


@pytest.mark.parametrize("streaming", [False, True])
async def test_the_interceptor_lets_a_cancel_through_as_it_is(streaming: bool) -> None:
    """Swallowed, it would leak a little per call for ever (peers.md P16)."""
    handler: Any = (
        grpc.unary_stream_rpc_method_handler(_cancelled_stream)
        if streaming
        else grpc.unary_unary_rpc_method_handler(_cancelled)
    )

    async def continuation(details: object) -> Any:
        return handler

    class Details:
        method = "/a/B"

    wrapped: Any = await ErrorInterceptor().intercept_service(continuation, Details())  # type: ignore[arg-type]

    async def run() -> None:
        if streaming:
            async for _ in wrapped.unary_stream(b"", _Untouched()):
                pass
        else:
            await wrapped.unary_unary(b"", _Untouched())

    with pytest.raises(asyncio.CancelledError):
        await run()

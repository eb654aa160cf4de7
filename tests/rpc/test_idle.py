"""A stream without a message for too long is ended; a slow one that moves is not."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
import pytest
from model_ingest.v1 import resources_pb2

from tests.conftest import StartService
from tests.ollama_emulator import OllamaEmulator
from tests.rpc.refusals import refused
from tests.rpc.scenes import GIVE_UP_SECONDS, Scene
from tests.rpc.uploading import Answer, chunk, finish, start, upload, upload_call
from tests.support.files import MEBIBYTE, create_request, digest, gguf, push, upload_messages

DATA = gguf(2 * MEBIBYTE)


@pytest.fixture
async def impatient(start_service: StartService, emulator: OllamaEmulator) -> Scene:
    """A service that waits half a second for a message."""
    running = await start_service(f"default={emulator.url}", upload_idle_seconds=0.5)
    return Scene(running, emulator)


async def test_nothing_after_some_bytes(impatient: Scene) -> None:
    file = await impatient.new_file(DATA)
    messages = [start(file), chunk(0, DATA[:MEBIBYTE])]
    await refused(upload(impatient.running, messages, half_close=False), "UPLOAD_STALLED")
    await impatient.assert_resumable(file, MEBIBYTE)
    stored = await upload(impatient.running, upload_messages(file, DATA))
    assert stored.state == resources_pb2.File.STATE_STORED


async def test_nothing_after_start(impatient: Scene) -> None:
    file = await impatient.new_file(DATA)
    await refused(upload(impatient.running, [start(file)], half_close=False), "UPLOAD_STALLED")
    await impatient.assert_resumable(file, 0)


async def test_no_message_at_all(impatient: Scene) -> None:
    await refused(upload(impatient.running, [], half_close=False), "UPLOAD_STALLED")


async def test_nothing_more_for_a_file_that_is_stored(impatient: Scene) -> None:
    ingest = await push(impatient.running.ingests, DATA)
    messages = [start(ingest.files[0].name), chunk(0, DATA[:MEBIBYTE])]
    await refused(upload(impatient.running, messages, half_close=False), "UPLOAD_STALLED")
    assert await impatient.get(ingest.name) == ingest


async def test_a_stream_that_brings_too_little_in_a_minute_is_ended_and_can_go_on(
    start_service: StartService, emulator: OllamaEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signs of life do not count: it is never idle, and it does not get anywhere either."""
    monkeypatch.setattr("ingest_service.rpc.upload_pace._MINUTE_SECONDS", 0.5)
    running = await start_service(f"default={emulator.url}", upload_min_bytes_per_minute=MEBIBYTE + 1)
    scene = Scene(running, emulator)
    file = await scene.new_file(DATA)
    async with running.channel() as channel:
        call = upload_call(channel)
        answer = Answer(call)
        await call.write(start(file))
        await call.write(chunk(0, DATA[:MEBIBYTE]))
        async with asyncio.timeout(GIVE_UP_SECONDS):
            while not call.done():
                with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    await call.write(chunk(MEBIBYTE, b""))
                await asyncio.sleep(0.02)
        await refused(answer.get(), "UPLOAD_STALLED")
    await scene.assert_resumable(file, MEBIBYTE)
    monkeypatch.undo()
    stored = await upload(running, upload_messages(file, DATA))
    assert stored.state == resources_pb2.File.STATE_STORED


async def test_a_stream_that_brings_enough_in_every_minute_is_not_ended(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several minutes go by, each with one byte more than it takes."""
    monkeypatch.setattr("ingest_service.rpc.upload_pace._MINUTE_SECONDS", 0.3)
    running = await start_service(upload_min_bytes_per_minute=1)
    ingest = await running.ingests.CreateIngest(create_request(DATA))
    async with running.channel() as channel:
        call = upload_call(channel)
        await call.write(start(ingest.files[0].name))
        for offset in range(0, len(DATA), MEBIBYTE // 4):
            await asyncio.sleep(0.1)
            await call.write(chunk(offset, DATA[offset : offset + MEBIBYTE // 4]))
        await call.write(finish(digest(DATA)))
        assert (await call).state == resources_pb2.File.STATE_STORED


@pytest.mark.extended
async def test_a_slow_client_that_moves_is_not_cut(
    start_service: StartService, emulator: OllamaEmulator
) -> None:
    """It takes longer than the idle time in all, but there is a message, be it an empty one, in time."""
    running = await start_service(f"default={emulator.url}", upload_idle_seconds=3.0)
    file = await Scene(running, emulator).new_file(DATA)
    signs_of_life = [chunk(MEBIBYTE, b"")] * 12
    async with running.channel() as channel:
        call = upload_call(channel)
        await call.write(start(file))
        for message in (chunk(0, DATA[:MEBIBYTE]), *signs_of_life, chunk(MEBIBYTE, DATA[MEBIBYTE:])):
            await asyncio.sleep(0.25)
            await call.write(message)
        await call.write(finish(digest(DATA)))
        stored = await call
    assert stored.state == resources_pb2.File.STATE_STORED

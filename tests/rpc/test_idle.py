"""A stream without a message for too long is ended; a slow one that moves is not."""

from __future__ import annotations

import asyncio

import pytest
from model_ingest.v1 import resources_pb2

from tests.conftest import StartService
from tests.ollama_emulator import OllamaEmulator
from tests.rpc.refusals import refused
from tests.rpc.scenes import Scene
from tests.rpc.uploading import chunk, finish, start, upload, upload_call
from tests.support.files import MEBIBYTE, digest, gguf, push

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
    await impatient.assert_failed(file, "UPLOAD_INTERRUPTED")


async def test_nothing_after_start(impatient: Scene) -> None:
    file = await impatient.new_file(DATA)
    await refused(upload(impatient.running, [start(file)], half_close=False), "UPLOAD_STALLED")
    await impatient.assert_failed(file, "UPLOAD_INTERRUPTED")


async def test_no_message_at_all(impatient: Scene) -> None:
    await refused(upload(impatient.running, [], half_close=False), "UPLOAD_STALLED")


async def test_nothing_more_for_a_file_that_is_stored(impatient: Scene) -> None:
    ingest = await push(impatient.running.ingests, DATA)
    messages = [start(ingest.files[0].name), chunk(0, DATA[:MEBIBYTE])]
    await refused(upload(impatient.running, messages, half_close=False), "UPLOAD_STALLED")
    assert await impatient.get(ingest.name) == ingest


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

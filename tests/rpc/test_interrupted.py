"""The end of a stream without `finish` is never completion, however it ends (peers.md P1)."""

from __future__ import annotations

import asyncio
import signal
import sys

import grpc
import pytest
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import CancelIngestRequest, UploadRequest

from tests.conftest import StartService
from tests.ollama_emulator import OllamaEmulator
from tests.rpc.dying_client import DECLARED_BYTES
from tests.rpc.refusals import refused
from tests.rpc.scenes import GIVE_UP_SECONDS, Scene, until
from tests.rpc.uploading import Answer, chunk, finish, start, upload, upload_call
from tests.support.files import MEBIBYTE, digest, gguf, upload_messages
from tests.support.models import beginning
from tests.support.service import ROOT

DATA = gguf(3 * MEBIBYTE)
WHOLE = [chunk(offset, DATA[offset : offset + MEBIBYTE]) for offset in range(0, len(DATA), MEBIBYTE)]


UPLOADING = resources_pb2.File.STATE_UPLOADING


def received(scene: Scene) -> int:
    """Bytes that the one running upload has taken in; -1 before it is open: the row is written first."""
    sessions = list(scene.running.service.uploads._sessions.values())
    assert len(sessions) <= 1
    return sessions[0].pipeline.received_bytes if sessions else -1


async def ends_well(scene: Scene, file: str, offset: int) -> None:
    """Another call brings only what is missing."""
    rest = [chunk(offset, DATA[offset : offset + MEBIBYTE]) for offset in range(offset, len(DATA), MEBIBYTE)]
    stored = await upload(scene.running, [start(file), *rest, finish(digest(DATA))])
    assert (stored.state, stored.sha256) == (resources_pb2.File.STATE_STORED, digest(DATA))


@pytest.mark.extended_unless("some")
@pytest.mark.parametrize("chunks", [[], WHOLE[:1], WHOLE], ids=["no chunk", "some", "all bytes"])
async def test_a_half_close_before_finish(scene: Scene, chunks: list[UploadRequest]) -> None:
    """All bytes may be there, with the digest declared, and still nobody said that they are all."""
    file = await scene.new_file(DATA, sha256=digest(DATA))
    answered = await upload(scene.running, [start(file), *chunks])
    sent = len(chunks) * MEBIBYTE
    assert (answered.state, answered.committed_size) == (UPLOADING, sent)
    await scene.assert_resumable(file, sent)
    await ends_well(scene, file, sent)


@pytest.mark.extended_unless("some")
@pytest.mark.parametrize("chunks", [[], WHOLE[:1], WHOLE], ids=["no chunk", "some", "all bytes"])
async def test_a_client_that_cancels(scene: Scene, chunks: list[UploadRequest]) -> None:
    file = await scene.new_file(DATA, sha256=digest(DATA))
    async with scene.running.channel() as channel:
        call = upload_call(channel)
        for message in (start(file), *chunks):
            await call.write(message)
        await scene.uploading(file)
        # What the service has taken in is kept; what the cancel overtook on the way is the client's loss.
        await until(lambda: received(scene) == len(chunks) * MEBIBYTE)
        call.cancel()
        await scene.assert_resumable(file, len(chunks) * MEBIBYTE)
    await ends_well(scene, file, len(chunks) * MEBIBYTE)


async def test_a_client_that_closes_its_connection(scene: Scene) -> None:
    file = await scene.new_file(DATA)
    channel = scene.running.channel()
    call = upload_call(channel)
    await call.write(start(file))
    await call.write(WHOLE[0])
    await scene.uploading(file)
    await until(lambda: received(scene) == MEBIBYTE)
    await channel.close()
    await scene.assert_resumable(file, MEBIBYTE)
    await ends_well(scene, file, MEBIBYTE)


@pytest.mark.extended
async def test_a_client_process_that_is_killed_while_it_sends(
    start_service: StartService, emulator: OllamaEmulator, database_url: str
) -> None:
    running = await start_service(
        f"default={emulator.url}", database_url=database_url, checkpoint_seconds=0.05
    )
    scene = Scene(running, emulator)
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.rpc.dying_client", running.address,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert client.stdout is not None
        name = (await asyncio.wait_for(client.stdout.readline(), GIVE_UP_SECONDS)).decode().strip()
        async with asyncio.timeout(GIVE_UP_SECONDS):
            while not (told := (await scene.get(name)).files[0].committed_size):
                await asyncio.sleep(0.01)
        assert scene.partials()
    finally:
        client.send_signal(signal.SIGKILL)
        await client.wait()
    await scene.quiet()
    left = (await scene.get(name)).files[0].committed_size
    assert told <= left < DECLARED_BYTES
    await scene.assert_resumable(name, left)
    (partial,) = (running.settings.data_dir / "uploads").glob("*.part")
    # It sends the same bytes over and over.
    assert partial.read_bytes() == beginning(DECLARED_BYTES, MEBIBYTE) * (left // MEBIBYTE)


async def test_a_new_ingest_brings_the_same_bytes_after_all(scene: Scene) -> None:
    """What was interrupted leaves nothing in the way."""
    file = await scene.new_file(DATA)
    await upload(scene.running, [start(file), *WHOLE])
    again = await scene.new_file(DATA)
    stored = await upload(scene.running, upload_messages(again, DATA))
    assert stored.sha256 == digest(DATA)
    assert not stored.deduplicated


async def test_an_early_answer_is_heard_by_a_client_that_goes_on_writing(scene: Scene) -> None:
    """Whatever `write` says after it, the call itself knows the reason (peers.md P4)."""
    file = await scene.new_file(64 * MEBIBYTE)
    async with scene.running.channel() as channel:
        call = upload_call(channel)
        answer = Answer(call)
        await call.write(start(file))

        async def write_on() -> None:
            for _ in range(1000):
                await call.write(chunk(MEBIBYTE, b"x" * MEBIBYTE))

        with pytest.raises((grpc.aio.AioRpcError, asyncio.InvalidStateError)):
            await write_on()
        await refused(answer.get(), "OFFSET_GAP")
    await scene.assert_resumable(file, 0)


async def test_a_cancelled_ingest_ends_its_upload_and_removes_the_partial(scene: Scene) -> None:
    file = await scene.new_file(DATA)
    async with scene.running.channel() as channel:
        call = upload_call(channel)
        answer = Answer(call)
        await call.write(start(file))
        await call.write(WHOLE[0])
        await until(lambda: bool(scene.partials()))
        cancelled = await scene.running.ingests.CancelIngest(
            CancelIngestRequest(name=file.partition("/files/")[0])
        )
        assert cancelled.done
        # The client neither sends nor half-closes: the answer comes to it.
        await refused(answer.get(), "UPLOAD_CLOSED")
    assert await scene.ended(file) == cancelled
    await scene.assert_nothing_came_of_it()

"""`finish`: waits a while, then says how far it is; what it began goes on without its caller."""

from __future__ import annotations

import asyncio

import pytest

from ingest_service.ingests.session import UploadSession
from ingest_service.ingests.uploads import StoredAlready
from ingest_service.vocabulary.errors import (
    DigestMismatch,
    Draining,
    TooManyUploads,
    UploadClosed,
    WriterBusy,
    WriterSuperseded,
)
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.states import FileState, IngestState
from tests.ingests.parts import KIBIBYTE, Gate, Parts, check_resumable, eventually, model_bytes, send_chunks
from tests.support.files import digest

pytestmark = pytest.mark.extended_when("postgresql")

DATA = model_bytes(150 * KIBIBYTE)


async def test_a_pushed_file_is_stored_with_its_digest(parts: Parts) -> None:
    ingest = await parts.create(DATA)
    file = await parts.push(ingest, DATA)
    assert (file.state, file.sha256, file.committed_size) == (FileState.STORED, digest(DATA), len(DATA))
    assert parts.blob(DATA) == DATA
    assert parts.partials() == []
    assert (await parts.ingests.get(ingest.id)).state is IngestState.STORED
    assert (parts.uploads.active, parts.uploads.held_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("place", "state"), [("hash", FileState.VERIFYING), ("publish", FileState.PUBLISHING)]
)
async def test_a_finish_that_takes_long_says_how_far_it_is_and_goes_on(
    parts: Parts, place: str, state: FileState
) -> None:
    parts.new_uploads(finish_wait_seconds=0.2)
    gate = parts.hooks.before[place] = Gate()
    ingest = await parts.create(DATA)
    pushed = asyncio.create_task(parts.push(ingest, DATA))
    await gate.reached.wait()
    # On a slow machine the wait may be over before the gate was reached.
    assert (await pushed).state in {FileState.UPLOADING, FileState.VERIFYING, state}
    assert (await parts.file(ingest)).state is state
    # The call is over: a second one has nothing to send, and hears the same.
    async with parts.uploads.receive(ingest.id, "model.gguf") as upload:
        assert isinstance(upload, StoredAlready)
        assert (await parts.uploads.finish(upload, digest(DATA))).state is state
    gate.open()
    await parts.uploads.close()
    assert (await parts.file(ingest)).state is FileState.STORED
    assert parts.blob(DATA) == DATA


async def test_a_second_finish_waits_for_the_first_ones_end(parts: Parts) -> None:
    gate = parts.hooks.before["publish"] = Gate()
    ingest = await parts.create(DATA)
    first = asyncio.create_task(parts.push(ingest, DATA))
    await gate.reached.wait()
    second = asyncio.create_task(parts.push(ingest, DATA))
    await eventually(lambda: parts.hooks.calls["read"] > 3)
    assert not second.done()
    gate.open()
    assert (await second).state is FileState.STORED
    assert (await first).state is FileState.STORED


async def test_a_finished_file_answers_again_unless_the_digest_is_another(parts: Parts) -> None:
    ingest = await parts.create(DATA)
    stored = await parts.push(ingest, DATA)
    for sha256 in ("", digest(DATA)):
        async with parts.uploads.receive(ingest.id, "model.gguf") as upload:
            assert await parts.uploads.finish(upload, sha256) == stored
    with pytest.raises(DigestMismatch):
        async with parts.uploads.receive(ingest.id, "model.gguf") as upload:
            await parts.uploads.finish(upload, digest(b"other"))
    assert await parts.file(ingest) == stored


async def test_a_second_writer_takes_the_file_over_and_the_first_is_told(parts: Parts) -> None:
    ingest = await parts.create(DATA)
    told = asyncio.Event()

    async def first() -> None:
        async with parts.uploads.receive(ingest.id, "model.gguf") as upload:
            assert isinstance(upload, UploadSession)
            upload.on_interrupt(told.set)
            await send_chunks(upload, DATA)
            holding.set()
            await told.wait()
            assert upload.interruption is not None
            raise upload.interruption

    holding = asyncio.Event()
    holder = asyncio.create_task(first())
    await holding.wait()
    assert (await parts.push(ingest, DATA)).state is FileState.STORED
    with pytest.raises(WriterSuperseded):
        await holder
    assert parts.blob(DATA) == DATA


async def test_a_writer_that_does_not_let_go_keeps_the_second_one_out_for_a_while_only(parts: Parts) -> None:
    parts.new_uploads(takeover_seconds=0.2)
    ingest = await parts.create(DATA)
    async with parts.uploads.receive(ingest.id, "model.gguf") as upload:
        await send_chunks(upload, DATA)
        with pytest.raises(WriterBusy):
            await parts.push(ingest, DATA)
    assert await check_resumable(parts, ingest, DATA, distrusted=True) == 0


async def test_no_more_uploads_at_once_than_allowed(parts: Parts) -> None:
    parts.new_uploads(max_uploads=1)
    one, two = await parts.create(DATA, "one"), await parts.create(DATA, "two")
    async with parts.uploads.receive(one.id, "model.gguf") as upload:
        await send_chunks(upload, DATA)
        with pytest.raises(TooManyUploads) as refused:
            await parts.push(two, DATA)
        assert refused.value.metadata == {"limit": "1"}
        # It cost the file that was refused nothing.
        assert (await parts.file(two)).state is FileState.PENDING
        await parts.uploads.finish(upload, digest(DATA))
    assert (await parts.push(two, DATA)).state is FileState.STORED


async def test_of_many_writers_at_once_each_is_stored_or_told_that_it_lost(parts: Parts) -> None:
    ingest = await parts.create(DATA)
    answers = await asyncio.gather(*(parts.push(ingest, DATA) for _ in range(12)), return_exceptions=True)
    lost = (WriterBusy, WriterSuperseded)
    refused = [answer for answer in answers if isinstance(answer, lost)]
    stored = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert len(refused) + len(stored) == 12
    assert stored
    assert {file.state for file in stored} == {FileState.STORED}
    assert parts.blob(DATA) == DATA


async def test_a_failed_file_takes_no_more_bytes(parts: Parts) -> None:
    ingest = await parts.create(DATA)
    with pytest.raises(DigestMismatch):
        await parts.push(ingest, DATA, sha256=digest(b"other"))
    failed = await parts.file(ingest)
    assert failed.failure is not None
    assert failed.failure.reason is Reason.DIGEST_MISMATCH
    assert failed.failure.metadata == {"expected": digest(b"other"), "actual": digest(DATA)}
    with pytest.raises(UploadClosed):
        await parts.push(ingest, DATA)
    assert parts.partials() == []
    assert parts.blob(DATA) is None


async def test_a_stream_that_ends_without_finish_is_no_completion_and_loses_nothing(parts: Parts) -> None:
    ingest = await parts.create(DATA)
    async with parts.uploads.receive(ingest.id, "model.gguf") as upload:
        await send_chunks(upload, DATA)
    assert await check_resumable(parts, ingest, DATA) == len(DATA)


async def test_a_cancelled_ingest_ends_its_upload_and_takes_its_partial_away(parts: Parts) -> None:
    parts.ingests.on_cancel(parts.uploads.cancelled)
    ingest = await parts.create(DATA)
    told = asyncio.Event()
    async with parts.uploads.receive(ingest.id, "model.gguf") as upload:
        assert isinstance(upload, UploadSession)
        upload.on_interrupt(told.set)
        await send_chunks(upload, DATA)
        await parts.ingests.cancel(ingest.id)
        await told.wait()
        assert isinstance(upload.interruption, UploadClosed)
    assert (await parts.ingests.get(ingest.id)).state is IngestState.CANCELLED
    assert parts.partials() == []


async def test_a_cancel_during_the_verification_wins(parts: Parts) -> None:
    gate = parts.hooks.before["hash"] = Gate()
    ingest = await parts.create(DATA)
    pushed = asyncio.create_task(parts.push(ingest, DATA))
    await eventually_in(parts, ingest.id, FileState.VERIFYING)
    await parts.ingests.cancel(ingest.id)
    gate.open()
    with pytest.raises(UploadClosed):
        await pushed
    assert (await parts.ingests.get(ingest.id)).state is IngestState.CANCELLED
    assert parts.partials() == []
    assert parts.blob(DATA) is None


async def test_a_drain_lets_uploads_end_and_then_ends_them(parts: Parts) -> None:
    ingest = await parts.create(DATA)
    async with parts.uploads.receive(ingest.id, "model.gguf") as upload:
        assert isinstance(upload, UploadSession)
        draining = asyncio.create_task(parts.uploads.drain(0.3))
        await asyncio.sleep(0)
        with pytest.raises(Draining):
            async with parts.uploads.receive(ingest.id, "model.gguf"):
                pass
        told = asyncio.Event()
        upload.on_interrupt(told.set)
        await draining
        assert told.is_set()
        assert isinstance(upload.interruption, Draining)
        await send_chunks(upload, DATA)
    await parts.uploads.close()
    parts.new_uploads()
    assert await check_resumable(parts, ingest, DATA) == len(DATA)


async def eventually_in(parts: Parts, ingest_id: str, state: FileState) -> None:
    async def reached() -> bool:
        return (await parts.ingests.get(ingest_id)).files[0].state is state

    await eventually(reached)

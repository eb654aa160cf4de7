"""From a new epoch to an open partial: what may have happened between the two, and under the lock.

Breaks when: bytes that nobody was told of stay behind the committed ones, a file is written that the path
does not lead to any more, or the row is not read again under the lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ingest_service.ingests.file_moves import FileMoves
from ingest_service.ingests.uploads import Uploads
from ingest_service.storage import LocalBlobStore, Sha256, posix
from ingest_service.vocabulary.errors import IngestError, StorageFailed, UploadClosed, WriterSuperseded
from ingest_service.vocabulary.records import File, Ingest
from ingest_service.vocabulary.states import FileState
from tests.ingests.parts import KIBIBYTE, Gate, Parts, clock, eventually, model_bytes, send_chunks
from tests.support.files import digest
from tests.support.formats import inspectors

pytestmark = pytest.mark.extended_when("postgresql")

DATA = model_bytes(50 * KIBIBYTE)
COMMITTED = 1000
OTHER = bytes(byte ^ 0xFF for byte in DATA)


async def killed_writer(parts: Parts, partial: bytes) -> tuple[Ingest, Path]:
    """An ingest whose writer, in a process that was killed, had 1000 bytes committed; its partial's path.

    The newcomer's process was not booted since, so nothing has been put right.
    """
    moves = FileMoves(parts.database, clock)
    ingest = await parts.create(DATA)
    _, file = await moves.begin(ingest.id, "model.gguf")
    await moves.checkpoint(file, COMMITTED)
    path = parts.data_dir / "uploads" / f"{file.id}.part"
    path.write_bytes(partial)
    return ingest, path


@asynccontextmanager
async def other_process(parts: Parts) -> AsyncIterator[Uploads]:
    """Uploads of another process on the same database and directory; no hook stops it."""
    store = LocalBlobStore(parts.data_dir, parts.executor)
    uploads = Uploads(
        parts.database,
        store,
        parts.limits,
        clock=clock,
        new_hasher=lambda: Sha256(parts.executor),
        new_inspector=inspectors(parts.executor),
    )
    yield uploads
    await uploads.close()


async def push_through(uploads: Uploads, ingest: Ingest) -> File:
    async with uploads.receive(ingest.id, "model.gguf") as upload:
        await send_chunks(upload, DATA)
        return await uploads.finish(upload, digest(DATA))


@pytest.mark.parametrize(
    "tail", [OTHER[COMMITTED:], OTHER[COMMITTED:] + b"longer than the file"], ids=["same length", "longer"]
)
async def test_no_byte_of_a_killed_writer_that_was_not_committed_gets_into_the_file(
    parts_on_sqlite: Parts, tail: bytes
) -> None:
    ingest, _ = await killed_writer(parts_on_sqlite, DATA[:COMMITTED] + tail)
    assert (await parts_on_sqlite.push(ingest, DATA)).state is FileState.STORED
    # The digest is that of the bytes that were received; a tail behind them would not be in it.
    assert parts_on_sqlite.blob(DATA) == DATA


async def test_no_byte_of_a_killed_writer_stays_behind_those_of_a_newcomer_that_brings_fewer(
    parts_on_sqlite: Parts,
) -> None:
    ingest, path = await killed_writer(parts_on_sqlite, DATA[:COMMITTED] + OTHER[COMMITTED:])
    async with parts_on_sqlite.uploads.receive(ingest.id, "model.gguf") as upload:
        await send_chunks(upload, DATA[: COMMITTED + 500])
    assert path.read_bytes() == DATA[: COMMITTED + 500]
    assert (await parts_on_sqlite.file(ingest)).committed_size == COMMITTED + 500


async def test_committed_bytes_that_are_gone_are_not_made_up(parts_on_sqlite: Parts) -> None:
    ingest, _ = await killed_writer(parts_on_sqlite, DATA[: COMMITTED - 1])
    with pytest.raises(StorageFailed):
        await parts_on_sqlite.push(ingest, DATA)
    assert (await parts_on_sqlite.file(ingest)).state is FileState.FAILED
    assert parts_on_sqlite.blob(DATA) is None


def between_open_and_lock(monkeypatch: pytest.MonkeyPatch, path: Path, happens: Callable[[], None]) -> None:
    """`happens` runs once, after the partial at `path` was opened and before its lock is taken."""
    real, pending = posix.try_lock, [happens]

    def try_lock(descriptor: int) -> bool:
        if pending and path.exists() and posix.is_same_file(descriptor, path):
            pending.pop()()
        return real(descriptor)

    monkeypatch.setattr(posix, "try_lock", try_lock)


async def test_a_partial_that_was_replaced_before_its_lock_was_taken_is_not_written(
    parts_on_sqlite: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest, path = await killed_writer(parts_on_sqlite, DATA[:COMMITTED])

    def replace() -> None:
        path.unlink()
        path.write_bytes(DATA[:COMMITTED])

    between_open_and_lock(monkeypatch, path, replace)
    assert (await parts_on_sqlite.push(ingest, DATA)).state is FileState.STORED
    assert parts_on_sqlite.blob(DATA) == DATA


async def test_a_new_partial_that_was_removed_before_its_lock_was_taken_is_not_written(
    parts_on_sqlite: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest = await parts_on_sqlite.create(DATA)
    path = parts_on_sqlite.data_dir / "uploads" / f"{ingest.files[0].id}.part"
    between_open_and_lock(monkeypatch, path, path.unlink)
    assert (await parts_on_sqlite.push(ingest, DATA)).state is FileState.STORED
    assert parts_on_sqlite.blob(DATA) == DATA


async def taken_meanwhile(parts: Parts, ingest: Ingest) -> type[IngestError]:
    await FileMoves(parts.database, clock).begin(ingest.id, "model.gguf")
    return WriterSuperseded


async def cancelled_meanwhile(parts: Parts, ingest: Ingest) -> type[IngestError]:
    await parts.ingests.cancel(ingest.id)
    return UploadClosed


@pytest.mark.parametrize("meanwhile", [taken_meanwhile, cancelled_meanwhile])
async def test_the_row_is_read_again_under_the_lock(
    parts: Parts,
    meanwhile: Callable[[Parts, Ingest], asyncio.Future[type[IngestError]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Not while it waits, which would do on a slow machine.
    monkeypatch.setattr("ingest_service.ingests.takeover._LOOK_SECONDS", 3600.0)
    kept = DATA[:COMMITTED] + OTHER[COMMITTED:2000]
    ingest, path = await killed_writer(parts, kept)
    holder = await LocalBlobStore(parts.data_dir, parts.executor).open_partial(ingest.files[0].id)
    assert holder is not None
    newcomer = asyncio.create_task(parts.push(ingest, DATA))
    # It has its epoch, and has found the partial locked.
    await eventually(lambda: parts.hooks.calls["open_partial"] >= 2)
    error = await meanwhile(parts, ingest)
    await holder.close()
    with pytest.raises(error):
        await newcomer
    # Not a byte was touched, not even cut off: they are another's now.
    assert path.read_bytes() == kept


@pytest.mark.parametrize("meanwhile", [taken_meanwhile, cancelled_meanwhile])
async def test_who_is_overtaken_while_it_waits_is_told_so_although_the_lock_stays_taken(
    parts: Parts, meanwhile: Callable[[Parts, Ingest], asyncio.Future[type[IngestError]]]
) -> None:
    """After WRITER_BUSY its client would come back, and take the file from the one who came last."""
    ingest, _ = await killed_writer(parts, DATA[:COMMITTED])
    holder = await LocalBlobStore(parts.data_dir, parts.executor).open_partial(ingest.files[0].id)
    assert holder is not None
    newcomer = asyncio.create_task(parts.push(ingest, DATA))
    await eventually(lambda: parts.hooks.calls["open_partial"] >= 2)
    with pytest.raises(await meanwhile(parts, ingest)):
        await newcomer
    await holder.close()


@pytest.mark.parametrize("stands_at", ["open_partial", "create_partial"])
async def test_a_newcomer_that_finds_the_file_finished_by_another_leaves_no_partial_behind(
    parts: Parts, stands_at: str
) -> None:
    ingest = await parts.create(DATA)
    gate = parts.hooks.before[stands_at] = Gate()
    newcomer = asyncio.create_task(parts.push(ingest, DATA))
    await gate.reached.wait()
    async with other_process(parts) as other:
        assert (await push_through(other, ingest)).state is FileState.STORED
    gate.open()
    with pytest.raises(WriterSuperseded):
        await newcomer
    # It looks at the row before it makes one; only who was past that look has to take it away again.
    assert parts.hooks.calls["create_partial"] == (1 if stands_at == "create_partial" else 0)
    assert parts.partials() == []
    assert parts.blob(DATA) == DATA


async def test_a_newcomer_leaves_the_partial_of_one_who_came_after_it_alone(parts: Parts) -> None:
    ingest = await parts.create(DATA)
    gate = parts.hooks.before["open_partial"] = Gate()
    newcomer = asyncio.create_task(parts.push(ingest, DATA))
    await gate.reached.wait()
    async with other_process(parts) as other:
        async with other.receive(ingest.id, "model.gguf") as upload:
            await send_chunks(upload, DATA[:2000])
        gate.open()
        with pytest.raises(WriterSuperseded):
            await newcomer
        assert parts.kept(ingest.files[0]) == DATA[:2000]
        assert (await push_through(other, ingest)).state is FileState.STORED

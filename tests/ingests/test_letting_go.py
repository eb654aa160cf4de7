"""What is still under way when a partial, a lock or a place is let go of."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from ingest_service.database import Database
from ingest_service.ingests.recovery import Recovery
from ingest_service.ingests.session import UploadSession
from ingest_service.storage import FileExecutor, LocalBlobStore, posix
from ingest_service.vocabulary.errors import StorageFailed, TooManyUploads
from ingest_service.vocabulary.records import Ingest
from ingest_service.vocabulary.states import FileState
from tests.ingests.parts import KIBIBYTE, Parts, clock, eventually, model_bytes, raising, send_chunks
from tests.support.files import digest
from tests.support.formats import vetting

DATA = model_bytes(300 * KIBIBYTE)
PART = 64 * KIBIBYTE


async def test_no_checkpoint_is_recorded_after_the_partial_was_let_go_of(
    parts_on_sqlite: Parts, tmp_path: Path
) -> None:
    parts = parts_on_sqlite
    parts.new_uploads(checkpoint_seconds=0.05)
    ingest = await parts.create(DATA)
    other = sqlite3.connect(tmp_path / "test.db", isolation_level=None)
    with contextlib.suppress(StorageFailed):
        async with parts.uploads.receive(ingest.id, "model.gguf") as upload:
            assert isinstance(upload, UploadSession)
            await send_chunks(upload, DATA[:PART])
            other.execute("BEGIN IMMEDIATE")
            calls = parts.hooks.calls["transact"]
            # It is synced, and its row waits for the database.
            await eventually(lambda: parts.hooks.calls["transact"] > calls)
            await asyncio.sleep(0.1)
            parts.hooks.before["write"] = raising(StorageFailed("EIO"))
            await upload.chunk(PART, DATA[PART : 2 * PART], None)
            await asyncio.sleep(0.1)
            await upload.chunk(2 * PART, DATA[2 * PART : 3 * PART], None)
    parts.hooks.clear()
    second = Database(f"sqlite+aiosqlite:///{tmp_path / 'test.db'}")
    await Recovery(second, parts.local, vetting(second, parts.local, parts.executor), clock=clock).at_boot()
    await second.close()
    other.execute("COMMIT")
    other.close()
    await eventually(lambda: not parts.uploads._background)
    file = await parts.file(ingest)
    assert len(parts.kept(file)) >= file.committed_size


async def test_a_partial_that_an_earlier_call_made_gets_its_name_synced(
    parts_on_sqlite: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, synced, sync = parts_on_sqlite, list[Path](), posix.sync_directory

    def noted(path: Path) -> None:
        synced.append(path)
        sync(path)

    monkeypatch.setattr(posix, "sync_directory", noted)
    ingest = await parts.create(DATA)
    async with parts.uploads.receive(ingest.id, "model.gguf"):
        pass
    async with parts.uploads.receive(ingest.id, "model.gguf") as upload:
        await send_chunks(upload, DATA[: 2 * PART])
    assert (await parts.file(ingest)).committed_size == 2 * PART
    assert parts.data_dir / "uploads" in synced


async def test_a_removal_that_is_cancelled_keeps_its_lock_until_its_thread_is_done(
    parts_on_sqlite: Parts,
) -> None:
    parts, gate, threads = parts_on_sqlite, threading.Event(), FileExecutor(1)
    await parts.push(await parts.create(DATA), DATA)
    store = LocalBlobStore(parts.data_dir, threads)

    async def unwanted() -> bool:
        threads.submit(gate.wait)
        return True

    removing = asyncio.create_task(store.remove_blob(digest(DATA), unwanted))
    await asyncio.sleep(0.2)
    removing.cancel()
    # Another process publishes the same bytes; what was queued is done only then, or before.
    publishing = asyncio.create_task(parts.push(await parts.create(DATA, "second"), DATA))
    await asyncio.wait({publishing}, timeout=1.0)
    gate.set()
    assert (await publishing).state is FileState.STORED
    with contextlib.suppress(asyncio.CancelledError):
        await removing
    await asyncio.to_thread(threads.close)
    assert parts.blob(DATA) == DATA


async def test_calls_of_one_moment_do_not_slip_past_the_limit(parts_on_sqlite: Parts) -> None:
    parts, done, outcomes = parts_on_sqlite, asyncio.Event(), list[str]()
    parts.new_uploads(max_uploads=2)
    ingests = [await parts.create(DATA, f"m{number}") for number in range(10)]

    async def call(ingest: Ingest) -> None:
        try:
            async with parts.uploads.receive(ingest.id, "model.gguf"):
                outcomes.append("taken")
                await done.wait()
        except TooManyUploads:
            outcomes.append("refused")

    calls = [asyncio.create_task(call(ingest)) for ingest in ingests]
    await eventually(lambda: len(outcomes) == len(calls))
    done.set()
    await asyncio.gather(*calls)
    assert sorted(outcomes) == ["refused"] * 8 + ["taken"] * 2


async def test_room_for_an_upload_that_was_opened_and_brought_no_byte_is_not_kept_for_ever(
    parts_on_sqlite: Parts,
) -> None:
    ingest = await parts_on_sqlite.create(DATA)
    async with parts_on_sqlite.uploads.receive(ingest.id, "model.gguf"):
        pass
    now = clock()

    async def reserved(since_seconds: float) -> int:
        since = now + timedelta(seconds=since_seconds)
        return await parts_on_sqlite.database.read(lambda tx: tx.files.reserved_bytes(since, clock()))

    assert (await reserved(-600), await reserved(1)) == (len(DATA), 0)

"""A file that somebody writes to, replaces or removes while it is taken in, and calls that end it early.

Breaks when: bytes of two moments are stored as one file, a published blob can still be written to, or a file
is lost together with the ingest that was to take it in.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from model_ingest.v1 import errors_pb2, resources_pb2
from model_ingest.v1.ingest_service_pb2 import CancelIngestRequest

from ingest_service.ingests import pipeline
from ingest_service.ingests.session import UploadSession
from ingest_service.ingests.taking_in import TakingIn
from ingest_service.ingests.uploads import Uploads
from ingest_service.storage import ImportFolder
from ingest_service.storage.hashing import Sha256
from tests.conftest import StartService
from tests.imports.folder import (
    blob,
    boot_is_over,
    check_taken_in,
    claims,
    drop,
    ended,
    import_file,
    imported,
    ingests,
)
from tests.support.files import MEBIBYTE, gguf, stored_blobs
from tests.support.service import RunningService

DATA = gguf(2 * MEBIBYTE + 5)
OTHER = gguf(2 * MEBIBYTE + 5, seed=1)
FAILED = resources_pb2.Ingest.STATE_FAILED
Meddle = Callable[[Path], None]


@pytest.fixture
async def storing(start_service: StartService) -> RunningService:
    running: RunningService = await start_service(import_at_boot="false")
    return running


class Gate:
    """Holds the import at one step until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    def before(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        real: Callable[..., Awaitable[object]] = getattr(owner, name)

        async def held(*arguments: object) -> object:
            self.reached.set()
            await self.opened.wait()
            return await real(*arguments)

        monkeypatch.setattr(owner, name, held)

    async def until_reached(self) -> None:
        async with asyncio.timeout(60):
            await self.reached.wait()


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """All bytes are here and hashed; whether they are still the file's is not looked at yet."""
    gate = Gate()
    gate.before(monkeypatch, TakingIn, "_check_unchanged")
    return gate


@pytest.fixture
def finishing(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """The last look was fine; the bytes are not published yet."""
    gate = Gate()
    gate.before(monkeypatch, Uploads, "finish")
    return gate


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(MEBIBYTE)
        file.write(b"other bytes")


def shorten(path: Path) -> None:
    os.truncate(path, MEBIBYTE)


@pytest.mark.extended_unless("grow-copied")
@pytest.mark.parametrize("copied", [False, True], ids=["shared", "copied"])
@pytest.mark.parametrize("meddle", [grow, overwrite, shorten])
async def test_a_file_that_is_written_to_meanwhile_fails_and_lies_there_as_it_is(
    storing: RunningService, tmp_path: Path, hashed: Gate, meddle: Meddle, copied: bool
) -> None:
    path = drop(tmp_path / "data", DATA, age_seconds=0 if copied else 60)
    ingest = await import_file(storing)
    await hashed.until_reached()
    meddle(path)
    changed = path.read_bytes()
    hashed.opened.set()
    ingest = await ended(storing, ingest)
    assert (ingest.state, ingest.failure.reason) == (FAILED, errors_pb2.SIZE_MISMATCH)
    assert path.read_bytes() == changed
    assert path.stat().st_nlink == 1
    assert stored_blobs(tmp_path / "data") == []


async def test_a_shared_file_that_somebody_has_opened_for_writing_is_not_published(
    storing: RunningService, tmp_path: Path, hashed: Gate
) -> None:
    path = drop(tmp_path / "data", DATA)
    ingest = await import_file(storing)
    await hashed.until_reached()
    with path.open("r+b"):
        hashed.opened.set()
        assert (await ended(storing, ingest)).state == FAILED
    assert path.read_bytes() == DATA


@pytest.mark.extended_unless("shared")
@pytest.mark.parametrize("copied", [False, True], ids=["shared", "copied"])
async def test_another_file_in_its_place_is_left_there_and_the_first_is_stored(
    storing: RunningService, tmp_path: Path, hashed: Gate, copied: bool
) -> None:
    path = drop(tmp_path / "data", DATA, age_seconds=0 if copied else 60)
    ingest = await import_file(storing)
    await hashed.until_reached()
    drop(tmp_path / "data", OTHER, "new").rename(path)
    hashed.opened.set()
    assert (await ended(storing, ingest)).state == resources_pb2.Ingest.STATE_STORED
    assert path.read_bytes() == OTHER
    assert blob(tmp_path / "data", DATA).read_bytes() == DATA


async def test_a_file_that_is_removed_meanwhile_is_stored(
    storing: RunningService, tmp_path: Path, hashed: Gate
) -> None:
    path = drop(tmp_path / "data", DATA)
    ingest = await import_file(storing)
    await hashed.until_reached()
    path.unlink()
    hashed.opened.set()
    assert (await ended(storing, ingest)).state == resources_pb2.Ingest.STATE_STORED
    check_taken_in(tmp_path / "data", DATA)


async def test_a_cancel_gives_the_file_back(storing: RunningService, tmp_path: Path, finishing: Gate) -> None:
    path = drop(tmp_path / "data", DATA)
    ingest = await import_file(storing)
    await finishing.until_reached()
    # It is out of everybody's reach by now.
    assert not path.exists()
    await storing.ingests.CancelIngest(CancelIngestRequest(name=ingest.name))
    finishing.opened.set()
    assert (await ended(storing, ingest)).state == resources_pb2.Ingest.STATE_CANCELLED
    assert path.read_bytes() == DATA
    assert path.stat().st_nlink == 1


async def test_a_file_that_is_given_back_replaces_none(
    storing: RunningService, tmp_path: Path, finishing: Gate
) -> None:
    path = drop(tmp_path / "data", DATA)
    ingest = await import_file(storing)
    await finishing.until_reached()
    drop(tmp_path / "data", OTHER)
    await storing.ingests.CancelIngest(CancelIngestRequest(name=ingest.name))
    finishing.opened.set()
    await ended(storing, ingest)
    assert path.read_bytes() == OTHER
    (given_back,) = set(path.parent.iterdir()) - {path}
    assert given_back.read_bytes() == DATA


async def test_a_cancel_while_it_is_hashed_ends_it_at_once(
    storing: RunningService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = Gate()
    path = drop(tmp_path / "data", DATA)
    real = storing.service.uploads._new_hasher

    class Slow:
        hashed_bytes = 0

        async def update(self, buffers: list[bytes]) -> None:
            never.reached.set()
            await never.opened.wait()

        async def settle(self) -> None:
            pass

        def digest(self) -> str:
            raise AssertionError

    monkeypatch.setattr(storing.service.uploads, "_new_hasher", Slow)
    ingest = await import_file(storing)
    await never.until_reached()
    await storing.ingests.CancelIngest(CancelIngestRequest(name=ingest.name))
    assert (await ended(storing, ingest)).state == resources_pb2.Ingest.STATE_CANCELLED
    assert path.read_bytes() == DATA
    # The file can be imported anew.
    monkeypatch.setattr(storing.service.uploads, "_new_hasher", real)
    await imported(storing)
    check_taken_in(tmp_path / "data", DATA)


@pytest.mark.extended_unless("copied")
@pytest.mark.parametrize("copied", [False, True], ids=["shared", "copied"])
async def test_a_stop_leaves_it_to_the_next_boot(
    start_service: StartService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: bool
) -> None:
    first = await start_service(import_at_boot="false")
    gate = Gate()
    with monkeypatch.context() as patch:
        gate.before(patch, UploadSession, "complete" if not copied else "chunk")
        gate.before(patch, TakingIn, "_check_unchanged")
        path = drop(tmp_path / "data", DATA, age_seconds=0 if copied else 60)
        ingest = await import_file(first)
        await gate.until_reached()
        await first.service.stop(0.0)
    assert path.read_bytes() == DATA
    assert claims(tmp_path / "data") != []
    second = await start_service(import_at_boot="false")
    await boot_is_over(second)
    after = await ended(second, ingest)
    assert after.state == resources_pb2.Ingest.STATE_STORED
    assert [one.name for one in await ingests(second)] == [ingest.name]
    check_taken_in(tmp_path / "data", DATA)


async def test_a_stop_while_it_is_let_go_of_closes_each_descriptor_once(
    storing: RunningService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, opened, not_open = threading.Event(), threading.Event(), []
    real_remove, real_close = ImportFolder._remove_source, os.close

    def held(*arguments: Any) -> None:
        reached.set()
        opened.wait(60)
        real_remove(*arguments)

    def close(descriptor: int) -> None:
        try:
            real_close(descriptor)
        except OSError:
            not_open.append(descriptor)
            raise

    monkeypatch.setattr(ImportFolder, "_remove_source", held)
    monkeypatch.setattr(os, "close", close)
    path = drop(tmp_path / "data", DATA)
    await import_file(storing)
    assert await asyncio.to_thread(reached.wait, 60)
    (task,) = storing.service.imports._tasks
    stopping = asyncio.create_task(storing.service.imports.stop())
    async with asyncio.timeout(60):
        while not task.cancelling():
            await asyncio.sleep(0)
    opened.set()
    await stopping
    await storing.service.stop(0.0)  # what still runs in threads has ended now
    assert not_open == []
    assert not path.exists()
    assert claims(tmp_path / "data") == []


def adopted(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """All bytes are committed without a copy; nobody has read them yet."""
    gate = Gate()
    real = TakingIn._adopt

    async def held(*arguments: Any) -> None:
        await real(*arguments)
        gate.reached.set()
        await gate.opened.wait()

    monkeypatch.setattr(TakingIn, "_adopt", held)
    return gate


def hashing(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """The first of many batches was read, and is being hashed."""
    gate = Gate()
    monkeypatch.setattr(pipeline, "_BATCH_BYTES", MEBIBYTE // 4)
    gate.before(monkeypatch, Sha256, "update")
    return gate


@pytest.mark.extended_unless("hashing-shorten")
@pytest.mark.parametrize("meddle", [shorten, grow, overwrite])
@pytest.mark.parametrize("held", [adopted, hashing])
async def test_a_shared_file_that_is_written_to_before_it_is_hashed_ends_the_same(
    storing: RunningService,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    held: Callable[[pytest.MonkeyPatch], Gate],
    meddle: Meddle,
) -> None:
    gate = held(monkeypatch)
    path = drop(tmp_path / "data", DATA)
    ingest = await import_file(storing)
    await gate.until_reached()
    meddle(path)
    changed = path.read_bytes()
    gate.opened.set()
    check_changed(await ended(storing, ingest), path, changed)


@pytest.mark.extended_unless("shorten")
@pytest.mark.parametrize("meddle", [shorten, grow, overwrite])
async def test_a_shared_file_that_is_written_to_while_the_service_is_down_ends_the_same(
    start_service: StartService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meddle: Meddle
) -> None:
    first = await start_service(import_at_boot="false")
    with monkeypatch.context() as patch:
        gate = adopted(patch)
        path = drop(tmp_path / "data", DATA)
        ingest = await import_file(first)
        await gate.until_reached()
        await first.service.stop(0.0)
    meddle(path)
    changed = path.read_bytes()
    second = await start_service(import_at_boot="false")
    await boot_is_over(second)
    check_changed(await ended(second, ingest), path, changed)


def check_changed(ingest: resources_pb2.Ingest, path: Path, content: bytes) -> None:
    """It failed for what it is, and the file is its owner's as it is, by one name."""
    assert (ingest.state, ingest.failure.reason) == (FAILED, errors_pb2.SIZE_MISMATCH)
    assert path.read_bytes() == content
    assert path.stat().st_nlink == 1
    assert claims(path.parent.parent) == []

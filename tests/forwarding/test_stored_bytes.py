"""What is wrong with our own copy is found out before a target uses it, and said as BLOB_CORRUPT."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from ingest_service.storage import BlobReader
from ingest_service.vocabulary.errors import StorageFailed
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.records import Ingest
from tests.forwarding.world import World, calls
from tests.ollama_emulator import OllamaEmulator
from tests.support.files import MEBIBYTE, digest, gguf

DATA = gguf(5 * MEBIBYTE)


async def forwarded_after(world: World, damage: str) -> Ingest:
    ingest_id = await world.stored(DATA)
    path = world.blob_path(DATA)
    if damage == "a flipped byte":
        with path.open("r+b") as file:
            file.seek(3 * MEBIBYTE)
            byte = file.read(1)[0]
            file.seek(3 * MEBIBYTE)
            file.write(bytes([byte ^ 1]))
    elif damage == "too short":
        os.truncate(path, len(DATA) - 1)
    elif damage == "too long":
        with path.open("ab") as file:
            file.write(b"x")
    else:
        path.unlink()
    world.worker()
    return await world.done(ingest_id)


@pytest.mark.extended_unless("a flipped byte", "not there")
@pytest.mark.parametrize("damage", ["a flipped byte", "too short", "too long", "not there"])
async def test_corrupt_stored_bytes_fail_the_deployment_without_a_create(
    world: World, emulator: OllamaEmulator, damage: str
) -> None:
    ingest = await forwarded_after(world, damage)
    assert ingest.failure is not None
    assert ingest.failure.reason is Reason.BLOB_CORRUPT
    assert await world.states(ingest.id) == "PUSHING FAILED"
    expected = "version head post" if damage == "a flipped byte" else "version head"
    assert calls(emulator) == expected
    assert digest(DATA) not in emulator.blobs


class _Reader:
    """Reads a part, then does something else."""

    def __init__(self, reader: BlobReader, *, fails: bool) -> None:
        self._reader = reader
        self._fails = fails

    @property
    def size_bytes(self) -> int:
        return self._reader.size_bytes

    async def read(self, offset: int, size_bytes: int) -> bytes:
        if offset < 3 * MEBIBYTE:
            return await self._reader.read(offset, size_bytes)
        if self._fails:
            raise StorageFailed("/secret/path: Input/output error")
        return b""


def _broken(world: World, times: int, *, fails: bool) -> None:
    """The store's next readers break in mid-blob, so many times."""
    real = world.store.open_blob
    left = [times]

    def open_blob(sha256: str) -> AbstractAsyncContextManager[BlobReader]:
        @asynccontextmanager
        async def opened() -> AsyncIterator[BlobReader]:
            async with real(sha256) as reader:
                left[0] -= 1
                yield _Reader(reader, fails=fails) if left[0] >= 0 else reader

        return opened()

    world.store.open_blob = open_blob  # type: ignore[method-assign,assignment]


async def test_bytes_that_end_early_while_they_are_sent_are_corrupt(
    world: World, emulator: OllamaEmulator
) -> None:
    _broken(world, 1, fails=False)
    ingest = await world.forwarded(DATA)
    assert ingest.failure is not None
    assert ingest.failure.reason is Reason.BLOB_CORRUPT
    assert calls(emulator) == "version head post"
    assert digest(DATA) not in emulator.blobs


async def test_a_read_error_is_tried_again(world: World, emulator: OllamaEmulator) -> None:
    _broken(world, 3, fails=True)
    ingest = await world.forwarded(DATA)
    assert ingest.deployments[0].failure is None
    assert await world.states(ingest.id) == "PUSHING PENDING PUSHING CREATING READY"
    assert emulator.blobs.read(digest(DATA)) == DATA


async def test_a_lasting_read_error_ends_as_storage_failed_in_our_words(world: World) -> None:
    _broken(world, 1000, fails=True)
    ingest = await world.forwarded(DATA, retry_seconds=0.1)
    assert ingest.failure is not None
    assert ingest.failure.reason is Reason.STORAGE_FAILED
    assert ingest.failure.message == "The stored bytes cannot be read right now."

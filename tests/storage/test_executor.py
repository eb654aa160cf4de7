"""The pool of threads: nothing that was submitted is lost or torn away when its caller is cancelled."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from ingest_service.storage import FileExecutor, LocalBlobStore, Sha256
from tests.storage.conformance import ID, digest


async def test_a_call_whose_caller_is_cancelled_runs_to_its_end(executor: FileExecutor) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        begun.set()
        assert go_on.wait(30)
        ended.set()

    task = asyncio.create_task(executor.run(call))
    while not begun.is_set():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not ended.is_set()
    go_on.set()
    assert await asyncio.to_thread(ended.wait, 30)


@pytest.mark.parametrize("late", [False, True])
async def test_a_descriptor_that_nobody_waits_for_any_more_is_closed(
    executor: FileExecutor, tmp_path: Path, late: bool
) -> None:
    go_on = threading.Event()
    opened: list[int] = []

    def call() -> int:
        assert go_on.wait(30)
        opened.append(os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT))
        return opened[0]

    task = asyncio.create_task(executor.open(call))
    await asyncio.sleep(0)
    if late:
        # The answer is there, and the cancel comes before its caller has run.
        go_on.set()
        while not opened:
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    async with asyncio.timeout(30):
        while not opened or Path(f"/proc/self/fd/{opened[0]}").exists():
            await asyncio.sleep(0)


async def test_a_failed_open_whose_caller_is_cancelled_is_no_noise(executor: FileExecutor) -> None:
    go_on = threading.Event()

    def call() -> int:
        assert go_on.wait(30)
        raise OSError(5, "I/O error")

    task = asyncio.create_task(executor.open(call))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    # An exception that nobody asks for would be a warning, and warnings are errors here.
    await executor.run(lambda: None)


async def test_closing_a_partial_waits_for_a_write_whose_caller_is_gone(
    store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the write could go into whatever file gets the same descriptor next."""
    begun, go_on = threading.Event(), threading.Event()
    real = os.pwritev

    def slow(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
        begun.set()
        assert go_on.wait(30)
        return real(descriptor, buffers, offset)

    partial = await store.create_partial(ID)
    monkeypatch.setattr(os, "pwritev", slow)
    write = asyncio.create_task(partial.write(0, [b"model"]))
    while not begun.is_set():
        await asyncio.sleep(0)
    write.cancel()
    with pytest.raises(asyncio.CancelledError):
        await write
    closing = asyncio.create_task(partial.close())
    for _ in range(50):
        await asyncio.sleep(0)
    assert not closing.done()
    go_on.set()
    await closing
    kept = await store.open_partial(ID)
    assert kept is not None
    assert await kept.size_bytes() == 5
    await kept.close()


async def test_a_digest_is_of_all_bytes_in_their_order(executor: FileExecutor) -> None:
    hasher = Sha256(executor)
    assert hasher.digest() == digest(b"")
    await hasher.update([b"one", b"two"])
    await hasher.update([])
    await hasher.update([memoryview(b"three")])
    assert hasher.digest() == digest(b"onetwothree")

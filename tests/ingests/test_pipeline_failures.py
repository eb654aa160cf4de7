"""Whatever breaks is told to whoever asks next, and nothing is held afterwards."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from ingest_service.ingests import slabs
from ingest_service.ingests.pipeline import ChunkPipeline
from ingest_service.storage import FileExecutor
from ingest_service.vocabulary.errors import BackendDown, StorageFailed, StorageFull
from tests.ingests.parts import Gate, eventually, raising
from tests.ingests.rig import new_rig

ERRORS = {
    "write": StorageFull(),
    "hash": RuntimeError("out of memory"),
    "sync": StorageFailed(),
    "on_checkpoint": BackendDown(),
}


async def put_until_it_fails(pipeline: ChunkPipeline) -> None:
    while True:
        await pipeline.put(bytes(100))


@pytest.mark.parametrize("place", ERRORS)
@pytest.mark.parametrize("asked", ["put", "drain", "checkpoint"])
async def test_a_failure_is_told_to_whoever_asks_next(
    tmp_path: Path, executor: FileExecutor, place: str, asked: str
) -> None:
    rig = await new_rig(tmp_path, executor, window_bytes=1000, checkpoint_bytes=500)
    rig.hooks.before[place] = raising(ERRORS[place])
    pipeline, _ = await rig.pipeline()
    with pytest.raises(type(ERRORS[place])):
        await put_until_it_fails(pipeline)
    with pytest.raises(type(ERRORS[place])):
        await (pipeline.put(b"x") if asked == "put" else getattr(pipeline, asked)())
    await pipeline.close()
    assert rig.budget.held_bytes == 0
    assert rig.committed == []


@pytest.mark.parametrize("place", ["write", "hash"])
@pytest.mark.parametrize("asked", ["put", "drain"])
async def test_a_failure_wakes_who_waits_for_the_window(
    tmp_path: Path, executor: FileExecutor, place: str, asked: str
) -> None:
    rig = await new_rig(tmp_path, executor, window_bytes=1000)
    gate = Gate()

    async def stall_then_fail() -> None:
        await gate()
        raise StorageFailed

    rig.hooks.before[place] = stall_then_fail
    pipeline, _ = await rig.pipeline()
    await pipeline.put(bytes(1000))
    waiting = asyncio.ensure_future(pipeline.put(b"x") if asked == "put" else pipeline.drain())
    await gate.reached.wait()
    gate.open()
    with pytest.raises(StorageFailed):
        async with asyncio.timeout(30):
            await waiting
    await pipeline.close()


async def test_a_failure_wakes_who_waits_for_bytes_that_other_uploads_hold(
    tmp_path: Path, executor: FileExecutor
) -> None:
    """All uploads fail together when the disk is full: each waits for what another one holds."""
    rig = await new_rig(tmp_path, executor, budget_bytes=1000, window_bytes=1000)
    gate = Gate()

    async def stall_then_fail() -> None:
        await gate()
        raise StorageFull

    rig.hooks.before["write"] = stall_then_fail
    pipelines = [(await rig.pipeline())[0] for _ in range(3)]
    for pipeline in pipelines:
        await pipeline.put(bytes(300))
    waiting = [asyncio.create_task(pipeline.put(bytes(300))) for pipeline in pipelines]
    await gate.reached.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    gate.open()
    for task in waiting:
        with pytest.raises(StorageFull):
            async with asyncio.timeout(30):
                await task
    for pipeline in pipelines:
        await pipeline.close()
    assert rig.budget.held_bytes == 0


async def test_the_first_failure_is_the_one_that_is_told(tmp_path: Path, executor: FileExecutor) -> None:
    """A full disk must not turn into a broken one because a sync was asked of the poisoned partial later."""
    rig = await new_rig(tmp_path, executor, checkpoint_bytes=1)
    gate = Gate()

    async def stall_then_fail() -> None:
        await gate()
        raise StorageFailed

    pipeline, _ = await rig.pipeline()
    rig.hooks.before["sync"] = stall_then_fail
    await pipeline.put(b"x")
    await gate.reached.wait()
    rig.hooks.before["write"] = raising(StorageFull())
    with pytest.raises(StorageFull):
        await put_until_it_fails(pipeline)
    gate.open()
    await eventually(pipeline._tasks[2].done)
    with pytest.raises(StorageFull):
        await pipeline.put(b"x")
    await pipeline.close()


async def test_a_cancelled_put_holds_nothing(tmp_path: Path, executor: FileExecutor) -> None:
    rig = await new_rig(tmp_path, executor, budget_bytes=1000, window_bytes=2000)
    rig.hooks.before["write"] = Gate()
    first, _ = await rig.pipeline()
    second, _ = await rig.pipeline()
    await first.put(bytes(900))
    waiting = asyncio.create_task(second.put(bytes(200)))
    for _ in range(5):
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert second.received_bytes == 0
    await second.close()
    assert rig.budget.held_bytes == 900
    await first.close()
    assert rig.budget.held_bytes == 0


async def test_close_waits_for_the_write_that_the_system_is_doing(
    tmp_path: Path, executor: FileExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    real = os.pwritev

    def slow(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
        begun.set()
        assert go_on.wait(30)
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "pwritev", slow)
    rig = await new_rig(tmp_path, executor)
    pipeline, partial = await rig.pipeline()
    await pipeline.put(bytes(100))
    await eventually(begun.is_set)
    closing = asyncio.create_task(pipeline.close())
    await eventually(lambda: rig.hooks.calls["close"] == 1)
    for _ in range(50):
        await asyncio.sleep(0)
    assert not closing.done()
    go_on.set()
    await closing
    assert rig.budget.held_bytes == 0
    kept = await rig.store.open_partial(partial.partial_id)
    assert kept is not None
    assert await kept.size_bytes() == 100
    await kept.close()


async def test_close_may_be_repeated(tmp_path: Path, executor: FileExecutor) -> None:
    rig = await new_rig(tmp_path, executor)
    rig.hooks.before["write"] = Gate()
    pipeline, _ = await rig.pipeline()
    await pipeline.put(bytes(100))
    await pipeline.close()
    await pipeline.close()
    assert rig.budget.held_bytes == 0


async def test_without_memory_the_call_ends_and_the_next_one_goes_on(
    tmp_path: Path, executor: FileExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was taken in before is written, made durable and told; nothing is waited for that cannot come."""
    rig = await new_rig(tmp_path, executor)
    pipeline, partial = await rig.pipeline()
    await pipeline.put(b"x" * 1000)

    def fails(size_bytes: int) -> slabs.Slab:
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr(slabs, "Slab", fails)
    with pytest.raises(BackendDown):
        await pipeline.put(bytes(2**20))
    async with asyncio.timeout(30):
        await pipeline.suspend()
    assert rig.committed == [1000]
    assert await partial.read(0, 2000) == b"x" * 1000
    await pipeline.close()
    assert rig.budget.held_bytes == 0

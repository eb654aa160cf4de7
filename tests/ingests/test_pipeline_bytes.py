"""Whatever way the bytes are cut, the file and its digest are right, and the window and the budget hold."""

from __future__ import annotations

import asyncio
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_service.ingests import pipeline as pipeline_module
from ingest_service.storage import FileExecutor
from tests.ingests.parts import Gate
from tests.ingests.rig import new_rig
from tests.support.files import digest


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """The data in pieces of these sizes, and the rest."""
    parts = []
    for size in sizes:
        parts.append(data[:size])
        data = data[size:]
    return [part for part in [*parts, data] if part]


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 20_000),
    sizes=st.lists(st.integers(1, 3000), max_size=30),
    window=st.integers(3000, 8000),
    checkpoint=st.integers(1, 10_000),
)
def test_any_chunking_gives_the_same_file(size: int, sizes: list[int], window: int, checkpoint: int) -> None:
    data = random.Random(size).randbytes(size)
    chunks = [piece for part in cut(data, sizes) for piece in cut(part, [3000] * (len(part) // 3000))]

    async def run(directory: Path) -> None:
        executor = FileExecutor(3)
        made = await new_rig(directory, executor, window_bytes=window, checkpoint_bytes=checkpoint)
        pipeline, partial = await made.pipeline()
        for chunk in chunks:
            await pipeline.put(chunk)
            assert made.budget.held_bytes <= window
        assert await pipeline.drain() == digest(data)
        await pipeline.checkpoint()
        await made.store.publish(partial.partial_id, digest(data))
        await pipeline.close()
        async with made.store.open_blob(digest(data)) as blob:
            assert await blob.read(0, size + 1) == data
        assert made.committed[-1] == pipeline.committed_bytes == size
        assert made.budget.held_bytes == 0
        executor.close()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(Path(directory)))


async def test_put_waits_once_the_window_is_full_and_goes_on_when_there_is_room(
    tmp_path: Path, executor: FileExecutor
) -> None:
    made = await new_rig(tmp_path, executor, window_bytes=399)
    gate = made.hooks.before["write"] = Gate()
    pipeline, _ = await made.pipeline()

    async def feed() -> None:
        for _ in range(30):
            await pipeline.put(bytes(100))

    feeding = asyncio.create_task(feed())
    await gate.reached.wait()
    while pipeline.received_bytes < 300:
        await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)
        assert pipeline.received_bytes == made.budget.held_bytes == 300
    gate.open()
    await feeding
    assert await pipeline.drain() == digest(bytes(3000))
    assert made.budget.held_bytes == 0
    await pipeline.close()


async def test_bytes_are_held_until_they_are_hashed_as_well(tmp_path: Path, executor: FileExecutor) -> None:
    made = await new_rig(tmp_path, executor, window_bytes=1000)
    gate = made.hooks.before["hash"] = Gate()
    pipeline, partial = await made.pipeline()
    await pipeline.put(bytes(1000))
    while partial.written_bytes < 1000:
        await asyncio.sleep(0)
    waiting = asyncio.create_task(pipeline.put(bytes(1)))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not waiting.done()
    assert made.budget.held_bytes == 1000
    gate.open()
    await waiting
    await pipeline.close()


async def test_two_uploads_share_one_budget_and_each_gets_on_in_turn(
    tmp_path: Path, executor: FileExecutor
) -> None:
    made = await new_rig(tmp_path, executor, budget_bytes=1000, window_bytes=1000)
    gate = made.hooks.before["write"] = Gate()
    first, _ = await made.pipeline()
    second, _ = await made.pipeline()
    await first.put(bytes(900))
    waiting = asyncio.create_task(second.put(bytes(200)))
    await gate.reached.wait()
    for _ in range(100):
        await asyncio.sleep(0)
    assert not waiting.done()
    assert made.budget.held_bytes == 900
    gate.open()
    await waiting
    await second.drain()
    await first.drain()
    assert made.budget.held_bytes == 0
    await first.close()
    await second.close()


async def test_one_file_call_takes_no_more_than_a_batch(tmp_path: Path, executor: FileExecutor) -> None:
    made = await new_rig(tmp_path, executor, window_bytes=2**26)
    sizes: list[int] = []
    gate = made.hooks.before["write"] = Gate()
    pipeline, partial = await made.pipeline()
    real = partial._partial.write

    async def write(offset: int, buffers: list[bytes]) -> None:
        sizes.append(sum(map(len, buffers)))
        await real(offset, buffers)

    partial._partial.write = write  # type: ignore[method-assign, assignment]
    for _ in range(20):
        await pipeline.put(bytes(2**20))
    gate.open()
    await pipeline.drain()
    assert sum(sizes) == 20 * 2**20
    assert max(sizes) <= 8 * 2**20
    # One by one would be 20 calls: chunks that wait are written together.
    assert len(sizes) <= 5
    await pipeline.close()


@pytest.mark.parametrize("count", [1, 5000])
async def test_little_is_written_and_hashed_although_no_more_comes(
    tmp_path: Path, executor: FileExecutor, count: int
) -> None:
    made = await new_rig(tmp_path, executor)
    pipeline, partial = await made.pipeline()
    for _ in range(count):
        await pipeline.put(b"x")
    # 5000 are more than one file call takes: what it leaves behind is not forgotten either.
    while partial.written_bytes < count or pipeline.hasher.hashed_bytes < count:
        await asyncio.sleep(0.001)
    await pipeline.close()


async def test_threads_are_woken_for_a_few_mebibytes_at_once(
    tmp_path: Path, executor: FileExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_module, "_GATHER_SECONDS", 3600.0)
    made = await new_rig(tmp_path, executor, window_bytes=2**26)
    pipeline, partial = await made.pipeline()
    for number in range(1, 11):
        await pipeline.put(bytes(2**20))
        for _ in range(10):
            await asyncio.sleep(0)
        # Each batch is done before the next chunk comes, as if the client were slow.
        while (
            pipeline.written_bytes < number // 4 * 2**22 or pipeline.hasher.hashed_bytes < number // 4 * 2**22
        ):
            await asyncio.sleep(0.001)
    assert made.hooks.calls["write"] == made.hooks.calls["hash"] == 2
    assert partial.written_bytes == 2 * 2**22
    # The end waits for nothing.
    assert await pipeline.drain() == digest(bytes(10 * 2**20))
    assert made.hooks.calls["write"] == 3
    await pipeline.close()


@pytest.mark.parametrize("stands_still", ["hash", "write"])
async def test_what_one_of_the_two_still_needs_is_not_overwritten(
    tmp_path: Path, executor: FileExecutor, stands_still: str
) -> None:
    """Else a file would be stored whose digest is that of other bytes, or bytes that nobody sent."""
    made = await new_rig(tmp_path, executor)
    gate = made.hooks.before[stands_still] = Gate()
    pipeline, partial = await made.pipeline()
    data = random.Random(1).randbytes(14 * 2**20)
    for at in range(0, len(data), 700_000):
        await pipeline.put(data[at : at + 700_000])
        # What is full goes on its way, and the other of the two is done with it.
        for _ in range(20):
            await asyncio.sleep(0.001)
    gate.open()
    assert await pipeline.drain() == digest(data)
    assert await partial.read(0, len(data) + 1) == data
    await pipeline.close()

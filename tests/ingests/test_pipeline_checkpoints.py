"""When bytes are made durable, and that nobody is told of bytes that are not.

That each size told was covered by a sync before, and that the sizes grow, `Rig.on_checkpoint` asserts in
every test.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from ingest_service.storage import FileExecutor
from tests.ingests.parts import Gate, eventually
from tests.ingests.rig import new_rig
from tests.support.files import digest


async def test_a_checkpoint_comes_by_bytes(tmp_path: Path, executor: FileExecutor) -> None:
    rig = await new_rig(tmp_path, executor, checkpoint_bytes=1000)
    pipeline, _ = await rig.pipeline()
    for number in range(10):
        for _ in range(10):
            await pipeline.put(bytes(100))
        await eventually(lambda: pipeline.committed_bytes == (number + 1) * 1000)  # noqa: B023
    assert len(rig.committed) == 10
    await pipeline.put(bytes(999))
    await pipeline.drain()
    for _ in range(100):
        await asyncio.sleep(0)
    assert pipeline.committed_bytes == 10_000
    await pipeline.close()


async def test_a_checkpoint_comes_by_time_even_when_nothing_more_is_sent(
    tmp_path: Path, executor: FileExecutor
) -> None:
    rig = await new_rig(tmp_path, executor, checkpoint_seconds=0.05)
    pipeline, _ = await rig.pipeline()
    for size_bytes in (1, 2, 3):
        await pipeline.put(b"x")
        await eventually(lambda: pipeline.committed_bytes == size_bytes)  # noqa: B023
    assert rig.committed == [1, 2, 3]
    await pipeline.close()


async def test_nothing_is_synced_while_there_is_nothing_new(tmp_path: Path, executor: FileExecutor) -> None:
    rig = await new_rig(tmp_path, executor, checkpoint_seconds=0.001)
    pipeline, _ = await rig.pipeline()
    await pipeline.checkpoint()
    await asyncio.sleep(0.02)
    assert rig.hooks.calls["sync"] == 0
    await pipeline.put(b"x")
    await eventually(lambda: pipeline.committed_bytes == 1)
    await pipeline.checkpoint()
    await asyncio.sleep(0.02)
    assert rig.hooks.calls["sync"] == 1
    await pipeline.close()


async def test_bytes_that_come_during_a_sync_wait_for_the_next_one(
    tmp_path: Path, executor: FileExecutor
) -> None:
    rig = await new_rig(tmp_path, executor, checkpoint_bytes=1000)
    gate = rig.hooks.before["sync"] = Gate()
    pipeline, partial = await rig.pipeline()
    await pipeline.put(bytes(1000))
    await gate.reached.wait()
    await pipeline.put(bytes(1500))
    await eventually(lambda: partial.written_bytes == 2500)
    gate.open()
    await eventually(lambda: pipeline.committed_bytes == 2500)
    assert rig.committed == [1000, 2500]
    await pipeline.close()


async def test_writing_goes_on_while_a_sync_is_slow(tmp_path: Path, executor: FileExecutor) -> None:
    rig = await new_rig(tmp_path, executor, checkpoint_bytes=1, window_bytes=1000)
    gate = rig.hooks.before["sync"] = Gate()
    pipeline, _ = await rig.pipeline()
    await pipeline.put(bytes(10))
    await gate.reached.wait()
    for _ in range(50):
        await pipeline.put(bytes(1000))
    assert await pipeline.drain() == digest(bytes(50_010))
    assert pipeline.committed_bytes == 0
    gate.open()
    await pipeline.checkpoint()
    assert rig.committed[-1] == 50_010
    await pipeline.close()


async def test_a_checkpoint_that_was_asked_for_waits_for_the_one_that_runs(
    tmp_path: Path, executor: FileExecutor
) -> None:
    rig = await new_rig(tmp_path, executor, checkpoint_bytes=1000)
    gate = rig.hooks.before["on_checkpoint"] = Gate()
    pipeline, _ = await rig.pipeline()
    await pipeline.put(bytes(1000))
    await gate.reached.wait()
    await pipeline.put(bytes(1))
    await pipeline.drain()
    asked = asyncio.create_task(pipeline.checkpoint())
    for _ in range(100):
        await asyncio.sleep(0)
    assert not asked.done()
    assert rig.hooks.calls["sync"] == 1
    gate.open()
    await asked
    assert rig.committed == [1000, 1001]
    await pipeline.close()

"""A caller that is cancelled, wherever it and what it started stand, never leaves anything half done.

After that there is no session, no open file, no byte of the budget, and of the partial exactly what is
committed: it is as if the upload had never begun, or the same push goes on with it, or it is seen through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from ingest_service.vocabulary.records import File, Ingest
from ingest_service.vocabulary.states import FileState, IngestState
from tests.ingests.parts import KIBIBYTE, Gate, Parts, model_bytes
from tests.storage.descriptors import open_files
from tests.support.files import digest

pytestmark = pytest.mark.extended_when("postgresql")

LIMITS = {"window_bytes": 100 * KIBIBYTE, "total_window_bytes": 100 * KIBIBYTE}


def data_of(number: int) -> bytes:
    return model_bytes(200 * KIBIBYTE, seed=number)


class CancelledAt:
    """Awaits a coroutine and cancels the task that does so at the coroutine's `step`-th wait.

    `waiting`: while it waits. `answered`: when what it waited for is there but it has not gone on yet.
    `again`: while it waits, and at every wait that follows, as a server does that wants to stop.
    """

    def __init__(self, work: Coroutine[Any, Any, Any], step: int, when: str) -> None:
        self._work = work
        self._step = step
        self._when = when
        self.steps = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        task = asyncio.current_task()
        assert task is not None
        waits = self._work.__await__()
        wait = next(waits)
        while True:
            if self.steps == self._step or (self._when == "again" and self.steps > self._step):
                if self._when == "answered" and isinstance(wait, asyncio.Future):
                    wait.add_done_callback(lambda _: task.cancel())
                else:
                    task.cancel()
            self.steps += 1
            try:
                got = yield wait
            except BaseException as error:  # noqa: BLE001 (handed on, as `await` itself does)
                try:
                    wait = waits.throw(error)
                except StopIteration as stop:
                    return stop.value
            else:
                try:
                    wait = waits.send(got)
                except StopIteration as stop:
                    return stop.value


async def cancelled_push(parts: Parts, ingest: Ingest, data: bytes, step: int, when: str) -> bool:
    """One Upload call, cancelled; False if it came to its end before."""
    cancelled = CancelledAt(parts.push(ingest, data), step, when)

    async def call() -> File:
        answer: File = await cancelled
        return answer

    task = asyncio.create_task(call())
    await asyncio.wait({task})
    if not task.cancelled():
        assert task.result().state is FileState.STORED
    return cancelled.steps > step


async def check_good_order(parts: Parts, ingest: Ingest, data: bytes) -> FileState:
    await parts.uploads.close()
    assert parts.uploads.active == 0
    assert parts.uploads.held_bytes == 0
    after = await parts.ingests.get(ingest.id)
    file = after.files[0]
    assert file.state in {FileState.PENDING, FileState.UPLOADING, FileState.STORED}, file.state
    if file.state is not FileState.STORED:
        assert (after.state, file.failure) == (IngestState.UPLOADING, None)
        assert parts.kept(file) == data[: file.committed_size]
        assert open_files(parts.data_dir / "uploads") == []
        parts.new_uploads()
        assert (await parts.push(ingest, data)).state is FileState.STORED
        await parts.uploads.close()
        assert parts.blob(data) == data
    if file.state is FileState.STORED:
        assert parts.blob(data) == data
        assert file.sha256 == digest(data)
    assert parts.partials() == []
    assert open_files(parts.data_dir / "uploads") == []
    return file.state


@pytest.mark.extended_unless("waiting")
@pytest.mark.parametrize("when", ["waiting", "answered", "again"])
async def test_an_upload_that_is_cancelled_at_any_of_its_waits_leaves_good_order(
    parts: Parts, when: str
) -> None:
    """The call is driven step by step: the N-th time that it waits, it is cancelled, for N = 0 to its end."""
    seen: set[FileState] = set()
    for step in range(1000):
        parts.new_uploads(**LIMITS)
        data = data_of(step)
        ingest = await parts.create(data, f"model{step}")
        cancelled = await cancelled_push(parts, ingest, data, step, when)
        seen.add(await check_good_order(parts, ingest, data))
        if not cancelled:
            break
    else:
        raise AssertionError("the upload never came to its end")
    assert step >= 2
    # Early on it is given up; once `finish` was sent, it is seen through without its caller.
    assert seen >= {FileState.UPLOADING, FileState.STORED}


@pytest.mark.extended
async def test_an_upload_that_is_cancelled_while_its_parts_are_busy_leaves_good_order(parts: Parts) -> None:
    """The N-th call to database, store or hash stalls, the caller is cancelled, it goes on; N = 0, 1, ..."""
    seen: set[FileState] = set()
    for number in range(1000):
        parts.new_uploads(**LIMITS, checkpoint_bytes=70 * KIBIBYTE)
        data = data_of(number)
        ingest = await parts.create(data, f"model{number}")
        calls, gate = count(), Gate()

        async def stall(calls: count[int] = calls, gate: Gate = gate, number: int = number) -> None:
            if next(calls) == number:
                await gate()

        parts.hooks.before_any = stall
        task = asyncio.create_task(parts.push(ingest, data))
        reached = asyncio.create_task(gate.reached.wait())
        await asyncio.wait({task, reached}, return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()
        task.cancel()
        await asyncio.wait({reached})
        gate.open()
        await asyncio.wait({task})
        parts.hooks.before_any = None
        seen.add(await check_good_order(parts, ingest, data))
        if not gate.reached.is_set():
            break
    else:
        raise AssertionError("the upload never came to its end")
    assert number >= 10
    assert seen >= {FileState.UPLOADING, FileState.STORED}


async def test_a_service_without_uploads_closes_at_once(parts_on_sqlite: Parts, tmp_path: Path) -> None:
    await parts_on_sqlite.uploads.drain(3600)
    await parts_on_sqlite.uploads.close()

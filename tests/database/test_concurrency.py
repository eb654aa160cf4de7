"""50 concurrent creates, checkpoints, cancels and status reads: no lost update, no session in two tasks.

Issue "1 of 5", item 11: on both databases, in one process and from two on the same database.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from ingest_service.database import Database
from ingest_service.lifecycle import derive_state
from ingest_service.storage import FileExecutor, LocalBlobStore
from ingest_service.vocabulary.records import Event, Ingest
from ingest_service.vocabulary.states import IngestState
from tests.database.load import COUNT, HOT, READS, SIZE, Load, Report

_ROOT = Path(__file__).resolve().parent.parent.parent


async def _prepared(directory: Path) -> FileExecutor:
    executor = FileExecutor(2)
    directory.mkdir()
    await LocalBlobStore(directory, executor).prepare()
    return executor


async def _all(database: Database) -> list[tuple[Ingest, list[Event]]]:
    ingests, more = await database.read(
        lambda tx: tx.ingests.page(canonical_model=None, states=(), before_number=None, limit=1000)
    )
    assert more is None
    return [
        (one, await database.read(lambda tx, one=one: tx.events.after(one.id, 0, 10_000)))  # type: ignore[misc]
        for one in ingests
    ]


def _check_one(one: Ingest, events: Sequence[Event]) -> None:
    assert [event.sequence for event in events] == list(range(1, one.last_sequence + 1))
    cancelling = one.state in {IngestState.CANCELLING, IngestState.CANCELLED}
    assert one.state is derive_state(one.files, one.deployments, cancelling=cancelling)
    told = [event.body["state"] for event in events if event.kind == "ingest_state"]
    assert told[-1] == one.state
    assert len(told) == len(set(told))
    committed = [event.body["committed_size"] for event in events if event.kind == "file_state"]
    assert committed == sorted(committed)


async def _check(database: Database, reports: Sequence[Report]) -> None:
    for report in reports:
        assert report.faults == []
        assert report.reads == READS * COUNT
        assert report.statements > 10 * COUNT
    found = {one.id: (one, events) for one, events in await _all(database)}
    # One ingest for each request_id, the same for everybody who used it.
    assert len(found) == COUNT + 1
    assert all(report.ids == reports[0].ids for report in reports)
    for one, events in found.values():
        _check_one(one, events)
    hot, hot_events = found[reports[0].ids[HOT]]
    kinds = Counter(event.kind for event in hot_events)
    assert kinds["notice"] == sum(report.notices for report in reports) == COUNT * len(reports)
    assert hot.last_sequence == len(hot_events)
    for report in reports:
        for ingest_id, size in report.acknowledged.items():
            assert found[ingest_id][0].files[0].committed_size >= size
        for ingest_id in report.stored:
            assert found[ingest_id][0].files[0].committed_size == SIZE
        for ingest_id in report.cancelled:
            assert found[ingest_id][0].done
    # It was a contest: some were stored, some cancelled before they could be.
    states = Counter(one.state for one, _ in found.values())
    assert states[IngestState.FORWARDING] >= COUNT // 2
    assert states[IngestState.CANCELLED] >= 1


@pytest.mark.extended_when("sqlite")
async def test_in_one_process(database: Database, tmp_path: Path) -> None:
    directory = tmp_path / "data"
    executor = await _prepared(directory)
    report = await Load(database, directory, executor).run()
    executor.close()
    assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    await _check(database, [report])


@pytest.mark.extended
async def test_from_two_processes(database: Database, database_url: str, tmp_path: Path) -> None:
    directory = tmp_path / "data"
    (await _prepared(directory)).close()
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-m", "tests.database.load", database_url, str(directory),
            cwd=_ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    answers = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert [process.returncode for process in processes] == [0, 0]
    await _check(database, [Report(**json.loads(output)) for output, _ in answers])

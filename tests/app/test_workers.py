"""`serve --workers 2` as real processes: one port, one database, and no byte lost when one of them dies.

Breaks when: workers do not share the port, a restarted one does not serve, an upload cannot go on in another
one, events do not reach watchers at another one, a drain cuts an upload, or workers outlive their parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import WatchIngestRequest

from ingest_service.workers import beside
from tests.faults.children import Child, stub_of
from tests.faults.client import Told, get, messages, resume
from tests.support.files import MEBIBYTE, create_request, digest, gguf
from tests.support.metrics import figures
from tests.support.ports import ReservedPort
from tests.support.service import environment

STORED = resources_pb2.File.STATE_STORED
DATA = gguf(4 * MEBIBYTE + 5)


class Workers(Child):
    """`serve --workers 2`; serving once both are."""

    def __init__(self, tmp_path: Path, url: str, **settings: Any) -> None:
        variables = environment(
            tmp_path / "data",
            url,
            checkpoint_bytes=MEBIBYTE,
            checkpoint_seconds=0.05,
            drain_seconds=30,
            **settings,
        )
        super().__init__(variables, tmp_path / "log", "-m", "ingest_service", "serve", "--workers", "2")

    async def start(self, timeout_seconds: float = 120.0) -> None:
        await self.spawn()
        async with asyncio.timeout(timeout_seconds):
            await self.logged("workers=2")

    async def logged(self, words: str, count: int = 1) -> None:
        while self.log.read_text().count(words) < count:
            assert self.process is not None
            assert self.process.returncode is None, self.log.read_text()[-3000:]
            await asyncio.sleep(0.02)

    def workers(self) -> dict[int, int]:
        """Pid of each number."""
        assert self.process is not None
        found: dict[int, int] = {}
        for child in psutil.Process(self.process.pid).children():
            arguments = child.cmdline() if child.status() != psutil.STATUS_ZOMBIE else []
            if "--worker" in arguments:
                found[int(arguments[arguments.index("--worker") + 1])] = child.pid
        return found

    async def holder(self) -> int:
        """The number of the worker that has a partial open."""
        while True:
            for number, pid in self.workers().items():
                if any(".part" in str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()):
                    return number
            await asyncio.sleep(0.02)


async def until_stored(channel: grpc.aio.Channel, name: str) -> int:
    """Watches until the ingest is done; the number of events."""
    events = 0
    async for response in stub_of(channel).WatchIngest(WatchIngestRequest(name=name)):
        if response.HasField("event"):
            events += 1
            if response.event.ingest_state.done:
                return events
    raise AssertionError("the watch ended before the ingest did")


@pytest.mark.extended
@pytest.mark.extended_when("postgresql")
async def test_an_upload_goes_on_in_the_other_worker_after_a_kill(tmp_path: Path, database_url: str) -> None:
    service = Workers(tmp_path, database_url)
    async with service, service.channel() as near:
        told = Told()
        ingest = await stub_of(near).CreateIngest(create_request(DATA))
        told.file_name = ingest.files[0].name
        call = stub_of(near).Upload(timeout=60)
        for message in messages(told.file_name, DATA[: 2 * MEBIBYTE], finish=False):
            await call.write(message)
        while told.most < 2 * MEBIBYTE:
            told.note((await get(stub_of(near), told.file_name)).files[0])
        before = service.workers()
        assert sorted(before) == [1, 2]
        first = await service.holder()
        # So that nobody but the other worker can take the upload over.
        service.stop_for_now()
        os.kill(before[first], signal.SIGKILL)
        call.cancel()
        async with service.channel() as far:
            # The dead one's threads may hold its socket for a moment; then all connections are the other's.
            await far.channel_ready()
            watches = [asyncio.create_task(until_stored(far, ingest.name))]
            file = await resume(stub_of(far), told, DATA)
            assert (file.state, file.sha256) == (STORED, digest(DATA))
            await asyncio.gather(*watches)
        assert service.workers() == {number: pid for number, pid in before.items() if number != first}
        service.go_on()
        # The dead one's number serves again, and that was said.
        await service.logged('message="worker serving"', 3)
        after = service.workers()
        assert after.keys() == before.keys()
        assert after[first] != before[first]
        assert "exit_code=137" in service.log.read_text()
        assert await service.kill(signal.SIGTERM) == 0
    blob = tmp_path / "data" / "blobs" / digest(DATA).replace(":", "-")
    assert blob.read_bytes() == DATA


@pytest.mark.extended
async def test_a_drain_lets_uploads_finish_and_every_watcher_hears_it(tmp_path: Path) -> None:
    service = Workers(tmp_path, f"sqlite+aiosqlite:///{tmp_path / 'new.db'}")
    async with service, service.channel() as channel:
        stub = stub_of(channel)
        small = gguf(MEBIBYTE)
        other = await stub.CreateIngest(create_request(small, "other"))
        # Each channel is a connection of its own: they are at both workers but once in 128 runs.
        far = [service.channel() for _ in range(8)]
        watches = [asyncio.create_task(until_stored(one, other.name)) for one in far]
        upload = stub.Upload(timeout=60)
        for message in messages(other.files[0].name, small):
            await upload.write(message)
        await upload.done_writing()
        assert (await upload).state == STORED
        assert len(set(await asyncio.gather(*watches))) == 1
        for one in far:
            await one.close()

        ingest = await stub.CreateIngest(create_request(DATA))
        call = stub.Upload(timeout=60)
        start, *rest = messages(ingest.files[0].name, DATA)
        await call.write(start)
        await call.write(rest[0])
        await service.holder()
        assert service.process is not None
        service.process.send_signal(signal.SIGTERM)
        await service.logged("message=draining", 2)
        for part in rest[1:]:
            await call.write(part)
        await call.done_writing()
        assert (await call).state == STORED
        assert await service.ended() == 0
    log = service.log.read_text()
    assert log.count("message=serving ") == 1
    assert log.count('message="database migrated"') == log.count('message="new store"') == 1
    assert {f"worker={number}" in log for number in (1, 2)} == {True}
    assert log.count("message=stopped") == 2


@pytest.mark.extended
async def test_workers_whose_parent_is_killed_end_and_a_second_parent_cannot_have_the_port(
    tmp_path: Path, sqlite_url: str
) -> None:
    service = Workers(tmp_path, sqlite_url)
    async with service:
        second = Workers(tmp_path / "second", sqlite_url)
        second.log.parent.mkdir()
        second._variables["INGEST_LISTEN"] = service.address
        assert await (await second.spawn()).wait() == 2
        assert "INGEST_LISTEN" in second.log.read_text()
        workers = [psutil.Process(pid) for pid in service.workers().values()]
        assert len(workers) == 2
        await service.kill()
        while any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers):
            await asyncio.sleep(0.02)
    assert service.log.read_text().count("the parent process is gone") == 2
    assert service.log.read_text().count("message=stopped") == 2


def _listening(pid: int) -> set[int]:
    connections = psutil.Process(pid).net_connections(kind="tcp")
    return {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}


def _two_in_a_row() -> tuple[ReservedPort, ReservedPort]:
    while True:
        first = ReservedPort()
        with contextlib.suppress(OSError, OverflowError):
            return first, ReservedPort(first.port + 1)
        first.close()


@pytest.mark.extended
async def test_each_worker_tells_its_metrics_on_a_port_of_its_own(tmp_path: Path, sqlite_url: str) -> None:
    reserved = _two_in_a_row()
    port = reserved[0].port - 1
    service = Workers(tmp_path, sqlite_url, metrics_listen=f"127.0.0.1:{port}")
    async with service:
        for number, pid in service.workers().items():
            assert _listening(pid) == {service.port, port + number}
            seen = await asyncio.to_thread(figures, port + number)
            started_seconds = psutil.Process(pid).create_time()
            # Apart from how the clock's parts are rounded, and no other process's.
            assert abs(seen["process_start_time_seconds"] - started_seconds) < 1.5
            assert seen["ingest_event_loop_lag_seconds_count"] > 0
        assert await service.kill(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("listen", "number", "meant"),
    [
        ("127.0.0.1:9464", 1, "127.0.0.1:9465"),
        ("[::1]:9464", 64, "[::1]:9528"),
        ("h:65535", 1, "h:65536"),  # refused by who listens, as any address that cannot be had
        ("127.0.0.1:0", 3, "127.0.0.1:0"),
        ("", 1, ""),
    ],
)
def test_an_address_for_each_worker(listen: str, number: int, meant: str) -> None:
    assert beside(listen, number) == meant

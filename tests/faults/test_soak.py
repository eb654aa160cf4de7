"""500 small uploads and 4 large ones at once, a third of them broken on purpose: nothing lost, nothing left.

Breaks when: an upload that can be gone on with is not stored in the end, wrong bytes are, or a broken one
leaves behind a task, a descriptor, a lock, a partial, a row or its share of the budget.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from model_ingest import AsyncClient
from model_ingest.v1 import resources_pb2

from ingest_service.database import Database
from tests.client.test_cli_process import start
from tests.faults.children import Child, stub_of
from tests.faults.client import STORED
from tests.faults.conftest import NewUrl
from tests.faults.invariants import blob_names, partials, quarantined
from tests.faults.soak_clients import small_uploads
from tests.support.files import MEBIBYTE, digest, gguf
from tests.support.proxy import Faults, Plan, TcpProxy
from tests.support.service import environment

SMALL, LARGE_BYTES, CHANNELS = 500, 256 * MEBIBYTE, 10
WARM_UP = 30
pytestmark = pytest.mark.soak


class Watched(Child):
    """A service that can be asked what it holds."""

    def __init__(self, data_dir: Path, url: str, tmp_path: Path) -> None:
        self.probe = tmp_path / "probe.json"
        variables = environment(data_dir, url, upload_idle_seconds=10, checkpoint_bytes=8 * MEBIBYTE)
        arguments = ("-m", "tests.faults.soak_server")
        super().__init__({**variables, "SOAK_PROBE": str(self.probe)}, tmp_path / "log", *arguments)

    async def holds(self) -> dict[str, Any]:
        """Tasks and uploads as it tells them; descriptors, connections and locks as the system does."""
        assert self.process is not None
        self.probe.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)
        async with asyncio.timeout(60):
            while not self.probe.exists():
                await asyncio.sleep(0.02)
        told: dict[str, Any] = json.loads(self.probe.read_text())
        pid = self.process.pid
        local = [link for link in map(self._link, Path(f"/proc/{pid}/fd").iterdir()) if link]
        clients = [
            one
            for one in psutil.Process(pid).net_connections("tcp")
            if one.status == psutil.CONN_ESTABLISHED and one.laddr.port == self.port
        ]
        locks = [line for line in Path("/proc/locks").read_text().splitlines() if f" {pid} " in line]
        return {
            **told,
            "clients": len(clients),
            # The database's own files and sockets come and go with its pool.
            "descriptors": dict(Counter(link for link in local if "ingest.db" not in link)),
            "locks": len([line for line in locks if "FLOCK" in line]),
        }

    @staticmethod
    def _link(descriptor: Path) -> str:
        try:
            link = str(descriptor.readlink())
        except FileNotFoundError:
            return ""
        return "" if link.startswith("socket:") else link

    async def settles_to(self, wanted: dict[str, Any]) -> None:
        """It holds that again; it may take a moment until the last connection is closed."""
        seen = await self.holds()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60):
                while seen != wanted:
                    await asyncio.sleep(0.5)
                    seen = await self.holds()
        assert seen == wanted


async def all_at_once(service: Watched, numbers: range) -> set[str]:
    """So many small uploads; the digests that are stored by them."""
    async with contextlib.AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(service.channel()) for _ in range(CHANNELS)]
        uploads = small_uploads(numbers, service.address, [stub_of(channel) for channel in channels])
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(one.run()) for one in uploads]
    ends = [task.result() for task in running]
    for one, file in zip(uploads, ends, strict=True):
        if one.is_lost:
            assert file.state == resources_pb2.File.STATE_FAILED, one
        else:
            assert (file.state, file.sha256) == (STORED, digest(one.data)), one
    print(Counter(one.breaks for one in uploads), "resumed:", sum(one.tries > 1 for one in uploads))
    return {file.sha256 for file in ends if file.state == STORED}


async def large(service: Watched, directory: Path, number: int) -> str:
    """One large file by the real client: whole, cut, killed and run again, whole."""
    path = directory / f"large-{number}.gguf"
    data = gguf(LARGE_BYTES + number, seed=1000 + number)
    path.write_bytes(data)
    sha256 = digest(data)
    del data
    if number == 1:
        plan = Plan(up=Faults(cut_after_bytes=LARGE_BYTES // 5))
        async with TcpProxy(service.address, lambda number: plan) as proxy:
            async with AsyncClient(proxy.address) as client:
                await client.push(path, name=f"large-{number}", store_only=True)
            assert proxy.connections >= 5
    else:
        command = ("push", path, "--name", f"large-{number}", "--store-only")
        if number == 2:
            killed = await start(service.address, *command, "--json")
            assert killed.stdout is not None
            while b'"type": "progress"' not in (line := await killed.stdout.readline()):
                assert line, "it ended before it could be killed"
            killed.kill()
            await killed.communicate()
        process = await start(service.address, *command)
        _, said = await process.communicate()
        assert process.returncode == 0, said
    return sha256


async def check_rows(url: str, data_dir: Path, wanted: set[str]) -> None:
    """Rows and files agree, and nothing is under way."""
    database = Database(url)
    try:
        assert await database.read(lambda tx: tx.files.unfinished()) == []
        sizes = await database.read(lambda tx: tx.blobs.live_sizes())
    finally:
        await database.close()
    assert set(sizes) == wanted
    assert blob_names(data_dir) == {sha256.replace(":", "-") for sha256 in wanted}
    for sha256 in wanted:
        with (data_dir / "blobs" / sha256.replace(":", "-")).open("rb") as blob:
            assert hashlib.file_digest(blob, "sha256").hexdigest() == sha256.removeprefix("sha256:")
    assert (partials(data_dir), quarantined(data_dir)) == ([], [])


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_crowd_a_third_of_which_breaks_leaves_nothing_behind(
    kind: str, new_url: NewUrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    data_dir = tmp_path / "data"
    url = f"sqlite+aiosqlite:///{tmp_path / 'ingest.db'}" if kind == "sqlite" else new_url(kind)
    async with Watched(data_dir, url, tmp_path) as service:
        # What a service opens once and keeps (threads, watchers) is there after a few.
        warm = await all_at_once(service, range(WARM_UP))
        before = await service.holds()
        before.update(sessions=0, background=0, held_bytes=0, clients=0, locks=0)
        await service.settles_to(before)
        async with asyncio.timeout(600), asyncio.TaskGroup() as group:
            larges = [group.create_task(large(service, tmp_path, number)) for number in range(4)]
            smalls = group.create_task(all_at_once(service, range(WARM_UP, WARM_UP + SMALL)))
        await service.settles_to(before)
        stored = warm | smalls.result() | {task.result() for task in larges}
        assert "Traceback" not in service.log.read_text()
        await service.kill(signal.SIGTERM)
    await check_rows(url, data_dir, stored)

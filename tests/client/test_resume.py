"""The command brings a file over a link that breaks, and through restarts of either side."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from model_ingest import AsyncClient

from tests.client.test_cli_process import run, start
from tests.support.files import MEBIBYTE, digest, gguf
from tests.support.proxy import Faults, Plan, TcpProxy
from tests.support.service import ServiceProcess, environment

DATA = gguf(11 * MEBIBYTE)


@pytest.fixture
async def service(tmp_path: Path, sqlite_url: str) -> AsyncIterator[ServiceProcess]:
    variables = environment(tmp_path / "data", sqlite_url, checkpoint_bytes=MEBIBYTE, checkpoint_seconds=0.2)
    async with ServiceProcess(variables, tmp_path / "log") as running:
        yield running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "model.gguf"
    file.write_bytes(DATA)
    return file


def started_at(service: ServiceProcess) -> list[int]:
    """Where each upload started, by the service's log."""
    return [
        int(size) for size in re.findall(r"upload started.*committed_size=(\d+)", service.log.read_text())
    ]


def stored(tmp_path: Path) -> bytes:
    return (tmp_path / "data" / "blobs" / digest(DATA).replace(":", "-")).read_bytes()


@pytest.mark.extended
async def test_a_link_that_is_cut_every_few_bytes(
    service: ServiceProcess, path: Path, tmp_path: Path
) -> None:
    plan = Plan(up=Faults(cut_after_bytes=3 * MEBIBYTE + 777, bytes_per_second=8 * MEBIBYTE))
    async with TcpProxy(service.address, lambda number: plan) as proxy:
        ended = await run(proxy.address, "push", path, "--name", "m")
        assert (ended.code, ended.err) == (0, "")
        assert proxy.connections >= 4
    # Each outage is told once, in the middle of the progress.
    assert "trying again, nothing committed is lost" in ended.out
    assert stored(tmp_path) == DATA
    starts = started_at(service)
    assert starts == sorted(starts)
    assert starts[-1] > 0


@pytest.mark.extended
async def test_a_push_that_was_killed_goes_on_when_it_is_run_again(
    service: ServiceProcess, path: Path, tmp_path: Path
) -> None:
    plans = [Plan(up=Faults(bytes_per_second=8 * MEBIBYTE))]
    async with (
        TcpProxy(service.address, lambda number: plans[-1]) as proxy,
        AsyncClient(service.address) as client,
    ):
        process = await start(proxy.address, "push", path, "--name", "m")
        assert process.stdout is not None
        name = (await process.stdout.readline()).decode().partition(":")[0]
        async with asyncio.timeout(60):
            while (await client.get_ingest(name)).files[0].committed_size < MEBIBYTE:
                await asyncio.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        await process.communicate()
        plans.append(Plan())
        ended = await run(proxy.address, "push", path, "--name", "m")
        assert (ended.code, ended.err) == (0, "")
        assert name in ended.out
    assert stored(tmp_path) == DATA
    first, last = started_at(service)
    assert (first, last >= MEBIBYTE) == (0, True)
    # It is done: the next push is a new one.
    again = await run(service.address, "push", path, "--name", "m")
    assert again.code == 0
    assert name not in again.out


@pytest.mark.extended
async def test_a_push_whose_ingest_was_cancelled_meanwhile_makes_a_new_one(
    service: ServiceProcess, path: Path
) -> None:
    async with TcpProxy(service.address, lambda number: Plan(up=Faults(bytes_per_second=MEBIBYTE))) as proxy:
        process = await start(proxy.address, "push", path, "--name", "m")
        assert process.stdout is not None
        name = (await process.stdout.readline()).decode().partition(":")[0]
        process.send_signal(signal.SIGKILL)
        await process.communicate()
        assert (await run(service.address, "cancel", name)).code == 0
        proxy._plan = lambda number: Plan()
        ended = await run(proxy.address, "push", path, "--name", "m")
    assert ended.code == 0
    assert name not in ended.out


async def test_the_server_is_killed_in_the_middle(
    service: ServiceProcess, path: Path, tmp_path: Path
) -> None:
    async with TcpProxy(
        service.address, lambda number: Plan(up=Faults(bytes_per_second=4 * MEBIBYTE))
    ) as proxy:
        process = await start(proxy.address, "push", path, "--name", "m")
        assert process.stdout is not None
        name = (await process.stdout.readline()).decode().partition(":")[0]
        async with AsyncClient(service.address) as client, asyncio.timeout(60):
            while (await client.get_ingest(name)).files[0].committed_size < MEBIBYTE:
                await asyncio.sleep(0.02)
        await service.kill()
        await service.start()
        _, errors = await asyncio.wait_for(process.communicate(), 60)
        assert (process.returncode, errors) == (0, b"")
    assert stored(tmp_path) == DATA
    assert started_at(service)[-1] >= MEBIBYTE


@pytest.mark.extended
async def test_what_is_run_again_says_where_it_goes_on(service: ServiceProcess, path: Path) -> None:
    plan = Plan(up=Faults(bytes_per_second=4 * MEBIBYTE))
    async with TcpProxy(service.address, lambda number: plan) as proxy:
        process = await start(proxy.address, "push", path, "--name", "m")
        assert process.stdout is not None
        while b"committed" not in (line := await process.stdout.readline()):
            assert line
        process.send_signal(signal.SIGINT)
        await process.communicate()
        again = await run(proxy.address, "push", path, "--name", "m")
    assert again.code == 0
    assert re.search(r"^model\.gguf: going on at \S+ MB of 11\.5 MB$", again.out, re.MULTILINE)

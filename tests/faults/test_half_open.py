"""A link that dies without a word, measured: how long the client takes to notice.

Breaks when: grpc's own timeouts (a minute) decide, or only the client's watchdog does (`stall_seconds`).
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from model_ingest import AsyncClient, Limits, StalledError, Update, Waiting

from tests.conftest import StartService
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.support.files import MEBIBYTE, create_request, digest, gguf, push
from tests.support.proxy import Faults, Plan, TcpProxy

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]
MOST_SECONDS = 45.0
#: The client's own watchdog must not be what notices it.
LIMITS = Limits(stall_seconds=250, timeout_seconds=250)


class Noticed:
    """`on_update` that hears of the first break."""

    def __init__(self) -> None:
        self.error: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    def __call__(self, update: Update) -> None:
        if isinstance(update, Waiting) and not self.error.done():
            self.error.set_result(update.error)

    async def seconds_after(self, proxy: TcpProxy) -> float:
        """Breaks the link; how long it took to notice."""
        loop = asyncio.get_running_loop()
        began_seconds = loop.time()
        proxy.go_half_open()
        async with asyncio.timeout(240):
            error = await self.error
        assert not isinstance(error, StalledError), error
        return loop.time() - began_seconds


async def ended(task: asyncio.Task[object]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_upload_notices_it(
    start_service: StartService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf(200 * MEBIBYTE))
    service = await start_service()
    noticed = Noticed()
    link = Plan(up=Faults(bytes_per_second=4 * MEBIBYTE))
    async with (
        TcpProxy(service.address, lambda number: link) as proxy,
        AsyncClient(proxy.address, limits=LIMITS) as client,
    ):
        task = asyncio.create_task(client.push(path, name="m", store_only=True, on_update=noticed))
        async with asyncio.timeout(60):
            while proxy.bytes_up < 8 * MEBIBYTE:
                await asyncio.sleep(0.01)
        seconds = await noticed.seconds_after(proxy)
        await ended(task)
    with capsys.disabled():
        print(f"\nan upload noticed a half-open link after {seconds:.1f} s")
    assert seconds <= MOST_SECONDS


async def test_a_watch_notices_it(
    start_service: StartService, emulator: OllamaEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    data = gguf(MEBIBYTE)
    service = await start_service(f"default={emulator.url}")
    await push(service.ingests, data, "m", store_only=True)
    stall = emulator.faults.add(Fault("stall", "create", after_line=1))
    ingest = await service.ingests.CreateIngest(create_request(data, "m", sha256=digest(data)))
    await stall.wait_stalled()
    noticed = Noticed()
    async with (
        TcpProxy(service.address) as proxy,
        AsyncClient(proxy.address, limits=LIMITS) as client,
    ):
        seen = asyncio.Event()

        def on_update(update: Update) -> None:
            seen.set()
            noticed(update)

        task = asyncio.create_task(client.wait(ingest.name, on_update=on_update))
        async with asyncio.timeout(60):
            await seen.wait()
        seconds = await noticed.seconds_after(proxy)
        await ended(task)
    stall.release()
    with capsys.disabled():
        print(f"\na watch noticed a half-open link after {seconds:.1f} s")
    assert seconds <= MOST_SECONDS

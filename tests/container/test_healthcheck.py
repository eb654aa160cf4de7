"""The image's HEALTHCHECK, run as the image runs it: as a process, judged by its exit code."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import ReservedPort

SCRIPT = Path(__file__).resolve().parent.parent.parent / "deploy" / "healthcheck.py"
StartService = Callable[..., Any]


async def healthcheck(*arguments: str, **variables: str) -> tuple[int, str]:
    """Exit code and output of the script; nothing of this machine's proxies or settings reaches it."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LD_LIBRARY_PATH"}}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), *arguments, env=kept | variables,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(30):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_a_serving_service_is_healthy(start_service: StartService) -> None:
    service = await start_service()
    assert await healthcheck(service.address) == (0, f"{service.address}: SERVING\n")


@pytest.mark.extended
@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "localhost"])
async def test_it_asks_where_the_service_listens(start_service: StartService, host: str) -> None:
    service = await start_service()
    port = service.service.port
    code, output = await healthcheck(INGEST_LISTEN=f"{host}:{port}")
    assert code == 0, output


async def test_a_proxy_in_the_environment_is_not_asked(start_service: StartService) -> None:
    service = await start_service()
    nowhere = "http://127.0.0.1:9"
    code, output = await healthcheck(
        service.address, http_proxy=nowhere, https_proxy=nowhere, grpc_proxy=nowhere
    )
    assert code == 0, output


async def test_a_service_that_is_not_ready_is_not_healthy(start_service: StartService) -> None:
    service = await start_service(readiness_seconds=300)
    await service.service.rpc.set_serving(serving=False)
    assert await healthcheck(service.address) == (1, f"{service.address}: NOT_SERVING\n")


async def test_nobody_there_is_not_healthy() -> None:
    nobody = ReservedPort()
    code, output = await healthcheck(nobody.address)
    assert code == 1
    assert "UNAVAILABLE" in output


@pytest.mark.extended
async def test_silence_is_not_healthy_and_ends_before_docker_loses_patience() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        # The timeout is 3 s; the rest is for the start of an interpreter on a busy machine.
        async with asyncio.timeout(60):
            code, output = await healthcheck(f"127.0.0.1:{silent.getsockname()[1]}")
        assert code == 1
        assert "DEADLINE_EXCEEDED" in output or "UNAVAILABLE" in output


@pytest.mark.parametrize("address", ["nonsense", "nobody.invalid:1"])
async def test_an_address_that_leads_nowhere_is_one_line(address: str) -> None:
    code, output = await healthcheck(address)
    assert code == 1
    assert output.count("\n") == 1, output

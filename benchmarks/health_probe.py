"""Asks Health again and again, from a process of its own: a busy attacker must not delay its own witness.

    .venv/bin/python -m benchmarks.health_probe ADDRESS SECONDS

One JSON list on stdout: the seconds that each answer took.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_PAUSE_SECONDS = 0.01


async def measured(address: str, seconds: float) -> list[float]:
    """How long each answer took until the time is up."""
    taken_seconds: list[float] = []
    until = time.monotonic() + seconds
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < until:
            began = time.perf_counter()
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=30)
            taken_seconds.append(time.perf_counter() - began)
            await asyncio.sleep(_PAUSE_SECONDS)
    return taken_seconds


async def in_a_process(address: str, seconds: float) -> list[float]:
    """The same, measured by another process."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.health_probe", address, str(seconds), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    answer = await child.stdout.read()
    if await child.wait():
        raise SystemExit("the health probe failed")
    return [float(one) for one in json.loads(answer)]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measured(sys.argv[1], float(sys.argv[2])))))

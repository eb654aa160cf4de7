"""What hostile clients and targets cost the service: memory, and how long Health takes meanwhile.

    .venv/bin/python -m benchmarks.attacks [--seconds N] [--only PART-OF-A-NAME] [--call-window-bytes N]

Bounded and on loopback only: it starts a server of its own in a temporary directory and attacks nothing else.
Attacker, probe and server share the machine; the times mean something only where nothing else runs on it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from benchmarks import hostile_targets
from benchmarks.health_probe import in_a_process
from benchmarks.main_path import MEBIBYTE, Memory
from tests.faults.children import OWN_CONNECTION, Child
from tests.support import bombs
from tests.support.service import environment

_CREATE = "/model_ingest.v1.IngestService/CreateIngest"
_LIST = "/model_ingest.v1.IngestService/ListIngests"
_UPLOAD = "/model_ingest.v1.IngestService/Upload"
_STREAMS = 8

Attack = Callable[[Any], Awaitable[object]]


def unary(method: str, data: bytes) -> Attack:
    """One call; how it ends is not looked at."""

    async def attack(channel: Any) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await channel.unary_unary(method)(data)

    return attack


async def silent_upload(channel: Any) -> None:
    """Opens an Upload and sends nothing for a while."""

    async def nothing() -> AsyncIterator[bytes]:
        await asyncio.sleep(30)
        yield b""

    call = channel.stream_unary(_UPLOAD)(nothing())
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError, TimeoutError):
        async with asyncio.timeout(1.0):
            await call
    call.cancel()


def attacks() -> dict[str, tuple[Attack, int, int]]:
    """By name: what one stream does, and on how many connections and streams of each."""
    named = {name: data for name, data, _, _ in bombs.create_bombs()}
    files = unary(_CREATE, named["files"])
    rows = {
        "at rest": (unary(_LIST, b""), 0, 0),
        "files, 4 connections": (files, 4, _STREAMS),
        "files, 24 connections": (files, 24, _STREAMS),
    }
    for name in ("targets", "messages", "stop words", "members", "one field again and again"):
        rows[name] = (unary(_CREATE, named[name]), 24, _STREAMS)
    rows["states"] = (unary(_LIST, bombs.filled(b"\x20\x01")), 24, _STREAMS)
    rows["4 MiB of junk"] = (unary(_LIST, b"\xff" * bombs.BYTES), 24, _STREAMS)
    start = bombs.field(1, bombs.field(2, named["files"]))
    rows["files in an Upload's start"] = (_start(start), 24, _STREAMS)
    rows["Uploads without a message"] = (silent_upload, 50, 100)
    return rows


def _start(data: bytes) -> Attack:
    async def attack(channel: Any) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await channel.stream_unary(_UPLOAD)(iter([data]))

    return attack


async def run(
    name: str,
    attack: Attack,
    connections: int,
    streams: int,
    seconds: float,
    call_window_bytes: int,
    targets: str = "",
) -> None:
    """One row, against a server of its own."""
    with tempfile.TemporaryDirectory() as directory:
        data_dir = Path(directory)
        variables = environment(data_dir / "data", f"sqlite+aiosqlite:///{data_dir / 'ingest.db'}", targets)
        variables["INGEST_CALL_WINDOW_BYTES"] = str(call_window_bytes)
        child = Child(variables, data_dir / "log")
        try:
            await child.start(120)
            assert child.process is not None
            memory = Memory(child.process.pid)
            until = time.monotonic() + seconds
            channels = [
                grpc.aio.insecure_channel(child.address, options=OWN_CONNECTION) for _ in range(connections)
            ]
            calls = 0

            async def stream(channel: Any) -> None:
                nonlocal calls
                while time.monotonic() < until:
                    await attack(channel)
                    calls += 1

            work = [stream(channel) for channel in channels for _ in range(streams)]
            attackers = asyncio.gather(*work)
            times = await in_a_process(child.address, seconds)
            await attackers
            memory.stop()
            for channel in channels:
                await channel.close()
            times.sort()
            before, peak = memory.start_bytes // MEBIBYTE, memory.peak_bytes // MEBIBYTE
            print(
                f"{name:<32} {calls:>8} {before:>8} {peak:>8}"
                f" {times[len(times) // 2] * 1000:>10.1f} {times[int(len(times) * 0.99)] * 1000:>10.1f}"
                f" {times[-1] * 1000:>10.1f} {(data_dir / 'log').read_text().count(chr(10)):>8}",
                flush=True,
            )
        finally:
            await child.kill()


async def run_hostile_target(way: str, seconds: float) -> None:
    """The same with targets that answer in that way, and a model that goes to all of them."""

    async def attack(channel: Any) -> None:
        with contextlib.suppress(TimeoutError, grpc.aio.AioRpcError):
            async with asyncio.timeout(seconds):
                await hostile_targets.provoke(channel)

    async with hostile_targets.hostile(way) as targets:
        await run(f"Ollama: {way}", attack, 1, 1, seconds, 0, targets)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--call-window-bytes", type=int, default=0, help="as INGEST_CALL_WINDOW_BYTES")
    arguments = parser.parse_args()
    print(
        f"{'attack':<32} {'calls':>8} {'RSS MiB':>8} {'peak':>8}"
        f" {'p50 ms':>10} {'p99 ms':>10} {'max ms':>10} {'log':>8}",
        flush=True,
    )
    for name, (attack, connections, streams) in attacks().items():
        if arguments.only in name:
            await run(name, attack, connections, streams, arguments.seconds, arguments.call_window_bytes)
    for way in hostile_targets.rows():
        if arguments.only in f"Ollama: {way}":
            await run_hostile_target(way, arguments.seconds)


if __name__ == "__main__":
    asyncio.run(main())

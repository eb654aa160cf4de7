"""What hostile clients and targets cost the service: memory, and how long Health takes meanwhile.

    .venv/bin/python -m benchmarks.attacks [--seconds N] [--only PART-OF-A-NAME] [--service CHECKOUT]

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from benchmarks import hostile_targets, http2_floods
from benchmarks.health_probe import in_a_process
from benchmarks.main_path import MEBIBYTE, Memory
from tests.faults.children import OWN_CONNECTION, Child
from tests.support import bombs
from tests.support.service import ROOT, environment

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


@dataclass(frozen=True)
class Server:
    """Which service is attacked, and how it is set."""

    directory: Path
    variables: dict[str, str]


@dataclass(frozen=True)
class Row:
    """`attack` until a time of the monotonic clock, on a server's address; how often is the answer."""

    name: str
    attack: Callable[[str, float], Awaitable[int]]
    targets: str = ""


def by_channels(attack: Attack, connections: int, streams: int) -> Callable[[str, float], Awaitable[int]]:
    """`attack` again and again, in each stream of each connection."""

    async def run(address: str, until: float) -> int:
        calls = 0

        async def stream(channel: Any) -> None:
            nonlocal calls
            while time.monotonic() < until:
                await attack(channel)
                calls += 1

        channels = [grpc.aio.insecure_channel(address, options=OWN_CONNECTION) for _ in range(connections)]
        try:
            await asyncio.gather(*(stream(channel) for channel in channels for _ in range(streams)))
        finally:
            for channel in channels:
                await channel.close()
        return calls

    return run


def by_frames(flood: http2_floods.Flood) -> Callable[[str, float], Awaitable[int]]:
    """The same on plain sockets."""
    return lambda address, until: http2_floods.run(flood, address, until)


async def run(row: Row, seconds: float, server: Server) -> None:
    """One row, against a server of its own."""
    with tempfile.TemporaryDirectory() as directory:
        data_dir = Path(directory)
        variables = environment(
            data_dir / "data", f"sqlite+aiosqlite:///{data_dir / 'ingest.db'}", row.targets
        )
        child = Child({**variables, **server.variables}, data_dir / "log", cwd=server.directory)
        try:
            await child.start(120)
            assert child.process is not None
            memory = Memory(child.process.pid)
            attack = asyncio.ensure_future(row.attack(child.address, time.monotonic() + seconds))
            times = sorted(await in_a_process(child.address, seconds))
            calls = await attack
            memory.stop()
            before, peak = memory.start_bytes // MEBIBYTE, memory.peak_bytes // MEBIBYTE
            print(
                f"{row.name:<32} {calls:>8} {before:>8} {peak:>8}"
                f" {times[len(times) // 2] * 1000:>10.1f} {times[int(len(times) * 0.99)] * 1000:>10.1f}"
                f" {times[-1] * 1000:>10.1f} {(data_dir / 'log').read_text().count(chr(10)):>8}",
                flush=True,
            )
        finally:
            await child.kill()


async def run_hostile_target(way: str, seconds: float, server: Server) -> None:
    """The same with targets that answer in that way, and a model that goes to all of them."""

    async def attack(channel: Any) -> None:
        with contextlib.suppress(TimeoutError, grpc.aio.AioRpcError):
            async with asyncio.timeout(seconds):
                await hostile_targets.provoke(channel)

    async with hostile_targets.hostile(way) as targets:
        await run(Row(f"Ollama: {way}", by_channels(attack, 1, 1), targets), seconds, server)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", default="")
    parser.add_argument(
        "--call-window-bytes", help="as INGEST_CALL_WINDOW_BYTES; the default is the service's"
    )
    parser.add_argument("--service", type=Path, default=ROOT, help="a checkout whose service is attacked")
    arguments = parser.parse_args()
    print(
        f"{'attack':<32} {'calls':>8} {'RSS MiB':>8} {'peak':>8}"
        f" {'p50 ms':>10} {'p99 ms':>10} {'max ms':>10} {'log':>8}",
        flush=True,
    )
    window = arguments.call_window_bytes
    server = Server(arguments.service, {"INGEST_CALL_WINDOW_BYTES": window} if window else {})
    rows = [Row(name, by_channels(*attack)) for name, attack in attacks().items()]
    rows += [Row(name, by_frames(flood)) for name, flood in http2_floods.FLOODS.items()]
    for row in rows:
        if arguments.only in row.name:
            await run(row, arguments.seconds, server)
    for way in hostile_targets.rows():
        if arguments.only in f"Ollama: {way}":
            await run_hostile_target(way, arguments.seconds, server)


if __name__ == "__main__":
    asyncio.run(main())

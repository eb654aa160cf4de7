"""The figures of deployments: three ways to a target, and how long a killed worker's work lies idle.

    .venv/bin/python -m benchmarks.deployments [--size-bytes N] [--rounds N] [--directory DIR]

Real server processes, the real client command, the Ollama emulator as target. One JSON object on stdout;
each way's seconds are from the start of `push --declare-digest` to READY, taken in turns in one run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc

from benchmarks.main_path import MEBIBYTE, emulator, push
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.support.files import create_request, gguf, send, upload_messages
from tests.support.models import beginning
from tests.support.proxy import Faults, Plan, TcpProxy
from tests.support.service import ServiceProcess, environment
from tests.support.stubs import ingest_stub

WAYS = ("http", "cut-through", "adoption")
_LEASE_SECONDS = 5.0


def new_file(path: Path, size_bytes: int) -> None:
    """Bytes that nobody has yet."""
    with path.open("wb") as file:
        file.write(beginning(size_bytes, 1000))
        while file.tell() < size_bytes:
            file.write(os.urandom(min(8 * MEBIBYTE, size_bytes - file.tell())))


async def one_way(way: str, directory: Path, size_bytes: int, link_bytes_per_second: int) -> float:
    """Seconds to READY; everything new, and gone again afterwards."""
    with tempfile.TemporaryDirectory(dir=directory) as name:
        here = Path(name)
        new_file(here / "model.gguf", size_bytes)
        async with emulator(here / "ollama") as ollama:
            variables = environment(here / "data", "", cut_through=way == "cut-through")
            del variables["INGEST_TARGETS"]
            targets = here / "targets.toml"
            shared = f'models_dir = "{here / "ollama"}"' if way == "adoption" else ""
            targets.write_text(f'[default]\nurl = "{ollama.base_url}"\n{shared}\n')
            variables["INGEST_TARGETS_FILE"] = str(targets)
            plan = Plan(up=Faults(bytes_per_second=link_bytes_per_second or None))
            async with (
                ServiceProcess(variables, here / "log") as process,
                TcpProxy(process.address, lambda _: plan) as link,
            ):
                return await push(here / "model.gguf", link.address, "model", "--declare-digest")


async def ways(directory: Path, size_bytes: int, rounds: int, link_bytes_per_second: int) -> dict[str, Any]:
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            taken[way].append(await one_way(way, directory, size_bytes, link_bytes_per_second))
    middle = {way: statistics.median(seconds) for way, seconds in taken.items()}
    return {
        "size_bytes": size_bytes,
        "seconds": {way: [round(one, 2) for one in seconds] for way, seconds in taken.items()},
        "ratio_to_http": {way: round(seconds / middle["http"], 2) for way, seconds in middle.items()},
    }


async def takeover(directory: Path) -> float:
    """Seconds from the kill of the process at work to the next call at the target, by one that stands by."""
    with tempfile.TemporaryDirectory(dir=directory) as name:
        here, data = Path(name), gguf(2 * MEBIBYTE)
        async with OllamaEmulator(version="0.24.0", data_dir=here / "ollama") as ollama:
            stall = ollama.faults.add(Fault("stall", "create", after_line="parsing"))
            variables = environment(here / "data", "", f"default={ollama.url}", lease_seconds=_LEASE_SECONDS)
            async with contextlib.AsyncExitStack() as stack:
                first = await stack.enter_async_context(ServiceProcess(variables, here / "first"))
                async with grpc.aio.insecure_channel(first.address) as channel:
                    ingest = await ingest_stub(channel).CreateIngest(create_request(data))
                    await send(ingest_stub(channel), upload_messages(ingest.files[0].name, data))
                await stall.wait_stalled(60)
                await stack.enter_async_context(ServiceProcess(variables, here / "second"))
                ollama.calls.clear()
                killed = time.perf_counter()
                await first.kill(signal.SIGKILL)
                while not ollama.calls:
                    await asyncio.sleep(0.01)
                seconds = time.perf_counter() - killed
                stall.release()
                return seconds


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="model-ingest-bench-", dir=arguments.directory) as name:
        directory = Path(name)
        times = [await takeover(directory) for _ in range(arguments.rounds)]
        return {
            "takeover_seconds": [round(seconds, 2) for seconds in times],
            "takeover_in_leases": [round(seconds / _LEASE_SECONDS, 2) for seconds in times],
            "ways_over_loopback": await ways(directory, arguments.size_bytes, arguments.rounds, 0),
            "ways_over_a_link_of_100_mb_per_second": await ways(
                directory, arguments.size_bytes, arguments.rounds, 100_000_000
            ),
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-bytes", type=int, default=1024 * MEBIBYTE)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", default=None)
    print(json.dumps(asyncio.run(measure(parser.parse_args())), indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

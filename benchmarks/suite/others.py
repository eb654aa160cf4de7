"""What other calls notice of uploads, and how long the loop stood still: ours and the naive one in turns; and
what a second worker gives."""

from __future__ import annotations

import asyncio
import statistics
from pathlib import Path
from typing import Any

import grpc
from model_ingest.v1.ingest_service_pb2 import GetIngestRequest

from benchmarks.main_path import latencies, percentiles
from benchmarks.suite.sides import SIDES, Server, new_file, send
from benchmarks.workers import measured as beside_workers
from tests.support.files import create_request
from tests.support.stubs import IngestStub, ingest_stub

UPLOADS = 8
_IDLE_SECONDS = 3.0


async def _ask(stub: IngestStub, name: str, seconds: float) -> list[float]:
    until = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, until.set)
    return await latencies(stub, name, until)


async def _turn(server: Server, files: list[tuple[str, str]], number: int) -> dict[str, Any]:
    """GetIngest at rest, then beside saturating uploads."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(server.address, options=options) as channel:
        stub = ingest_stub(channel)
        known = (await stub.CreateIngest(create_request(100_000, f"known-{number}"))).name
        await stub.GetIngest(GetIngestRequest(name=known))
        idle = await _ask(stub, known, _IDLE_SECONDS)
        done = asyncio.Event()
        asking = asyncio.create_task(latencies(stub, known, done))
        try:
            await send(server, "thin", files, f"beside-{number}")
        finally:
            done.set()
        return {"idle": percentiles(idle), "loaded": percentiles(await asking)}


async def unary(directory: Path, size_bytes: int, rounds: int) -> dict[str, Any]:
    """p50 and p99 of GetIngest under 8 uploads, and the histograms of both loops."""
    turns: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    loops: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for number in range(rounds):
        files = [new_file(directory / f"{n}.gguf", size_bytes // UPLOADS) for n in range(UPLOADS)]
        for side, start in SIDES.items():
            async with start(directory / f"unary-{side}-{number}") as server:
                turns[side].append(await _turn(server, files, number))
            loops[side].append(server.loop)
    told: dict[str, Any] = {"uploads": UPLOADS}
    for side, each in turns.items():
        told[side] = {
            f"{when}_{what}": round(statistics.median(turn[when][what] for turn in each), 2)
            for when in ("idle", "loaded")
            for what in ("p50_ms", "p99_ms", "max_ms")
        }
        told[side]["p99_loaded_to_idle"] = round(
            statistics.median(turn["loaded"]["p99_ms"] / turn["idle"]["p99_ms"] for turn in each), 1
        )
        told[side]["loop"] = loops[side]
    told["p99_loaded_naive_to_ours"] = round(
        told["naive"]["loaded_p99_ms"] / told["ours"]["loaded_p99_ms"], 1
    )
    return told


async def workers(directory: Path, size_bytes: int, rounds: int) -> dict[str, Any]:
    """`benchmarks.workers`: 1 and 2 workers with 4 and 16 clients."""
    found: dict[tuple[int, int], list[dict[str, float]]] = {}
    for _ in range(rounds):
        for clients in (4, 16):
            for count in (1, 2):
                run = await beside_workers(count, clients, size_bytes, directory)
                found.setdefault((count, clients), []).append(run)
    return {
        f"{clients} clients": {
            what: [[round(run[what], 2) for run in found[count, clients]] for count in (1, 2)]
            for what in found[1, clients][0]
        }
        for clients in (4, 16)
    }

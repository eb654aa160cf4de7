"""The database is lost, the blobs are kept: `rebuild` lists them again.

Breaks when: a blob is believed without reading it, a set that is not whole is listed, a rebuild runs beside a
service, a repeated one lists twice, or what it leaves in the catalog cannot be deployed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from model_ingest.v1 import catalog_service_pb2, resources_pb2
from model_ingest.v1.ingest_service_pb2 import WatchIngestRequest

from ingest_service import rebuilding
from ingest_service.app import Service
from ingest_service.ingests.rebuild import Outcome, Progress, RebuildReport, Told
from ingest_service.process import StartError, StoreInUse
from tests.conftest import StartService
from tests.faults.client import get
from tests.faults.conftest import new_url
from tests.faults.invariants import blob_names, quarantined
from tests.ollama_emulator import OllamaEmulator
from tests.support.files import create_request, digest, gguf, push
from tests.support.models import ADAPTER, MODEL, PROJECTOR, model, shard
from tests.support.service import ROOT, RunningService, environment, settings_for

__all__ = ["new_url"]

FIRST, SECOND = gguf(200_000), gguf(100_000, seed=1)
SHARDS = [
    model(4000, 1, shard(0, 2, 2) | {"general.name": "Split Model"}, ("a",)),
    model(4000, 2, shard(1, 2, 2), ("b",)),
]
LONELY = model(4000, 3, shard(0, 3, 3) | {"general.name": "Lonely"}, ("a",))
UNNAMED = model(5000, 4, {key: value for key, value in MODEL.items() if key != "general.name"})
LEFT = [model(3000, 5, ADAPTER), model(3000, 6, PROJECTOR), b'{"not": "a model"}', UNNAMED]


def lay(data_dir: Path, *contents: bytes, under: str = "blobs") -> None:
    (data_dir / under).mkdir(exist_ok=True)
    for content in contents:
        (data_dir / under / digest(content).replace(":", "-")).write_bytes(content)


async def stopped_store(start_service: StartService, *pushed: bytes) -> Path:
    """The data directory of a service that has stored these, and was stopped."""
    running: RunningService = await start_service()
    for number, data in enumerate(pushed):
        await push(running.ingests, data, f"old-{number}")
    await running.service.stop(0.0)
    return running.settings.data_dir


async def rebuild(
    data_dir: Path,
    url: str,
    names: dict[str, str] | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> tuple[list[Told], RebuildReport]:
    told: list[Told] = []
    service = Service(settings_for(data_dir, url))
    report = await rebuilding._run(service, names or {}, told.append, on_progress)
    return told, report


@pytest.mark.extended_when("postgresql")
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_lost_database_is_rebuilt_from_the_blobs_and_a_model_can_be_deployed(
    kind: str, new_url: Callable[[str], str], start_service: StartService, emulator: OllamaEmulator
) -> None:
    data_dir = await stopped_store(start_service, FIRST, SECOND)
    lay(data_dir, *SHARDS, LONELY, *LEFT)
    url = new_url(kind)
    with pytest.raises(StartError, match="python -m ingest_service rebuild"):
        await start_service(data_dir=data_dir, database_url=url)
    names = ("--name", f"{digest(FIRST)}=given:q8", "--name", f"sha256:{'0' * 64}=nobody")
    code, out, err = await run_command(data_dir, url, "--json", *names)
    lines = [json.loads(line) for line in out.splitlines()]
    by_outcome: dict[str, list[Any]] = {}
    for line in lines[:-1]:
        by_outcome.setdefault(line["outcome"], []).append(line)
    assert code == 1, err
    listed = {line["model"]: line["digests"] for line in by_outcome["listed"]}
    assert listed == {
        "given:q8": [digest(FIRST)],
        "sample:latest": [digest(SECOND)],
        "Split-Model:latest": [digest(part) for part in SHARDS],
    }
    left = {line["digests"][0]: line["detail"] for line in by_outcome["left"]}
    assert left.keys() == {digest(data) for data in [LONELY, *LEFT]}
    assert "missing: 2, 3" in left[digest(LONELY)]
    assert lines[-1]["summary"] == {
        "listed": 3, "known": 0, "left": 5, "damaged": 0, "unreadable": 0, "absent": 1
    }  # fmt: skip
    # The operator names what had no name; all else is as it was.
    told, report = await rebuild(data_dir, url, {digest(UNNAMED): "named-later"})
    assert [line.model for line in told if line.outcome is Outcome.LISTED] == ["named-later:latest"]
    assert report.counts[Outcome.KNOWN] == 4

    service = await start_service(f"default={emulator.url}", data_dir=data_dir, database_url=url)
    assert (quarantined(data_dir), len(blob_names(data_dir))) == ([], 9)
    shown = await service.catalog.ListModels(catalog_service_pb2.ListModelsRequest())
    assert {entry.name for entry in shown.models} == {
        f"models/{name.lower()}" for name in (*listed, "named-later:latest")
    }
    deployed = await service.catalog.DeployModel(
        catalog_service_pb2.DeployModelRequest(name="models/given:q8", targets=["default"])
    )
    async for _ in service.ingests.WatchIngest(WatchIngestRequest(name=deployed.name), timeout=60):
        pass
    assert (await get(service.ingests, deployed.name)).state == resources_pb2.Ingest.STATE_READY
    # What no model was made of is sent by nobody, either: it counts as stored until its grace is over.
    asked = await service.ingests.CreateIngest(create_request(UNNAMED, sha256=digest(UNNAMED)))
    assert asked.files[0].deduplicated
    assert await service.service.sweeper.run() is not None
    assert len(blob_names(data_dir)) == 9


async def test_an_interrupted_rebuild_goes_on_and_reads_nothing_twice(
    new_url: Callable[[str], str], start_service: StartService
) -> None:
    data_dir = await stopped_store(start_service, FIRST, SECOND)
    url = new_url("sqlite")

    def interrupt(progress: Progress) -> None:
        if progress.blobs == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    _, report = await rebuild(data_dir, url, on_progress=interrupt)
    assert report.is_interrupted
    with pytest.raises(StartError, match="new, empty"):
        await start_service(data_dir=data_dir, database_url=url)
    # Only what was not read before can be found damaged now.
    first, second = sorted((FIRST, SECOND), key=digest)
    for data in (first, second):
        lay_rotten(data_dir, data)
    told, report = await rebuild(data_dir, url)
    outcomes = {line.digests[0]: line.outcome for line in told}
    assert outcomes == {digest(first): Outcome.LISTED, digest(second): Outcome.DAMAGED}
    assert report.needs_attention
    # And once more: nothing is listed twice.
    told, _ = await rebuild(data_dir, url)
    assert {line.digests[0]: line.outcome for line in told}[digest(first)] is Outcome.KNOWN


def lay_rotten(data_dir: Path, data: bytes) -> None:
    path = data_dir / "blobs" / digest(data).replace(":", "-")
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


async def test_a_damaged_blob_is_put_aside_and_good_ones_in_quarantine_are_taken_back(
    new_url: Callable[[str], str], start_service: StartService
) -> None:
    data_dir = await stopped_store(start_service, FIRST)
    lay_rotten(data_dir, FIRST)
    # A boot on an empty database puts blobs there; both of these say the same name.
    other = gguf(50_000, seed=7)
    lay(data_dir, SECOND, other, under="quarantine")
    url = new_url("sqlite")
    told, report = await rebuild(data_dir, url)
    outcomes = {line.digests[0]: (line.outcome, line.model) for line in told}
    low, high = sorted((digest(SECOND), digest(other)))
    assert outcomes == {
        digest(FIRST): (Outcome.DAMAGED, ""),
        low: (Outcome.LISTED, "sample:latest"),
        high: (Outcome.LISTED, f"sample-{high[7:15]}:latest"),
    }
    assert report.needs_attention
    assert quarantined(data_dir) == [digest(FIRST).replace(":", "-")]
    service = await start_service(data_dir=data_dir, database_url=url)
    assert (await push(service.ingests, FIRST)).state == resources_pb2.Ingest.STATE_STORED


async def test_a_rebuild_and_a_service_never_run_together(
    new_url: Callable[[str], str], start_service: StartService, tmp_path: Path
) -> None:
    running = await start_service()
    lost = tmp_path / "lost.db"
    with pytest.raises(StoreInUse, match="stop it, then rebuild"):
        await rebuild(running.settings.data_dir, f"sqlite+aiosqlite:///{lost}")
    assert not lost.exists()
    await running.service.stop(0.0)
    alone = Service(settings_for(running.settings.data_dir, running.settings.database_url))
    await alone.opened.open(alone=True)
    try:
        with pytest.raises(StartError, match="is being rebuilt"):
            await start_service()
    finally:
        await alone.opened.close()
    with pytest.raises(StartError, match="holds no store"):
        await rebuild(tmp_path / "elsewhere", running.settings.database_url)
    assert not (tmp_path / "elsewhere").exists()


async def run_command(data_dir: Path, url: str, *options: str) -> tuple[int, str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("INGEST_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ingest_service", "rebuild", *options,
        cwd=ROOT, env={**inherited, **environment(data_dir, url)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()

"""`python -m ingest_service sweep` beside a running service: says what would go, and lets it go.

Breaks when: the service's own sweeps keep the lease between them, so that the command never gets its turn.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartService
from tests.faults.client import UPLOADING, get
from tests.faults.crash_states import wreck
from tests.support.files import gguf
from tests.support.service import ROOT, RunningService, environment

pytestmark = pytest.mark.extended_when("postgresql")

DATA = gguf(300_000)


async def run_sweep(service: RunningService, *options: str, **settings: Any) -> tuple[int, str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("INGEST_")}
    data_dir = settings.pop("data_dir", service.settings.data_dir)
    values = environment(data_dir, service.settings.database_url, **settings)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ingest_service", "sweep", *options,
        cwd=ROOT, env={**inherited, **values}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.extended
async def test_a_sweep_by_hand_gets_its_turn_beside_a_running_service(
    database_url: str, start_service: StartService
) -> None:
    service = await start_service(database_url=database_url, sweep_seconds=3600)
    left = await wreck(service, DATA, committed=1000, partial=DATA[:1000])
    async with asyncio.timeout(30):
        # Older than the one second that the command is told.
        while (await service.service.sweeper.run()) is None:
            await asyncio.sleep(0.05)
    await asyncio.sleep(1.1)  # the expiry's own second, by the wall clock of another process
    name = left.ingest.removeprefix("ingests/")
    code, out, err = await run_sweep(service, "--dry-run", upload_expiry_seconds=1)
    store = f"store: {service.settings.data_dir}\n"
    said = store + f"ingest {{}}expired: {name} (1000 bytes)\n1000 bytes {{}}removed\n"
    assert (code, out) == (0, said.format("would be ", "would be ")), err
    assert (await get(service.ingests, left.name)).files[0].state == UPLOADING
    code, out, err = await run_sweep(service, upload_expiry_seconds=1)
    assert (code, out) == (0, said.format("", "")), err
    assert not left.partial.exists()


@pytest.mark.extended
async def test_a_sweep_of_a_directory_that_holds_no_store_makes_none(
    service: RunningService, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    code, out, err = await run_sweep(service, "--dry-run", data_dir=elsewhere)
    assert (code, out) == (2, "")
    assert f"INGEST_DATA_DIR {elsewhere} holds no store" in err
    assert not elsewhere.exists()

"""At least 200 kills: every named step on both databases, and random moments."""

from __future__ import annotations

import asyncio
import random
import uuid
from pathlib import Path

import pytest

from tests.conftest import StartService
from tests.faults.children import Child, stub_of
from tests.faults.client import Told, get, upload_until_the_end
from tests.faults.conftest import NewUrl
from tests.faults.invariants import check_ends_well, check_promises_kept
from tests.faults.test_kill_points import DATA, kill_and_check
from tests.support.files import MEBIBYTE
from tests.support.service import environment

MANY_TIMES = ("write", "sync", "checkpoint")
ONCE = ("create", "verifying", "drain", "publishing", "rename", "dirsync", "publish", "stored")
EVERY_POINT = [
    *(f"{step}:{n}:{phase}" for step in MANY_TIMES for n in (1, 2, 3) for phase in ("before", "after")),
    *(f"{step}:1:{phase}" for step in ONCE for phase in ("before", "after")),
    "complete:1:before", "complete:1:after",
]  # fmt: skip
RANDOM_KILLS = 70
pytestmark = pytest.mark.soak


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("point", EVERY_POINT)
async def test_every_named_step(
    point: str, kind: str, new_url: NewUrl, tmp_path: Path, start_service: StartService
) -> None:
    await kill_and_check(point, new_url(kind), tmp_path, start_service, from_start=kind == "sqlite")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("seed", range(RANDOM_KILLS))
async def test_a_random_moment(
    seed: int, kind: str, new_url: NewUrl, tmp_path: Path, start_service: StartService
) -> None:
    data_dir, told, request_id, url = tmp_path / "data", Told(), str(uuid.uuid4()), new_url(kind)
    variables = environment(data_dir, url, checkpoint_bytes=MEBIBYTE, checkpoint_seconds=0.05)
    child = Child(variables, tmp_path / "log")
    await child.start()

    async def kill_later() -> None:
        # The moment itself is the random input.
        await asyncio.sleep(random.Random(seed).uniform(0, 0.4))
        await child.kill()

    try:
        async with child.channel() as channel, asyncio.TaskGroup() as group:
            group.create_task(kill_later())
            group.create_task(upload_until_the_end(stub_of(channel), told, DATA, request_id))
    finally:
        await child.kill()
    service = await start_service(database_url=url, data_dir=data_dir)
    if told.file_name:
        check_promises_kept((await get(service.ingests, told.file_name)).files[0], told, DATA, data_dir)
    await check_ends_well(service.ingests, told, DATA, data_dir, request_id=request_id)

"""`kill -9` at every named step of an upload: no acknowledged byte is lost and the same push ends well.

Breaks when: the checkpoint row is written before the sync returned would not show here (a kill keeps the page
cache; see test_power_cut.py), but a row told before it is written, a publication that boot does not finish, a
truncation below what was told, or a partial left behind does.
"""

from __future__ import annotations

import signal
import uuid
from pathlib import Path

import pytest

from tests.conftest import StartService
from tests.faults.children import Child, stub_of
from tests.faults.client import Told, get, upload_until_the_end
from tests.faults.conftest import NewUrl
from tests.faults.invariants import check_ends_well, check_promises_kept
from tests.support import loop_guard
from tests.support.files import MEBIBYTE, gguf
from tests.support.service import environment

DATA = gguf(3 * MEBIBYTE + 123)
#: A representative set; each kind of database gets every other one.
POINTS = (
    "create:1:before", "create:1:after", "write:1:before", "write:1:after", "write:3:after",
    "sync:1:before", "sync:1:after", "sync:3:before", "checkpoint:1:before", "checkpoint:2:after",
    "verifying:1:before", "verifying:1:after", "drain:1:before", "drain:1:after",
    "publishing:1:before", "publishing:1:after", "rename:1:before", "rename:1:after",
    "dirsync:1:before", "dirsync:1:after", "stored:1:before", "stored:1:after", "complete:1:after",
)  # fmt: skip


async def kill_and_check(
    point: str,
    url: str,
    tmp_path: Path,
    start_service: StartService,
    *,
    from_start: bool,
    direct_io: str = "auto",
) -> None:
    data_dir, told, request_id = tmp_path / "data", Told(), str(uuid.uuid4())
    variables = environment(
        data_dir, url, checkpoint_bytes=MEBIBYTE, checkpoint_seconds=0.05, direct_io=direct_io
    )
    variables = loop_guard.switched_on({**variables, "FAULT_POINT": point})
    child = Child(variables, tmp_path / "log", "-m", "tests.faults.killable_server")
    await child.start()
    try:
        async with child.channel() as channel:
            await upload_until_the_end(stub_of(channel), told, DATA, request_id)
        assert await child.ended() == -signal.SIGKILL
    finally:
        await child.kill()
    assert f"KILLED AT {point}" in child.log.read_text(), "the point was never come by"
    loop_guard.check_log(child.log)
    service = await start_service(database_url=url, data_dir=data_dir)
    file = (await get(service.ingests, told.file_name)).files[0]
    check_promises_kept(file, told, DATA, data_dir)
    await check_ends_well(service.ingests, told, DATA, data_dir, request_id=request_id, from_start=from_start)


@pytest.mark.extended_unless("rename:1:after")
@pytest.mark.parametrize(("number", "point"), list(enumerate(POINTS)), ids=POINTS)
async def test_a_server_killed_at_a_named_step_loses_nothing(
    number: int, point: str, new_url: NewUrl, tmp_path: Path, start_service: StartService
) -> None:
    url = new_url("postgresql" if number % 2 else "sqlite")
    # Two of the points in a row are of one step: each step is taken in both ways of writing.
    direct_io = "auto" if number // 2 % 2 else "off"
    await kill_and_check(point, url, tmp_path, start_service, from_start=number % 3 == 0, direct_io=direct_io)

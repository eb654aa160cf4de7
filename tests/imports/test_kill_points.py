"""`kill -9` at every named step of an import: afterwards the model is stored, or its file is in the folder.

Breaks when: a file's last name goes before its bytes are stored, a boot cuts bytes that are somebody's file,
or does not go on with what was begun.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import grpc
import pytest
from model_ingest.v1 import resources_pb2
from model_ingest.v1.catalog_service_pb2 import ImportFileRequest
from model_ingest.v1.ingest_service_pb2 import ListIngestsRequest

from tests.conftest import StartService
from tests.faults.children import Child, stub_of
from tests.faults.conftest import NewUrl
from tests.imports.folder import blob, boot_is_over, check_taken_in, claims, drop, ingests
from tests.support.files import MEBIBYTE, gguf
from tests.support.service import environment
from tests.support.stubs import catalog_stub

#: More than two windows of 4 MiB, so that what is copied is committed in several steps.
DATA = gguf(9 * MEBIBYTE + 123)
STORED = resources_pb2.Ingest.STATE_STORED
#: A second name of the file, which needs no copy; each kind of database gets every other one.
SHARED = (
    "made:1:after", "claim:1:after", "shared:1:before", "shared:1:after", "adopt:1:after",
    "checkpoint:1:before", "checkpoint:1:after", "drain:1:after", "away:1:before", "away:1:after",
    "verifying:1:after", "publishing:1:after", "rename:1:after", "stored:1:after", "end:1:before",
    "aside_gone:1:before", "aside_gone:1:after", "end:1:after",
)  # fmt: skip
#: The same for one that is copied.
COPIED = (
    "claim:1:before", "adopt:1:after", "chunk:1:after", "sync:1:after", "checkpoint:2:after", "look:1:before",
    "publishing:1:before", "stored:1:after", "source_gone:1:before", "source_gone:1:after",
)  # fmt: skip
#: These run always, the others with `make soak`.
ALWAYS = {("away:1:after", False), ("checkpoint:2:after", True)}
POINTS = [
    pytest.param(
        number,
        point,
        copied,
        marks=() if (point, copied) in ALWAYS else pytest.mark.soak,
        id=f"{point}-{'copied' if copied else 'shared'}",
    )
    for number, (point, copied) in enumerate([(p, False) for p in SHARED] + [(p, True) for p in COPIED])
]


def killed_at(point: str, tmp_path: Path, url: str, **settings: str) -> Child:
    variables = environment(
        tmp_path / "data",
        url,
        window_bytes=4 * MEBIBYTE,
        checkpoint_bytes=MEBIBYTE,
        checkpoint_seconds=0.05,
        **settings,
    )
    variables |= {"FAULT_POINT": point, "FAULT_FROM": "boot"}
    return Child(variables, tmp_path / "log", "-m", "tests.faults.killable_server")


def dropped(tmp_path: Path, *, copied: bool) -> Path:
    path = drop(tmp_path / "data", DATA)
    if copied:
        os.link(path, tmp_path / "other name")
    return path


def check_not_lost(tmp_path: Path) -> None:
    """Whatever the point: without any boot somebody can still find the bytes."""
    data_dir = tmp_path / "data"
    places = [
        *(data_dir / "import").iterdir(),
        *(data_dir / "uploads").glob("*.source"),
        blob(data_dir, DATA),
    ]
    assert any(place.is_file() and place.read_bytes() == DATA for place in places)


@pytest.mark.extended
@pytest.mark.parametrize(("number", "point", "copied"), POINTS)
async def test_a_boot_goes_on_with_what_a_killed_boot_began(
    number: int, point: str, copied: bool, new_url: NewUrl, tmp_path: Path, start_service: StartService
) -> None:
    url = new_url("postgresql" if number % 2 else "sqlite")
    dropped(tmp_path, copied=copied)
    child = killed_at(point, tmp_path, url)
    await child.spawn()
    try:
        assert await child.ended() == -signal.SIGKILL
    finally:
        await child.kill()
    assert f"KILLED AT {point}" in child.log.read_text(), "the point was never come by"
    check_not_lost(tmp_path)
    for _ in range(1 if (point, copied) in ALWAYS else 2):
        # The second finds nothing to do.
        service = await start_service(database_url=url, data_dir=tmp_path / "data")
        await boot_is_over(service)
        assert [(one.model, one.state) for one in await ingests(service)] == [("model:latest", STORED)]
        check_taken_in(tmp_path / "data", DATA)
        await service.service.stop(0.0)


@pytest.mark.soak
async def test_a_call_that_was_answered_is_gone_on_with_at_boot(
    database_url: str, tmp_path: Path, start_service: StartService
) -> None:
    child = killed_at("checkpoint:1:before", tmp_path, database_url, import_at_boot="false")
    await child.start()
    try:
        path = dropped(tmp_path, copied=False)
        async with child.channel() as channel:
            request = ImportFileRequest(file_name=path.name, model="named", request_id="r")
            try:
                await catalog_stub(channel).ImportFile(request)
            except grpc.aio.AioRpcError as error:
                # Killed before the answer was out; the claim was there by then.
                assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017
        assert await child.ended() == -signal.SIGKILL
    finally:
        await child.kill()
    service = await start_service(database_url=database_url, import_at_boot="false")
    await boot_is_over(service)
    assert [(one.model, one.state) for one in await ingests(service)] == [("named:latest", STORED)]
    check_taken_in(tmp_path / "data", DATA)


@pytest.mark.soak
async def test_two_processes_that_start_on_one_directory_take_each_file_in_once(
    new_url: NewUrl, tmp_path: Path
) -> None:
    data_dir, variables = tmp_path / "data", environment(tmp_path / "data", new_url("postgresql"))
    first, *others = (Child(variables, tmp_path / f"log{number}") for number in range(3))
    contents = [gguf(MEBIBYTE, seed=number) for number in range(6)]
    try:
        # Else they race for the new store as well.
        await first.start()
        await first.kill()
        for number, data in enumerate(contents):
            path = drop(data_dir, data, f"model-{number}.gguf")
            if number % 2:
                os.link(path, tmp_path / path.name)
        await asyncio.gather(*(child.start() for child in others))
        async with asyncio.timeout(60):
            while list((data_dir / "import").iterdir()) or claims(data_dir):
                await asyncio.sleep(0.02)
        async with others[0].channel() as channel:
            made = (await stub_of(channel).ListIngests(ListIngestsRequest())).ingests
    finally:
        for child in (first, *others):
            await child.kill()
    assert sorted(ingest.model for ingest in made) == [f"model-{number}:latest" for number in range(6)]
    assert {ingest.state for ingest in made} == {STORED}
    for data in contents:
        assert blob(data_dir, data).read_bytes() == data

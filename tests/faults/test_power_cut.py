"""A power cut right after an acknowledgement: an ext4 image is shut down without its log, and mounted again.

Breaks when: a committed_size or a STORED is told before the bytes, their name and their row are on the disk.
The control takes the data's own syncs away and must see the loss.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import shutil
import struct
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import StartService
from tests.faults.children import Child, broken, stub_of
from tests.faults.client import Told, get, messages, upload_until_the_end
from tests.faults.invariants import check_ends_well, check_promises_kept
from tests.support.files import MEBIBYTE, create_request, digest, gguf
from tests.support.service import environment

DATA = gguf(3 * MEBIBYTE + 77)
REQUEST_ID = str(uuid.UUID(int=1))
RANDOM_CUTS = 25
#: EXT4_IOC_SHUTDOWN; 2: not even the journal is written (security.md section 6).
SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2


class Disk:
    """An ext4 file system on a loop device, whose power can be cut."""

    def __init__(self, directory: Path) -> None:
        self.image, self.mounted_at = directory / "disk.img", directory / "disk"
        self.mounted_at.mkdir()
        with self.image.open("wb") as sink:
            sink.truncate(96 * MEBIBYTE)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self.image)], check=True)
        self.mount()

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", str(self.image), str(self.mounted_at)], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.mounted_at)], check=True)

    def cut_power(self) -> None:
        """From now on nothing reaches the disk; what only lay in memory is gone."""
        descriptor = os.open(self.mounted_at, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)


@pytest.fixture
def disk(needs_root: None, tmp_path: Path) -> Iterator[Disk]:
    for tool in ("mkfs.ext4", "mount", "umount"):
        assert shutil.which(tool), f"{tool} is not installed"
    made = Disk(tmp_path)
    yield made
    subprocess.run(["umount", "-l", str(made.mounted_at)], check=False, stderr=subprocess.DEVNULL)


def child_on(disk: Disk, tmp_path: Path, url: str, way: str = "") -> Child:
    variables = environment(
        disk.mounted_at / "data", url, checkpoint_bytes=MEBIBYTE, checkpoint_seconds=0.05,
        readiness_seconds=300, free_floor_bytes=0,
    )  # fmt: skip
    log = tmp_path / "log"
    return broken(way, variables, log) if way else Child(variables, log)


async def cut_power(disk: Disk, child: Child) -> None:
    """The processor stops with the disk: what the service has not said by now, it will never say.

    An fdatasync that is under way during the ioctl may answer "done" about bytes that are lost; no real power
    cut lets anybody hear that answer.
    """
    child.stop_for_now()
    async with asyncio.timeout(60):
        while not child.stands_still():
            await asyncio.sleep(0.001)
    disk.cut_power()
    await child.kill()


async def until_power_cut(disk: Disk, tmp_path: Path, when: str, url: str, way: str = "") -> Told:
    """Uploads until the acknowledgement `when` (`committed` or `stored`), cuts the power at once."""
    told = Told()
    child = child_on(disk, tmp_path, url, way)
    await child.start()
    try:
        if way:
            # What the boot wrote is on the disk; only what the upload writes is at stake.
            subprocess.run(["sync", "-f", str(disk.mounted_at)], check=True)
        async with child.channel() as channel:
            stub = stub_of(channel)
            ingest = await stub.CreateIngest(create_request(DATA, request_id=REQUEST_ID))
            told.file_name = ingest.files[0].name
            call = stub.Upload(timeout=60)
            for message in messages(told.file_name, DATA, finish=when == "stored"):
                await call.write(message)
            if when == "stored":
                await call.done_writing()
                told.note(await call)
            else:
                while told.most < 2 * MEBIBYTE:
                    told.note((await get(stub, told.file_name)).files[0])
            await cut_power(disk, child)
            call.cancel()
    finally:
        await child.kill()
    disk.unmount()
    disk.mount()
    return told


def url_on(database_on: str, disk: Disk, tmp_path: Path) -> str:
    # SQLite's own syncs on the same disk write the journal, and with it what the service forgot to sync:
    # only with the database elsewhere does the store stand alone.
    root = disk.mounted_at if database_on == "the same disk" else tmp_path
    return f"sqlite+aiosqlite:///{root / 'ingest.db'}"


async def check_after_power_cut(disk: Disk, told: Told, url: str, start_service: StartService) -> None:
    data_dir = disk.mounted_at / "data"
    service = await start_service(database_url=url, data_dir=data_dir, free_floor_bytes=0)
    try:
        if told.file_name:
            file = (await get(service.ingests, told.file_name)).files[0]
            check_promises_kept(file, told, DATA, data_dir)
        await check_ends_well(service.ingests, told, DATA, data_dir, request_id=REQUEST_ID)
    finally:
        await service.service.stop(0.0)


@pytest.mark.extended_unless("committed-another")
@pytest.mark.parametrize(
    "database_on", [pytest.param("the same disk", marks=pytest.mark.soak), "another disk"]
)
@pytest.mark.parametrize("when", ["committed", "stored"])
async def test_what_was_acknowledged_is_there_after_a_power_cut(
    when: str, database_on: str, disk: Disk, tmp_path: Path, start_service: StartService
) -> None:
    url = url_on(database_on, disk, tmp_path)
    told = await until_power_cut(disk, tmp_path, when, url)
    await check_after_power_cut(disk, told, url, start_service)


@pytest.mark.soak
@pytest.mark.parametrize("database_on", ["the same disk", "another disk"])
@pytest.mark.parametrize("seed", range(RANDOM_CUTS))
async def test_what_was_acknowledged_is_there_after_a_power_cut_at_a_random_moment(
    seed: int, database_on: str, disk: Disk, tmp_path: Path, start_service: StartService
) -> None:
    url, told = url_on(database_on, disk, tmp_path), Told()
    child = child_on(disk, tmp_path, url)
    await child.start()

    async def cut_later() -> None:
        # The moment itself is the random input.
        await asyncio.sleep(random.Random(seed).uniform(0, 0.5))
        await cut_power(disk, child)

    try:
        async with child.channel() as channel, asyncio.TaskGroup() as group:
            group.create_task(cut_later())
            group.create_task(upload_until_the_end(stub_of(channel), told, DATA, REQUEST_ID))
    finally:
        await child.kill()
    disk.unmount()
    disk.mount()
    print(f"told: {told.most} committed, stored: {told.stored}")
    await check_after_power_cut(disk, told, url, start_service)


@pytest.mark.extended
async def test_the_control_without_syncs_is_seen_to_lose_acknowledged_bytes(
    disk: Disk, tmp_path: Path
) -> None:
    url = url_on("another disk", disk, tmp_path)
    told = await until_power_cut(disk, tmp_path, "stored", url, "syncs nothing")
    assert told.stored
    blob = disk.mounted_at / "data" / "blobs" / digest(DATA).replace(":", "-")
    assert not blob.exists() or blob.read_bytes() != DATA, "this proof cannot see lost bytes"

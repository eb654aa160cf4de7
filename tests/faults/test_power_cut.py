"""A power cut right after an acknowledgement: an ext4 image is shut down without its log, and mounted again.

Breaks when: a committed_size or a STORED is told before the bytes, their name and their row are on the disk.
The control takes the data's own syncs away and must see the loss.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import StartService
from tests.faults.children import Child, stub_of
from tests.faults.client import Told, get, messages
from tests.faults.invariants import check_ends_well, check_promises_kept
from tests.support.files import MEBIBYTE, create_request, digest, gguf
from tests.support.service import environment

DATA = gguf(3 * MEBIBYTE + 77)
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


async def until_power_cut(
    disk: Disk, tmp_path: Path, when: str, url: str, *, without_syncs: bool = False
) -> Told:
    """Uploads until the acknowledgement `when` (`committed` or `stored`), cuts the power at once."""
    root, told = disk.mounted_at, Told()
    variables = environment(
        root / "data", url, checkpoint_bytes=MEBIBYTE, checkpoint_seconds=0.05, readiness_seconds=300,
        free_floor_bytes=0,
    )  # fmt: skip
    if without_syncs:
        variables["NO_SYNC"] = "1"
    child = Child(variables, tmp_path / "log", "-m", "tests.faults.power_cut_server")
    await child.start()
    try:
        if without_syncs:
            # What the boot wrote is on the disk; only what the upload writes is at stake.
            os.sync()
        async with child.channel() as channel:
            stub = stub_of(channel)
            ingest = await stub.CreateIngest(create_request(DATA, request_id=str(uuid.UUID(int=1))))
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
            disk.cut_power()
            call.cancel()
    finally:
        await child.kill()
    disk.unmount()
    disk.mount()
    return told


@pytest.mark.parametrize("database_on", ["the same disk", "another disk"])
@pytest.mark.parametrize("when", ["committed", "stored"])
async def test_what_was_acknowledged_is_there_after_a_power_cut(
    when: str, database_on: str, disk: Disk, tmp_path: Path, start_service: StartService
) -> None:
    # SQLite's own syncs on the same disk write the journal, and with it what the service forgot to sync:
    # only with the database elsewhere does the store stand alone.
    root = disk.mounted_at
    url = f"sqlite+aiosqlite:///{(root if database_on == 'the same disk' else tmp_path) / 'ingest.db'}"
    told = await until_power_cut(disk, tmp_path, when, url)
    service = await start_service(database_url=url, data_dir=root / "data", free_floor_bytes=0)
    file = (await get(service.ingests, told.file_name)).files[0]
    check_promises_kept(file, told, DATA, root / "data")
    await check_ends_well(service.ingests, told, DATA, root / "data", request_id=str(uuid.UUID(int=1)))
    await service.service.stop(0.0)


async def test_the_control_without_syncs_is_seen_to_lose_acknowledged_bytes(
    disk: Disk, tmp_path: Path
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'ingest.db'}"
    told = await until_power_cut(disk, tmp_path, "stored", url, without_syncs=True)
    assert told.stored
    blob = disk.mounted_at / "data" / "blobs" / digest(DATA).replace(":", "-")
    assert not blob.exists() or blob.read_bytes() != DATA, "this proof cannot see lost bytes"

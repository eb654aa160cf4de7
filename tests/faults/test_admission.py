"""Room before bytes: what was promised counts as taken, lapses if no byte comes, and the floor is kept.

Breaks when: reservations are not summed, never lapse, or the floor is given away.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import cast

import grpc
import pytest

from ingest_service.app import now
from ingest_service.ingests.admission import Admission
from ingest_service.ingests.limits import Limits
from ingest_service.storage import BlobStore
from tests.conftest import StartService
from tests.faults.client import STORED, messages, reason_of, upload
from tests.support.files import MEBIBYTE, create_request, gguf

pytestmark = pytest.mark.extended_when("postgresql")


@pytest.fixture
def small_disk(needs_root: None, tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


async def test_promised_room_is_not_promised_twice_until_the_promise_lapses(
    small_disk: Path, database_url: str, start_service: StartService
) -> None:
    service = await start_service(
        data_dir=small_disk / "data", database_url=database_url, free_floor_bytes=4 * MEBIBYTE
    )
    first = await service.ingests.CreateIngest(create_request(8 * MEBIBYTE, "first"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.ingests.CreateIngest(create_request(8 * MEBIBYTE, "second"))
    assert reason_of(caught.value) == "STORAGE_FULL"
    # The floor: it would fit on the disk, and is refused.
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.ingests.CreateIngest(create_request(5 * MEBIBYTE, "floor"))
    assert reason_of(caught.value) == "STORAGE_FULL"
    service.service.ingests._admission._clock = lambda: now() + timedelta(minutes=11)
    data = gguf(8 * MEBIBYTE)
    second = await service.ingests.CreateIngest(create_request(data, "second"))
    assert (await upload(service.ingests, messages(second.files[0].name, data))).state == STORED
    # The first comes too late: its room went to another.
    service.service.uploads._moves._admission._clock = lambda: now() + timedelta(minutes=11)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await upload(service.ingests, messages(first.files[0].name, data))
    assert reason_of(caught.value) == "STORAGE_FULL"


def test_room_that_was_promised_tomorrow_has_lapsed() -> None:
    moment = now()
    admission = Admission(cast("BlobStore", None), Limits(), clock=lambda: moment)
    lapsed = {
        seconds: admission.has_lapsed(moment + timedelta(seconds=seconds)) for seconds in (0, 30, 86_400)
    }
    assert lapsed == {0: False, 30: False, 86_400: True}

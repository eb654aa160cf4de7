"""Blobs in quarantine that are pushed again: taken back, stored once, and never believed by their names.

Breaks when: a push does not look in quarantine, believes a name there, loses a copy that differs, or leaves
the same bytes in two places.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from pathlib import Path

import pytest
from model_ingest.v1 import resources_pb2

from ingest_service.blobs import taking_back
from ingest_service.storage import QuarantinedCopy
from tests.conftest import StartService
from tests.faults.client import STORED
from tests.faults.invariants import blob_names, quarantined
from tests.support.files import create_request, digest, gguf, push
from tests.support.service import RunningService

pytestmark = pytest.mark.extended_when("postgresql")

DATA = gguf(300_000)
NAME = digest(DATA).replace(":", "-")


def put_aside(data_dir: Path, content: bytes = DATA, name: str = NAME) -> Path:
    directory = data_dir / "quarantine"
    directory.mkdir(mode=0o700, exist_ok=True)
    (directory / name).write_bytes(content)
    return directory / name


async def until_quarantine_was_looked_at(service: RunningService) -> None:
    async with asyncio.timeout(30):
        while service.service.taking_back._tasks:
            await asyncio.sleep(0.005)


async def test_a_quarantined_blob_whose_digest_is_declared_is_taken_back_and_nothing_is_sent(
    database_url: str, start_service: StartService
) -> None:
    service = await start_service(database_url=database_url)
    data_dir = service.settings.data_dir
    # Under the name that a second quarantine of the same bytes gets; the first one's bytes are rotten.
    put_aside(data_dir, DATA[:-1] + bytes([DATA[-1] ^ 1]))
    put_aside(data_dir, DATA, f"{NAME}.0123abcd").chmod(0o600)
    ingest = await service.ingests.CreateIngest(create_request(DATA, sha256=digest(DATA)))
    assert (ingest.state, ingest.files[0].state) == (resources_pb2.Ingest.STATE_STORED, STORED)
    assert ingest.files[0].deduplicated
    blob = data_dir / "blobs" / NAME
    assert blob.read_bytes() == DATA
    assert blob.stat().st_mode & 0o777 == 0o644
    assert quarantined(data_dir) == [NAME]
    # A boot finds all as it should be.
    await service.service.recovery.at_boot()
    assert blob_names(data_dir) == {NAME}


async def test_a_quarantined_blob_that_is_sent_again_is_stored_once(
    database_url: str, start_service: StartService
) -> None:
    service = await start_service(database_url=database_url)
    put_aside(service.settings.data_dir)
    assert (await push(service.ingests, DATA)).state == resources_pb2.Ingest.STATE_STORED
    await until_quarantine_was_looked_at(service)
    assert quarantined(service.settings.data_dir) == []
    assert (service.settings.data_dir / "blobs" / NAME).read_bytes() == DATA


async def test_quarantine_is_not_looked_at_for_what_is_stored(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start_service()
    await push(service.ingests, DATA)
    await until_quarantine_was_looked_at(service)
    asked: list[set[str]] = []

    async def copies(of: Collection[str]) -> list[QuarantinedCopy]:
        asked.append(set(of))
        return []

    monkeypatch.setattr(service.service.quarantine, "copies", copies)
    again = await service.ingests.CreateIngest(create_request(DATA, "again", sha256=digest(DATA)))
    assert again.files[0].deduplicated
    assert asked == []
    other = digest(gguf(301_000))
    await service.ingests.CreateIngest(create_request(gguf(301_000), "other", sha256=other))
    assert asked == [{other}]


async def test_a_quarantine_that_cannot_be_listed_keeps_no_client_waiting(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start_service()
    stuck, listings = asyncio.Event(), 0

    async def copies(of: Collection[str]) -> list[QuarantinedCopy]:
        nonlocal listings
        listings += 1
        await stuck.wait()
        return []

    monkeypatch.setattr(taking_back, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(taking_back, "_MAX_LISTINGS", 2)
    monkeypatch.setattr(service.service.quarantine, "copies", copies)
    for number in range(4):
        data = gguf(300_000 + number * 1000)
        asked = await service.ingests.CreateIngest(
            create_request(data, f"m{number}", sha256=digest(data)), timeout=30
        )
        assert not asked.files[0].deduplicated
    # Each of them waits for a thread that does not come back: there is no end of clients.
    assert listings == 2
    stuck.set()


async def test_a_copy_that_is_not_what_its_name_says_is_neither_used_nor_removed(
    start_service: StartService, caplog: pytest.LogCaptureFixture
) -> None:
    service = await start_service()
    rotten = DATA[:-1] + bytes([DATA[-1] ^ 1])
    aside = put_aside(service.settings.data_dir, rotten)
    with caplog.at_level(logging.ERROR):
        asked = await service.ingests.CreateIngest(create_request(DATA, sha256=digest(DATA)))
    assert not asked.files[0].deduplicated
    assert "a blob in quarantine is not what its name says" in caplog.text
    assert (await push(service.ingests, DATA, "pushed")).state == resources_pb2.Ingest.STATE_STORED
    await until_quarantine_was_looked_at(service)
    assert aside.read_bytes() == rotten
    assert (service.settings.data_dir / "blobs" / NAME).read_bytes() == DATA

"""Every state a crash can leave is put right at boot, with a log line, and no committed byte lost.

Breaks when: boot cuts below committed, leaves VERIFYING or PUBLISHING, removes what it does not know, or
keeps a LIVE row without its bytes.
"""

from __future__ import annotations

import logging

import pytest
from model_ingest.v1 import errors_pb2, resources_pb2

from ingest_service.vocabulary.states import FileState
from tests.conftest import StartService
from tests.faults.client import STORED, UPLOADING, get, messages, upload
from tests.faults.crash_states import Wreck, wreck
from tests.faults.invariants import blob_names, partials, quarantined
from tests.support.files import digest, gguf, push
from tests.support.service import RunningService

pytestmark = pytest.mark.extended_when("postgresql")

DATA = gguf(300_000)
HALF = 150_000
#: state, committed size, partial, blob -> state after the boot, what the log says.
RESUMABLE = {
    "a row and nothing else": (FileState.UPLOADING, 0, None, ""),
    "an empty partial": (FileState.UPLOADING, 0, b"", ""),
    "a partial longer than committed": (
        FileState.UPLOADING,
        HALF,
        DATA[:HALF] + b"torn" * 99,
        "cut a partial",
    ),
    "a partial as long as committed": (FileState.UPLOADING, HALF, DATA[:HALF], ""),
    "VERIFYING without a process": (FileState.VERIFYING, HALF, DATA, "can be finished again"),
    "VERIFYING, all committed": (FileState.VERIFYING, len(DATA), DATA, "can be finished again"),
}


async def restarted(start_service: StartService, former: RunningService) -> RunningService:
    await former.service.stop(0.0)
    service: RunningService = await start_service(database_url=former.settings.database_url)
    return service


async def ends_well(service: RunningService, left: Wreck) -> None:
    file = (await get(service.ingests, left.name)).files[0]
    if file.state != STORED:
        file = await upload(service.ingests, messages(left.name, DATA, start=file.committed_size))
    assert (file.state, file.sha256) == (STORED, digest(DATA))
    assert left.blob.read_bytes() == DATA
    assert partials(left.data_dir) == []


@pytest.mark.extended_unless("longer than")
@pytest.mark.parametrize("case", RESUMABLE)
async def test_an_upload_that_was_cut_off_goes_on_where_its_committed_bytes_end(
    case: str, database_url: str, start_service: StartService, caplog: pytest.LogCaptureFixture
) -> None:
    state, committed, partial, said = RESUMABLE[case]
    before = await start_service(database_url=database_url)
    left = await wreck(before, DATA, state=state, committed=committed, partial=partial)
    with caplog.at_level(logging.INFO):
        service = await restarted(start_service, before)
    assert said in caplog.text
    file = (await get(service.ingests, left.name)).files[0]
    assert (file.state, file.committed_size) == (UPLOADING, committed)
    if partial is not None:
        assert left.partial.stat().st_size == committed
    await ends_well(service, left)


@pytest.mark.extended_unless("None-blob1")
@pytest.mark.parametrize(("partial", "blob"), [(DATA, None), (None, DATA), (DATA, DATA), (DATA, b"rotten")])
async def test_a_publication_is_finished_from_whichever_of_partial_and_blob_there_is(
    partial: bytes | None, blob: bytes | None, database_url: str, start_service: StartService
) -> None:
    before = await start_service(database_url=database_url)
    left = await wreck(before, DATA, state=FileState.PUBLISHING, partial=partial, blob=blob)
    service = await restarted(start_service, before)
    ingest = await get(service.ingests, left.name)
    assert (ingest.state, ingest.files[0].state) == (resources_pb2.Ingest.STATE_STORED, STORED)
    assert quarantined(left.data_dir) == []
    await ends_well(service, left)


@pytest.mark.extended_unless("UPLOADING-partial1")
@pytest.mark.parametrize(
    ("state", "partial"),
    [
        (FileState.UPLOADING, None),
        (FileState.UPLOADING, DATA[: HALF - 1]),
        (FileState.VERIFYING, DATA[: HALF - 1]),
        (FileState.PUBLISHING, None),
        (FileState.PUBLISHING, DATA[:-1]),
    ],
)
async def test_committed_bytes_that_are_gone_are_said_to_be_gone(
    state: FileState, partial: bytes | None, database_url: str, start_service: StartService
) -> None:
    before = await start_service(database_url=database_url)
    left = await wreck(before, DATA, state=state, committed=HALF, partial=partial)
    service = await restarted(start_service, before)
    ingest = await get(service.ingests, left.name)
    assert ingest.state == resources_pb2.Ingest.STATE_FAILED
    assert ingest.failure.reason == errors_pb2.STORAGE_FAILED
    assert (partials(left.data_dir), blob_names(left.data_dir)) == ([], set())
    assert (await push(service.ingests, DATA, "anew")).state == resources_pb2.Ingest.STATE_STORED


async def test_a_partial_without_a_row_goes_and_a_blob_without_a_row_is_kept_aside(
    database_url: str, start_service: StartService, caplog: pytest.LogCaptureFixture
) -> None:
    before = await start_service(database_url=database_url)
    data_dir = before.settings.data_dir
    (data_dir / "uploads" / f"{'ab' * 12}.part").write_bytes(b"orphan")
    stray = data_dir / "blobs" / digest(DATA).replace(":", "-")
    stray.write_bytes(DATA)
    with caplog.at_level(logging.INFO):
        service = await restarted(start_service, before)
    assert partials(data_dir) == []
    assert blob_names(data_dir) == set()
    assert quarantined(data_dir) == [stray.name]
    assert (data_dir / "quarantine" / stray.name).read_bytes() == DATA
    assert "removed a partial that belongs to no upload" in caplog.text
    assert "quarantined a blob" in caplog.text
    assert await service.service.database.read(lambda tx: tx.blobs.live_sizes()) == {}


@pytest.mark.extended_unless("cut")
@pytest.mark.parametrize("harm", ["gone", "cut"])
async def test_stored_bytes_that_are_gone_are_found_and_healed_by_the_same_push(
    harm: str, database_url: str, start_service: StartService, caplog: pytest.LogCaptureFixture
) -> None:
    before = await start_service(database_url=database_url)
    await push(before.ingests, DATA, "first")
    blob = before.settings.data_dir / "blobs" / digest(DATA).replace(":", "-")
    blob.unlink() if harm == "gone" else blob.write_bytes(DATA[:-1])
    service = await restarted(start_service, before)
    assert "push the same file again" in caplog.text
    assert await service.service.database.read(lambda tx: tx.blobs.live_sizes()) == {}
    again = await push(service.ingests, DATA, "second", sha256=digest(DATA))
    assert again.state == resources_pb2.Ingest.STATE_STORED
    assert not again.files[0].deduplicated
    assert blob.read_bytes() == DATA
    assert digest(DATA) in await service.service.database.read(lambda tx: tx.blobs.live_sizes())


async def test_what_a_live_process_holds_is_left_alone(sqlite_url: str, start_service: StartService) -> None:
    service = await start_service()
    left = await wreck(service, DATA, state=FileState.VERIFYING, committed=HALF, partial=DATA)
    partial = await service.service.store.open_partial(left.file.id)
    assert partial is not None
    try:
        await service.service.recovery.at_boot()
        assert (await left.moves.read(left.file)).state is FileState.VERIFYING
        assert left.partial.read_bytes() == DATA
    finally:
        await partial.close()

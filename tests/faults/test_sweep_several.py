"""The sweep and ingests of several files: what ended before it was stored holds no bytes for ever.

Breaks when: a STORED file counts as a reference whatever became of its ingest, or when the reference of an
ingest that may still be stored, or was stored, is not counted.
"""

from __future__ import annotations

import pytest
from model_ingest.v1.ingest_service_pb2 import CancelIngestRequest, CreateIngestRequest, FileSpec
from model_ingest.v1.resources_pb2 import File, Ingest

from ingest_service.app import now
from tests.conftest import StartService
from tests.faults.client import get, messages, upload
from tests.faults.invariants import blob_names
from tests.faults.test_sweep import sweep
from tests.rpc.refusals import refused
from tests.support.files import digest, gguf, push
from tests.support.models import PROJECTOR as PROJECTOR_PAIRS
from tests.support.models import model as model_bytes
from tests.support.service import RunningService

pytestmark = pytest.mark.extended_when("postgresql")

PROJECTOR = model_bytes(30_000, seed=5, kv=PROJECTOR_PAIRS)
MODEL = gguf(40_000, seed=6)


async def half_stored(service: RunningService, model: str = "half", sha256: str = "") -> Ingest:
    """An ingest of two files, of which the projector is stored."""
    files = [
        FileSpec(file_name="model.gguf", size_bytes=len(MODEL)),
        FileSpec(file_name="mm.gguf", role=File.ROLE_PROJECTOR, size_bytes=len(PROJECTOR), sha256=sha256),
    ]
    ingest = await service.ingests.CreateIngest(CreateIngestRequest(model=model, files=files))
    if not ingest.files[1].deduplicated:
        await upload(service.ingests, messages(ingest.files[1].name, PROJECTOR))
    return ingest


async def end(service: RunningService, ingest: Ingest, how: str) -> None:
    """The ingest ends before it was stored."""
    if how == "CANCELLED":
        await service.ingests.CancelIngest(CancelIngestRequest(name=ingest.name))
    elif how == "EXPIRED":
        await sweep(service, days_later=7.5)
    else:
        bad = b"x" * len(MODEL)
        await refused(upload(service.ingests, messages(ingest.files[0].name, bad)), "FORMAT_INVALID", "magic")
    assert Ingest.State.Name((await get(service.ingests, ingest.name)).state) == f"STATE_{how}"


@pytest.mark.extended_unless("EXPIRED")
@pytest.mark.parametrize("how", ["FAILED", "CANCELLED", "EXPIRED"])
async def test_the_stored_files_of_what_was_never_stored_go_after_their_grace(
    database_url: str, start_service: StartService, how: str
) -> None:
    service = await start_service(database_url=database_url)
    kept = gguf(900_000)
    await push(service.ingests, kept, "kept")
    ingest = await half_stored(service)
    # While it may still be stored, its bytes are referred to, however old they are.
    assert (await sweep(service, days_later=6)).removed_blobs == []
    await end(service, ingest, how)
    if how != "EXPIRED":
        assert (await sweep(service, days_later=0.9)).removed_blobs == []
    removed = (await sweep(service, days_later=8)).removed_blobs
    assert removed == [digest(PROJECTOR)] or how == "EXPIRED"
    assert blob_names(service.settings.data_dir) == {digest(kept).replace(":", "-")}
    assert await service.service.database.read(lambda tx: tx.files.reserved_bytes(now(), now())) == 0


async def test_what_another_ingest_refers_to_stays(database_url: str, start_service: StartService) -> None:
    service = await start_service(database_url=database_url)
    ingest = await half_stored(service)
    also = await half_stored(service, "also", sha256=digest(PROJECTOR))
    await upload(service.ingests, messages(also.files[0].name, MODEL))
    await end(service, ingest, "FAILED")
    assert (await sweep(service, days_later=8, beyond_brake=True)).removed_blobs == []
    assert len(blob_names(service.settings.data_dir)) == 2


async def test_what_was_stored_and_failed_on_its_target_stays(
    database_url: str, start_service: StartService
) -> None:
    """RetryIngest needs the bytes."""
    service = await start_service(
        "a=http://127.0.0.1:9", database_url=database_url, deployment_retry_seconds=0
    )
    ingest = await push(service.ingests, MODEL, "unreachable")
    assert ingest.state == Ingest.STATE_FAILED
    assert (await sweep(service, days_later=8, beyond_brake=True)).removed_blobs == []


async def test_a_file_that_waits_its_turn_is_not_given_up_while_another_one_makes_progress(
    database_url: str, start_service: StartService
) -> None:
    service = await start_service(database_url=database_url)
    ingest = await half_stored(service)

    async def age(tx: object) -> None:
        from datetime import timedelta

        from sqlalchemy import update

        from ingest_service.database.tables import files

        statement = (
            update(files).where(files.c.state == "PENDING").values(progress_at=now() - timedelta(days=8))
        )
        await tx.files._statements.run(statement)  # type: ignore[attr-defined]

    await service.service.database.transact(age)
    assert (await sweep(service)).expired_ingests == []
    assert (await get(service.ingests, ingest.name)).state == Ingest.STATE_UPLOADING
    assert (await sweep(service, days_later=7.5)).expired_ingests == [ingest.name.removeprefix("ingests/")]

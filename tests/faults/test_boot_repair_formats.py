"""What a boot finishes publishing is judged by its name, as an upload is."""

from __future__ import annotations

import pytest
from model_ingest.v1.ingest_service_pb2 import CreateIngestRequest, FileSpec, GetIngestRequest
from model_ingest.v1.resources_pb2 import Ingest
from sqlalchemy import select

from ingest_service.app import now
from ingest_service.database.tables import blobs
from ingest_service.formats import RULES_VERSION
from ingest_service.ingests.file_moves import FileMoves
from ingest_service.vocabulary.states import FileState
from tests.conftest import StartService
from tests.faults.test_boot_repair import restarted
from tests.support.files import digest
from tests.support.models import CONFIG_JSON, TOKENIZER_MODEL

pytestmark = pytest.mark.extended_when("postgresql")

SET = {
    "model.safetensors": b"\x02" + bytes(7) + b"{}",
    "config.json": CONFIG_JSON,
    "tokenizer.model": TOKENIZER_MODEL,
}


async def test_a_set_of_safetensors_in_publication_is_finished(
    database_url: str, start_service: StartService
) -> None:
    before = await start_service(database_url=database_url, allow_safetensors=True)
    specs = [FileSpec(file_name=name, size_bytes=len(data)) for name, data in SET.items()]
    ingest = await before.ingests.CreateIngest(CreateIngestRequest(model="m", files=specs))
    moves = FileMoves(before.service.database, now)
    for name, data in SET.items():
        _, file = await moves.begin(ingest.name.removeprefix("ingests/"), name)
        await moves.move(file, FileState.VERIFYING)
        await moves.move(file, FileState.PUBLISHING, sha256=digest(data), committed_size=len(data))
        (before.settings.data_dir / "uploads" / f"{file.id}.part").write_bytes(data)
    service = await restarted(start_service, before)
    after = await service.ingests.GetIngest(GetIngestRequest(name=ingest.name))
    assert after.state == Ingest.STATE_STORED
    query = select(blobs.c.sha256, blobs.c.format, blobs.c.rules_version)
    found = await service.service.database.read(lambda tx: tx.blobs._statements.run(query))
    rows = list(found)
    assert {row.rules_version for row in rows} == {RULES_VERSION}
    assert {row.sha256: row.format for row in rows} == dict(
        zip(map(digest, SET.values()), ("safetensors", "json", "tokenizer"), strict=True)
    )

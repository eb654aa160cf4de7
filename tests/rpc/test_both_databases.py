"""The main job, the same on SQLite and PostgreSQL."""

from __future__ import annotations

import pytest
from model_ingest.v1 import resources_pb2

from tests.conftest import StartService
from tests.ollama_emulator import OllamaEmulator
from tests.support.files import MEBIBYTE, gguf, push


@pytest.mark.extended_when("sqlite")
async def test_push_to_ready(
    start_service: StartService, emulator: OllamaEmulator, database_url: str
) -> None:
    service = await start_service(f"default={emulator.url}", database_url=database_url)
    ingest = await push(service.ingests, gguf(3 * MEBIBYTE), "both")
    assert ingest.state == resources_pb2.Ingest.STATE_READY

"""A file that takes bytes again after its push was answered VERIFYING is sent again by the same push."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from model_ingest import AsyncClient
from model_ingest.v1.resources_pb2 import Ingest

from ingest_service.storage import Sha256
from ingest_service.storage.buffer import Buffer
from ingest_service.vocabulary.errors import StorageFailed
from tests.ingests.parts import model_bytes
from tests.support.service import RunningService, settings_for


class FailsOnce(Sha256):
    """Slow enough for `finish` to be answered before it fails, as a server does that dies meanwhile."""

    failed = False

    async def update(self, buffers: Sequence[Buffer]) -> None:
        if not FailsOnce.failed:
            FailsOnce.failed = True
            await asyncio.sleep(1.5)
            raise StorageFailed
        await super().update(buffers)


async def test_a_push_goes_on_when_the_verification_was_for_nothing(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "model.gguf"
    path.write_bytes(model_bytes(3 * 1024 * 1024))
    async with RunningService(settings_for(tmp_path / "data", sqlite_url)) as running:
        uploads = running.service.uploads
        uploads._limits = replace(uploads._limits, finish_wait_seconds=0.3)
        uploads._new_hasher = lambda: FailsOnce(running.service.executor)
        async with AsyncClient(running.address) as client, asyncio.timeout(30):
            ingest = await client.push(path, name="test")
    assert FailsOnce.failed
    assert ingest.state == Ingest.STATE_STORED

"""An upload that was stored between the sweep's look and its lock is not expired."""

from __future__ import annotations

import pytest

from ingest_service.ingests.recovery import Recovery
from ingest_service.ingests.sweep import Sweeper, SweepSettings
from ingest_service.vocabulary.states import IngestState
from tests.ingests.parts import KIBIBYTE, Parts, clock, model_bytes, new_id

pytestmark = pytest.mark.extended_when("postgresql")

DATA = model_bytes(50 * KIBIBYTE)


async def test_what_was_stored_meanwhile_is_not_given_up(parts: Parts) -> None:
    ingest = await parts.create(DATA)
    await parts.push(ingest, DATA)
    stored = await parts.ingests.get(ingest.id)
    await parts.database.transact(lambda tx: _forwarding(tx, stored.id))
    recovery = Recovery(parts.database, parts.store, parts.vetting, clock=clock)
    sweeper = Sweeper(parts.database, parts.store, recovery, SweepSettings(), owner=new_id(), clock=clock)
    assert await sweeper._expire_one(ingest.files[0], clock()) is False
    assert (await parts.ingests.get(ingest.id)).state is IngestState.FORWARDING


async def _forwarding(tx: object, ingest_id: str) -> None:
    from dataclasses import replace

    before = await tx.ingests.lock(ingest_id)  # type: ignore[attr-defined]
    after = replace(before, state=IngestState.FORWARDING)
    await tx.ingests.save(before, after, [], clock())  # type: ignore[attr-defined]

"""A store of blobs on each kind of database (`kept`), and readings of it in small pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ingest_service.blobs import Rehasher
from ingest_service.database import Database
from ingest_service.storage import LocalScanner, local_scan
from tests.blobs.parts import Kept, Steered, now


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_scan, "_PIECE_BYTES", 64 * 1024)


@pytest.fixture
def kept(database: Database, tmp_path: Path) -> Kept:
    return Kept(database, tmp_path / "data")


@pytest.fixture
def steered(tmp_path: Path) -> Iterator[Steered]:
    scanner = LocalScanner(tmp_path / "data")
    yield Steered(scanner)
    scanner.close()


@pytest.fixture
async def rehasher(database: Database, steered: Steered) -> AsyncIterator[Rehasher]:
    made = Rehasher(database, steered, clock=now)
    yield made
    await made.close()
    assert steered.open_scans == 0

"""A world on a fresh SQLite database (`world`), and one on each kind of database (`both_worlds`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ingest_service.database import Database
from ingest_service.forwarding import ollama
from tests.forwarding.world import World, open_world
from tests.ollama_emulator import OllamaEmulator


@pytest.fixture
async def sqlite_database(sqlite_url: str) -> AsyncIterator[Database]:
    database = Database(sqlite_url)
    yield database
    await database.close()


@pytest.fixture
async def emulator(tmp_path: Path) -> AsyncIterator[OllamaEmulator]:
    """An Ollama of era A that resets soon after an unread body."""
    async with OllamaEmulator(version="0.24.0", data_dir=tmp_path / "a", reset_delay=0.05) as running:
        yield running


@pytest.fixture
async def world(sqlite_database: Database, tmp_path: Path, emulator: OllamaEmulator) -> AsyncIterator[World]:
    async with open_world(sqlite_database, tmp_path / "data", emulator) as opened:
        yield opened


@pytest.fixture
async def both_worlds(database: Database, tmp_path: Path, emulator: OllamaEmulator) -> AsyncIterator[World]:
    """Runs a test on SQLite and on PostgreSQL."""
    async with open_world(database, tmp_path / "data", emulator) as opened:
        yield opened


@pytest.fixture
def quick_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent create is looked at every few milliseconds."""
    monkeypatch.setattr(ollama, "_ALIVE_CHECK_SECONDS", 0.02)

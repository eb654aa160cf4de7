"""Scenes: one of a test's own, and one that the tests of a module share because each of them is refused."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.ollama_emulator import OllamaEmulator
from tests.rpc.scenes import Scene
from tests.support.service import RunningService, settings_for


@pytest.fixture
def scene(service: RunningService, emulator: OllamaEmulator) -> Scene:
    """A service and its target."""
    return Scene(service, emulator)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> AsyncIterator[Scene]:
    """One for a whole module (`pytest.mark.asyncio(loop_scope="module")`), whose tests store nothing."""
    async with _scene(tmp_path_factory.mktemp("shared"), migrated_sqlite) as scene:
        yield scene


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared_store(
    tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path
) -> AsyncIterator[Scene]:
    """The same for those of its tests that store something."""
    async with _scene(tmp_path_factory.mktemp("shared_store"), migrated_sqlite) as scene:
        yield scene


@contextlib.asynccontextmanager
async def _scene(directory: Path, migrated_sqlite: Path) -> AsyncIterator[Scene]:
    shutil.copy(migrated_sqlite, directory / "test.db")
    async with OllamaEmulator(version="0.24.0", data_dir=directory / "ollama") as emulator:
        settings = settings_for(
            directory / "data", f"sqlite+aiosqlite:///{directory / 'test.db'}", f"default={emulator.url}"
        )
        async with RunningService(settings) as running:
            yield Scene(running, emulator)

"""Parts that the client's tests share."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from model_ingest import AsyncClient, Limits

from tests.client.scripted_server import Script, serve

# Short, so that tests of "never hangs" take no time; the ratios are those of the defaults.
QUICK = Limits(timeout_seconds=3, connect_timeout_seconds=1, stall_seconds=1, patience_seconds=4)

# For tests that wait until the patience is over.
IMPATIENT = replace(QUICK, patience_seconds=1.5)


@pytest.fixture(autouse=True)
def _no_server_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODEL_INGEST_SERVER", raising=False)


@pytest.fixture(autouse=True)
def _nothing_in_the_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The client remembers unfinished pushes; those of tests are nobody's business."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    async with serve(Script()) as running:
        yield running


@pytest.fixture
async def client(script: Script) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(script.address, limits=QUICK) as opened:
        yield opened


@pytest.fixture
async def impatient(script: Script) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(script.address, limits=IMPATIENT) as opened:
        yield opened


@pytest.fixture
def ten_bytes(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"0123456789")
    return path


@pytest.fixture
def big_file(tmp_path: Path) -> Path:
    """5 MiB and a bit: five whole chunks and a rest."""
    path = tmp_path / "big.gguf"
    path.write_bytes(os.urandom(5 * 1024 * 1024 + 17))
    return path

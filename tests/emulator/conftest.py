from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.ollama_emulator import OllamaEmulator


@pytest.fixture
def version() -> str:
    """Override with `@pytest.mark.parametrize("version", [...])`."""
    return "0.24.0"


@pytest.fixture
async def emulator(version: str) -> AsyncIterator[OllamaEmulator]:
    async with OllamaEmulator(version=version, reset_delay=0.1) as running:
        yield running


@pytest.fixture
async def client(emulator: OllamaEmulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=emulator.url, trust_env=False, timeout=20) as http:
        yield http

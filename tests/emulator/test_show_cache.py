"""`modified_at` as real servers answer it: from 0.23.2 on show keeps its first one, tags tells the true one.

Measured on Ollama 0.24.0 and 0.33.0 built from source; the contract does not have it.
"""

from __future__ import annotations

import httpx
import pytest

from tests.emulator.helpers import create, push
from tests.ollama_emulator import OllamaEmulator

# It is a tool of the tests: what they need of it fails there, and contract/ holds it to be like Ollama.
pytestmark = pytest.mark.extended


async def stamps(client: httpx.AsyncClient) -> tuple[str, str]:
    """What show and tags say."""
    shown = (await client.post("/api/show", json={"model": "m"})).json()
    return shown["modified_at"], (await client.get("/api/tags")).json()["models"][0]["modified_at"]


@pytest.mark.parametrize(("version", "cached"), [("0.23.1", False), ("0.24.0", True), ("0.33.0", True)])
async def test_show_after_creating_the_same_again(
    emulator: OllamaEmulator, client: httpx.AsyncClient, cached: bool
) -> None:
    digest = await push(client)
    await create(client, model="m", files={"model.gguf": digest})
    first_show, first_tags = await stamps(client)
    assert first_show == first_tags
    await create(client, model="m", files={"model.gguf": digest})
    second_show, second_tags = await stamps(client)
    assert second_tags != first_tags
    assert (second_show == first_show) is cached
    await emulator.restart()
    assert (await stamps(client))[0] == second_tags

"""A target's URL that leads elsewhere is told as what it is, with what to do next.

Breaks when: a wrong URL looks like an Ollama that is away, or refuses.
"""

from __future__ import annotations

import pytest

from ingest_service.forwarding import Target, TargetError
from ingest_service.forwarding.ollama import OllamaClient
from tests.ollama_emulator import Fault, OllamaEmulator


async def words_of(url: str) -> str:
    async with OllamaClient(Target("a", url)) as client:
        with pytest.raises(TargetError) as caught:
            await client.version()
    return caught.value.words


@pytest.mark.parametrize("end", ["/api", "/v1"])
async def test_an_address_with_a_path_of_the_api(emulator: OllamaEmulator, end: str) -> None:
    assert f"ends in {end}; Ollama's address ends before that." in await words_of(emulator.url + end)


async def test_a_host_that_cannot_be_resolved() -> None:
    assert "cannot be resolved" in await words_of("http://no-such-host.invalid:11434")


@pytest.mark.parametrize("body", ["<html>hello</html>", "[]"])
async def test_a_page_or_another_service(emulator: OllamaEmulator, body: str) -> None:
    emulator.faults.add(Fault("respond", "version", status=200, body=body))
    assert "this is not Ollama" in await words_of(emulator.url)

"""The first request to a target imports nothing: an import on the event loop keeps everybody waiting.

Breaks when: a module that a request needs is not imported by `warm_up`.
"""

from __future__ import annotations

import subprocess
import sys

from tests.house.source import ROOT

_CHILD = """
import asyncio, sys
from ingest_service.forwarding import Target, warm_up
from ingest_service.forwarding.ollama import OllamaClient
from tests.support.hostile_ollama import HostileOllama, running

imported = []

def note(event, arguments):
    # One that is known not to be there is not looked for.
    if event == "import" and arguments[0] not in sys.modules:
        imported.append(arguments[0])

async def main():
    await asyncio.to_thread(warm_up)
    async with running(HostileOllama("/none", lambda: iter([]))) as server:
        sys.addaudithook(note)
        async with OllamaClient(Target("a", f"http://{server.address}")) as client:
            assert await client.version() == "0.24.0"
            assert await client.show("m") is None

asyncio.run(main())
print(imported)
"""


def test_the_first_request_imports_nothing() -> None:
    child = subprocess.run(
        [sys.executable, "-c", _CHILD], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert child.stdout.strip() == "[]"

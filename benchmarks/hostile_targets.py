"""What a hostile Ollama costs the service: rows of `benchmarks.attacks`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

from model_ingest.v1.catalog_service_pb2 import ListTargetsRequest

from tests.support.files import gguf, push
from tests.support.hostile_ollama import FLOODS
from tests.support.service import ROOT
from tests.support.stubs import catalog_stub, ingest_stub

_TARGETS = 4


@contextlib.asynccontextmanager
async def hostile(way: str) -> AsyncIterator[str]:
    """INGEST_TARGETS of several targets, all of them one process that answers in that way."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.hostile_ollama", way, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        yield ",".join(f"t{number}=http://127.0.0.1:{port}/{number}" for number in range(_TARGETS))
    finally:
        process.kill()
        await process.wait()


def rows() -> list[str]:
    """Every way, with the name of its row."""
    return list(FLOODS)


async def provoke(channel: Any) -> None:
    """A model for every target, and somebody who asks how they are."""
    data = gguf()
    await push(ingest_stub(channel), data, "provoked")
    while True:
        await catalog_stub(channel).ListTargets(ListTargetsRequest())
        await asyncio.sleep(0.5)

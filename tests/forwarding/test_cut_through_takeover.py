"""Cut-through when another process wrote the file in between: what was sent may not be what is stored.

Breaks when: a push goes on after a writer that its process did not see.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, cast

from ingest_service.forwarding.cut_through import Arriving, CutThrough
from ingest_service.ingests.requests import NewFile, NewIngest
from ingest_service.vocabulary.states import FileRole, FileState
from tests.forwarding.world import World, now
from tests.ollama_emulator import OllamaEmulator
from tests.support.files import MEBIBYTE, digest, gguf

DATA = gguf(12 * MEBIBYTE)


@dataclass
class _Partial:
    """The file on disk, its row, and the upload of this process: store, database and session in one."""

    content: bytes
    row: tuple[int, FileState]
    readable_bytes: int = 0

    @contextlib.asynccontextmanager
    async def read_partial(self, _partial_id: str) -> AsyncIterator[_Partial]:
        yield self

    async def transact(self, _work: Any) -> None:
        """Nobody else claims here."""

    async def read(self, *asked: Any) -> Any:
        """What the database answers, or, with an offset and a size, the store."""
        if len(asked) == 1:
            return self.row
        offset, size_bytes = asked
        return self.content[offset : offset + size_bytes]


async def test_a_writer_in_another_process_ends_the_push(world: World, emulator: OllamaEmulator) -> None:
    new = NewFile("m.gguf", FileRole.MODEL, len(DATA), digest(DATA))
    ingest = await world.ingests.create(NewIngest("m", [new]))
    file = replace(ingest.files[0], writer_epoch=1)
    # The first writer's bytes are others, and were never made durable.
    partial = _Partial(b"\0" * 6 * MEBIBYTE, (1, FileState.UPLOADING), 6 * MEBIBYTE)
    arriving: dict[str, Arriving] = {file.id: partial}
    beside = CutThrough(
        cast("Any", partial),
        cast("Any", partial),
        world.targets,
        arriving.get,
        lease_seconds=60,
        owner="beside",
        clock=now,
    )
    beside.begun(ingest, file)
    async with asyncio.timeout(10):
        while sum(call.body_bytes for call in emulator.calls.named("blob_post")) < 6 * MEBIBYTE:
            await asyncio.sleep(0.02)
    # A writer elsewhere cut them off and wrote further; then the file's client comes back here.
    partial.content, partial.row, partial.readable_bytes = DATA, (3, FileState.STORED), len(DATA)
    beside.begun(ingest, replace(file, writer_epoch=3, committed_size=10 * MEBIBYTE))
    async with asyncio.timeout(20):
        while any(call.outcome == "open" for call in emulator.calls.named("blob_post")):
            await asyncio.sleep(0.02)
    assert not beside.brought("a", file.id)
    assert list(emulator.blobs.digests()) == []
    await beside.close()

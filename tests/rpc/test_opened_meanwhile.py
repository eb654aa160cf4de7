"""An upload that is opened while the service asks who writes the others is not mistaken for a closed one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from model_ingest.v1.ingest_service_pb2 import GetIngestRequest
from model_ingest.v1.resources_pb2 import File

from ingest_service.vocabulary.states import FileState
from tests.support.files import create_request, gguf, upload_messages
from tests.support.service import RunningService

DATA = gguf(300_000)


async def test_an_upload_opened_while_the_writers_are_asked_for_goes_on(service: RunningService) -> None:
    uploads = service.service.uploads
    moves = uploads._moves
    real, asked, go_on = moves.writers, asyncio.Event(), asyncio.Event()

    async def slow(file_ids: Sequence[str]) -> dict[str, tuple[int, FileState]]:
        answer = await real(file_ids)
        asked.set()
        await go_on.wait()
        return answer

    first = await service.ingests.CreateIngest(create_request(DATA, "first"))
    second = await service.ingests.CreateIngest(create_request(gguf(300_000, seed=1), "second"))
    holding = service.ingests.Upload(timeout=60)
    await holding.write(upload_messages(first.files[0].name, DATA)[0])
    moves.writers = slow  # type: ignore[method-assign]
    async with asyncio.timeout(30):
        await asked.wait()
        messages = upload_messages(second.files[0].name, gguf(300_000, seed=1))
        call = service.ingests.Upload(timeout=60)
        await call.write(messages[0])
        while len(uploads._sessions) < 2:
            await asyncio.sleep(0.01)
        go_on.set()
        # Whatever the answer does to it, it has done once the next one is asked for.
        asked.clear()
        await asked.wait()
        for message in messages[1:]:
            await call.write(message)
        await call.done_writing()
        assert (await call).state == File.STATE_STORED
    holding.cancel()
    assert (await service.ingests.GetIngest(GetIngestRequest(name=second.name))).files[0].sha256

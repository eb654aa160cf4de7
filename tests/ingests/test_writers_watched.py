"""The look at every session's writer tells nothing about a session that was opened while it looked.

Breaks when: a session that is missing from the answer is taken for one whose file is gone, although nobody
asked about it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from model_ingest.v1.ingest_service_pb2 import UploadRequest

from ingest_service.vocabulary.states import FileState
from tests.conftest import StartService
from tests.support.files import create_request, gguf, upload_messages

DATA = gguf(200_000)


async def test_an_upload_that_opens_during_the_look_goes_on(start_service: StartService) -> None:
    service = await start_service()
    uploads = service.service.uploads
    real = uploads._moves.writers
    looking, go_on, looked_again = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def writers(file_ids: Sequence[str]) -> dict[str, tuple[int, FileState]]:
        if go_on.is_set():
            looked_again.set()
        answer: dict[str, tuple[int, FileState]] = await real(file_ids)
        looking.set()
        await go_on.wait()
        return answer

    uploads._moves.writers = writers
    calls: list[tuple[Any, list[UploadRequest]]] = []
    for name in ("first", "second"):
        ingest = await service.ingests.CreateIngest(create_request(DATA, name))
        call = service.ingests.Upload(timeout=60)
        sent = upload_messages(ingest.files[0].name, DATA)
        await call.write(sent[0])
        async with asyncio.timeout(30):
            while uploads.active <= len(calls):
                await asyncio.sleep(0.01)
            # The first is being asked about from here on, while the second opens.
            await looking.wait()
        calls.append((call, sent))
    go_on.set()
    async with asyncio.timeout(30):
        await looked_again.wait()
    for call, sent in calls:
        for message in sent[1:]:
            await call.write(message)
        await call.done_writing()
        assert (await call).size_bytes == len(DATA)

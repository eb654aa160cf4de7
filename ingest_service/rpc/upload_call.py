"""One Upload call: reads the stream in the order start, chunks, finish, and feeds a session.

The end of the stream is never completion: grpc.aio cannot tell a client that half-closed from one that
vanished (peers.md P1). One timeout around the reading serves the idle limit, a cancel and a drain alike;
`asyncio.timeout` around each single read would cost a leak per firing in grpc.aio (P16).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from model_ingest.v1.ingest_service_pb2 import UploadRequest, UploadStart

from ingest_service.ingests.session import UploadSession
from ingest_service.ingests.uploads import StoredAlready, Uploads
from ingest_service.rpc.undecodable import UndecodableMessage
from ingest_service.vocabulary.errors import IngestError, StreamProtocol, UploadClosed, UploadStalled
from ingest_service.vocabulary.records import File, Ingest


async def first_message(messages: AsyncIterator[UploadRequest], idle_seconds: float) -> UploadStart:
    """The `start`. Raises StreamProtocol if something else comes, UploadStalled if nothing does."""
    try:
        async with asyncio.timeout(idle_seconds):
            message = await anext(messages, None)
    except TimeoutError:
        raise UploadStalled from None
    if message is None:
        raise StreamProtocol("The stream ended before `start`.", field="message")
    if message.WhichOneof("message") != "start":
        raise StreamProtocol("The first message of an upload is `start`.", field="message")
    return message.start


async def receive_file(
    messages: AsyncIterator[UploadRequest],
    uploads: Uploads,
    ingest_id: str,
    file_name: str,
    idle_seconds: float,
) -> File:
    """Chunks and `finish` of one file; answers the file. Raises what the session raises."""
    undecodable: UndecodableMessage | None = None
    async with uploads.receive(ingest_id, file_name) as upload:
        try:
            sha256 = await _until_finish(messages, upload, idle_seconds)
        except UndecodableMessage as error:
            # To the domain, a stream that ended: no fault of the service's.
            undecodable, sha256 = error, None
        if sha256 is not None:
            return await uploads.finish(upload, sha256)
        if isinstance(upload, StoredAlready) and undecodable is None:
            return upload.file
    if undecodable is not None:
        raise undecodable
    raise UploadClosed(
        "The stream ended before `finish`; this version cannot resume it: create a new ingest."
    )


async def end_unused(creating: asyncio.Task[Ingest], uploads: Uploads) -> None:
    """Ends the upload of an ingest that was created for a call which ended before the first chunk."""
    with contextlib.suppress(IngestError):
        ingest = await creating
        async with uploads.receive(ingest.id, ingest.files[0].file_name):
            pass


async def _until_finish(
    messages: AsyncIterator[UploadRequest], upload: UploadSession | StoredAlready, idle_seconds: float
) -> str | None:
    """Feeds the session; answers the sha256 of `finish` ("" if none), or None if the stream just ended."""
    loop = asyncio.get_running_loop()
    session = upload if isinstance(upload, UploadSession) else None
    try:
        async with asyncio.timeout(idle_seconds) as deadline:
            if session is not None:
                session.on_interrupt(lambda: deadline.reschedule(loop.time()))
                if session.interruption is not None:
                    # Between its opening and here nobody was told.
                    raise session.interruption
            async for message in messages:
                # While we work, the client is not the one who idles.
                deadline.reschedule(None)
                kind = message.WhichOneof("message")
                if kind == "finish":
                    return message.finish.sha256
                if kind != "chunk":
                    raise StreamProtocol(
                        "After `start` come chunks and one `finish`, nothing else.", field="message"
                    )
                if session is not None:
                    await _take(session, message)
                    if session.interruption is not None:
                        raise session.interruption
                deadline.reschedule(loop.time() + idle_seconds)
    except TimeoutError:
        if session is not None and session.interruption is not None:
            raise session.interruption from None
        raise UploadStalled from None
    return None


async def _take(session: UploadSession, message: UploadRequest) -> None:
    chunk = message.chunk
    # `chunk.data` copies its bytes at each access (peers.md P8): read it once.
    data = chunk.data
    await session.chunk(chunk.offset, data, chunk.crc32c if chunk.HasField("crc32c") else None)

"""One Upload call: reads the stream in the order start, chunks, finish, and feeds a session.

The end of the stream is never completion: grpc.aio cannot tell a client that half-closed from one that
vanished (peers.md P1). One timeout around the reading serves the idle limit, a cancel and a drain alike;
`asyncio.timeout` around each single read would cost a leak per firing in grpc.aio (P16).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from model_ingest.v1.ingest_service_pb2 import UploadStart

from ingest_service.ingests.limits import Limits
from ingest_service.ingests.session import UploadSession
from ingest_service.ingests.uploads import StoredAlready, Uploads
from ingest_service.rpc.undecodable import UndecodableMessage
from ingest_service.rpc.upload_message import Chunk, UploadMessage, chunk_of
from ingest_service.rpc.upload_pace import IdleWatch, Pace, expire
from ingest_service.vocabulary.errors import StreamProtocol, UploadStalled
from ingest_service.vocabulary.records import File


async def first_message(messages: AsyncIterator[UploadMessage], idle_seconds: float) -> UploadStart:
    """The `start`. Raises StreamProtocol if something else comes, UploadStalled if nothing does."""
    try:
        async with asyncio.timeout(idle_seconds):
            message = await anext(messages, None)
    except TimeoutError:
        raise UploadStalled from None
    if message is None:
        raise StreamProtocol("The stream ended before `start`.", field="message")
    if isinstance(message, Chunk) or message.WhichOneof("message") != "start":
        raise StreamProtocol("The first message of an upload is `start`.", field="message")
    return message.start


async def receive_file(
    messages: AsyncIterator[UploadMessage], uploads: Uploads, ingest_id: str, file_name: str, limits: Limits
) -> File:
    """Chunks and `finish` of one file; answers the file, resumable if `finish` never came.

    Raises what the session raises.
    """
    undecodable: UndecodableMessage | None = None
    async with uploads.receive(ingest_id, file_name) as upload:
        try:
            sha256 = await _until_finish(messages, upload, limits)
        except UndecodableMessage as error:
            # To the domain, a stream that ended: no fault of the service's.
            undecodable, sha256 = error, None
        if sha256 is not None:
            return await uploads.finish(upload, sha256)
    if undecodable is not None:
        raise undecodable
    return await uploads.current(ingest_id, file_name)


async def _until_finish(
    messages: AsyncIterator[UploadMessage], upload: UploadSession | StoredAlready, limits: Limits
) -> str | None:
    """Feeds the session; answers the sha256 of `finish` ("" if none), or None if the stream just ended."""
    session = upload if isinstance(upload, UploadSession) else None
    pace = Pace(limits, asyncio.get_running_loop().time())
    try:
        async with asyncio.timeout(None) as deadline:
            with IdleWatch(deadline, limits.idle_seconds) as idle:
                if session is not None:
                    session.on_interrupt(lambda: expire(deadline))
                    if session.interruption is not None:
                        # Between its opening and here nobody was told.
                        raise session.interruption
                async for message in messages:
                    idle.we_act()
                    if not isinstance(message, Chunk) and message.WhichOneof("message") == "finish":
                        return message.finish.sha256
                    chunk = _chunk(message)
                    if session is not None:
                        await _feed(session, chunk, pace)
                    idle.client_acts()
    except TimeoutError:
        if session is not None and session.interruption is not None:
            raise session.interruption from None
        raise UploadStalled from None
    return None


def _chunk(message: UploadMessage) -> Chunk:
    if isinstance(message, Chunk):
        return message
    if message.WhichOneof("message") != "chunk":
        raise StreamProtocol("After `start` come chunks and one `finish`, nothing else.", field="message")
    return chunk_of(message)


async def _feed(session: UploadSession, chunk: Chunk, pace: Pace) -> None:
    clock = asyncio.get_running_loop().time
    began = clock()
    await session.chunk(*chunk)
    ended = clock()
    # A store that is slow to take the bytes is not the client's fault.
    pace.pause(ended - began)
    if session.interruption is not None:
        raise session.interruption
    pace.check(len(chunk.data), session.pipeline.received_bytes, ended)

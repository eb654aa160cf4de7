"""One Upload call: reads the stream in the order start, chunks, finish, and feeds a session.

The end of the stream is never completion: grpc.aio cannot tell a client that half-closed from one that
vanished (peers.md P1). One timeout around the reading serves the idle limit, a cancel and a drain alike;
`asyncio.timeout` around each single read would cost a leak per firing in grpc.aio (P16).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from model_ingest.v1.ingest_service_pb2 import UploadStart

from ingest_service.ingests.limits import Limits
from ingest_service.ingests.session import UploadSession
from ingest_service.ingests.uploads import StoredAlready, Uploads
from ingest_service.rpc.undecodable import UndecodableMessage
from ingest_service.rpc.upload_message import Chunk, UploadMessage, chunk_of
from ingest_service.vocabulary.errors import StreamProtocol, UploadStalled
from ingest_service.vocabulary.records import File

_MINUTE_SECONDS = 60.0
_SAME_BYTES_SECONDS = 600.0


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


class _Pace:
    """Is the client still sending? Counts what came within each minute, and whether the file grew at all."""

    def __init__(self, limits: Limits, now_seconds: float) -> None:
        self._least = limits.min_bytes_per_minute
        self._since = self._grew = now_seconds
        self._bytes = self._position = 0

    def pause(self, seconds: float) -> None:
        """For so long it was not the client's turn."""
        self._since += seconds
        self._grew += seconds

    def is_too_slow(self, size_bytes: int, position: int, now_seconds: float) -> bool:
        """Takes note of a chunk and of how far the file got with it; True if the minute that just ended
        brought too little, or nothing new for long: sending the same bytes for ever is no progress either."""
        if position > self._position or not self._least:
            self._position, self._grew = position, now_seconds
        if now_seconds - self._grew > _SAME_BYTES_SECONDS:
            return True
        self._bytes += size_bytes
        if now_seconds - self._since < _MINUTE_SECONDS:
            return False
        too_slow = self._bytes < self._least
        self._since, self._bytes = now_seconds, 0
        return too_slow


async def _until_finish(
    messages: AsyncIterator[UploadMessage], upload: UploadSession | StoredAlready, limits: Limits
) -> str | None:
    """Feeds the session; answers the sha256 of `finish` ("" if none), or None if the stream just ended."""
    loop = asyncio.get_running_loop()
    session = upload if isinstance(upload, UploadSession) else None
    pace = _Pace(limits, loop.time())
    try:
        async with asyncio.timeout(limits.idle_seconds) as deadline:
            if session is not None:
                session.on_interrupt(lambda: _expire(deadline))
                if session.interruption is not None:
                    # Between its opening and here nobody was told.
                    raise session.interruption
            async for message in messages:
                # While we work, the client is not the one who idles.
                deadline.reschedule(None)
                if isinstance(message, Chunk):
                    chunk = message
                else:
                    kind = message.WhichOneof("message")
                    if kind == "finish":
                        return message.finish.sha256
                    if kind != "chunk":
                        raise StreamProtocol(
                            "After `start` come chunks and one `finish`, nothing else.", field="message"
                        )
                    chunk = chunk_of(message)
                if session is not None:
                    began = loop.time()
                    await session.chunk(*chunk)
                    # A store that is slow to take the bytes is not the client's fault.
                    pace.pause(loop.time() - began)
                    if session.interruption is not None:
                        raise session.interruption
                    if pace.is_too_slow(len(chunk.data), session.pipeline.received_bytes, loop.time()):
                        raise UploadStalled(
                            f"The stream brought fewer than {limits.min_bytes_per_minute} bytes in a minute."
                        )
                deadline.reschedule(loop.time() + limits.idle_seconds)
    except TimeoutError:
        if session is not None and session.interruption is not None:
            raise session.interruption from None
        raise UploadStalled from None
    return None


def _expire(deadline: asyncio.Timeout) -> None:
    # RuntimeError: the idle limit fired in this very turn of the loop; the reader wakes up either way.
    with contextlib.suppress(RuntimeError):
        deadline.reschedule(asyncio.get_running_loop().time())

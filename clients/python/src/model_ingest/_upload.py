"""The strategy of an upload: what one stream sends, and how to go on after it broke.

The loop around it is in `_retry`; this module knows nothing of waiting.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Final

import grpc

from model_ingest._backoff import Backoff
from model_ingest._connection import Connection
from model_ingest._errors import IngestError, StalledError, UploadInterruptedError
from model_ingest._source import FileSource
from model_ingest._status import from_failure, from_ingest
from model_ingest._truth import FirstStatus
from model_ingest._watchdog import Watchdog, cancelled_from_outside
from model_ingest.v1.ingest_service_pb2 import (
    Capabilities,
    GetIngestRequest,
    UploadFinish,
    UploadRequest,
    UploadStart,
)
from model_ingest.v1.resources_pb2 import File, Ingest

DEFAULT_CHUNK_BYTES: Final = 1024 * 1024
# All bytes are there: only the answer may be missing.
COMPLETE: Final = frozenset({File.STATE_VERIFYING, File.STATE_PUBLISHING, File.STATE_STORED})


class UploadStrategy:
    """Brings one file of one ingest to the server.

    `attempt` sends from the last known offset to the end and returns the server's word on the
    file. `recover` asks the server what it has; it returns the file when nothing is left to
    send, None when `attempt` shall go on, and raises the truth when there is no going on.
    """

    def __init__(
        self,
        connection: Connection,
        file_name: str,
        source: FileSource,
        backoff: Backoff,
        *,
        chunk_bytes: int,
        stall_seconds: float,
        resumable: bool,
    ) -> None:
        self._connection = connection
        self._file_name = file_name
        self._source = source
        self._backoff = backoff
        self._chunk_bytes = chunk_bytes
        self._stall_seconds = stall_seconds
        self._resumable = resumable
        self._offset = 0
        self._finish_sent = False

    async def attempt(self) -> File:
        """One stream, from `start` to `finish`."""
        # A long prefix is hashed before the stream opens: the server ends streams that are silent.
        await self._source.hash_to(self._offset)
        await self._connection.ready()
        call = self._connection.upload()
        status = FirstStatus(call)
        watchdog = Watchdog(call, self._stall_seconds)
        try:
            with watchdog:
                await self._send(call, watchdog)
                return await call
        except grpc.aio.AioRpcError as error:
            raise self._connection.error(status.truth(error)) from None
        except asyncio.CancelledError:
            if watchdog.fired and not cancelled_from_outside():
                raise StalledError(
                    f"{self._connection.server} took no bytes for {self._stall_seconds:g} s"
                ) from None
            raise
        finally:
            call.cancel()

    async def recover(self) -> File | None:
        """Asks what the server has."""
        name = self._file_name.partition("/files/")[0]
        ingest = await self._connection.unary(self._connection.ingests.GetIngest, GetIngestRequest(name=name))
        file = next((f for f in ingest.files if f.name == self._file_name), None)
        if file is None:
            raise UploadInterruptedError(f"{name} has no file {self._file_name}", ingest=ingest)
        if file.state in COMPLETE:
            return file
        if file.HasField("failure"):
            raise from_failure(file.failure, UploadInterruptedError, ingest)
        if ingest.done:
            raise from_ingest(ingest) or UploadInterruptedError(f"{name} takes no more bytes", ingest=ingest)
        if not self._resumable:
            if self._finish_sent:
                # Only the answer got lost, perhaps: the server may still be at its last bytes.
                raise StalledError(f"{name} has not settled yet", ingest=ingest)
            raise self._cannot_resume(ingest, file)
        if file.committed_size > self._offset:
            self._backoff.progressed()
        self._offset = file.committed_size
        return None

    async def _send(
        self, call: grpc.aio.StreamUnaryCall[UploadRequest | bytes, File], watchdog: Watchdog
    ) -> None:
        # write(), not a generator: a generator's own error would come out as a bare cancellation (P3).
        try:
            await call.write(UploadRequest(start=UploadStart(file=self._file_name)))
            async with aclosing(self._source.chunks(self._offset, self._chunk_bytes)) as chunks:
                async for chunk in chunks:
                    await call.write(chunk.message)
                    watchdog.fed()
            digest = await self._source.digest()
            self._finish_sent = True
            await call.write(UploadRequest(finish=UploadFinish(sha256=digest)))
            await call.done_writing()
            watchdog.fed()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The server answered early. What write() says about it is wrong (P4).
            return

    @staticmethod
    def _cannot_resume(ingest: Ingest, file: File) -> IngestError:
        return UploadInterruptedError(
            f"the upload of {file.file_name} broke off after {file.committed_size} of "
            f"{file.size_bytes} bytes, and this server version does not resume uploads",
            ingest=ingest,
        )


def chunk_bytes_for(capabilities: Capabilities) -> int:
    """1 MiB, unless the server wants smaller chunks: larger ones only cost latency (peers.md P7)."""
    limits = (capabilities.recommended_chunk_bytes, capabilities.max_chunk_bytes)
    return min([DEFAULT_CHUNK_BYTES, *(limit for limit in limits if limit > 0)])

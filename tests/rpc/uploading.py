"""Sending an upload message by message, right or wrong ones, and hearing what really came of it."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

import grpc
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import UploadChunk, UploadFinish, UploadRequest, UploadStart

from tests.support.service import RunningService

_T = TypeVar("_T")
UPLOAD = "/model_ingest.v1.IngestService/Upload"


def start(file: str) -> UploadRequest:
    """First message of an upload."""
    return UploadRequest(start=UploadStart(file=file))


def chunk(offset: int, data: bytes, **fields: Any) -> UploadRequest:
    """A chunk, without a crc32c if none is given."""
    return UploadRequest(chunk=UploadChunk(offset=offset, data=data, **fields))


def finish(sha256: str = "") -> UploadRequest:
    """Last message of an upload."""
    return UploadRequest(finish=UploadFinish(sha256=sha256))


def upload_call(channel: grpc.aio.Channel, **options: Any) -> Any:
    """An Upload that also takes bytes, which go out as they are."""
    method: Any = channel.stream_unary(
        UPLOAD,
        request_serializer=lambda item: item if isinstance(item, bytes) else item.SerializeToString(),
        response_deserializer=resources_pb2.File.FromString,
    )
    return method(timeout=60, **options)


class Answer:
    """What a call ends with, although a write failed. Made right after the call.

    When the service answers early, grpc.aio sets the status twice: to what the service said, and, by the
    write that failed, to INTERNAL "Internal error from Core"; in either order (peers.md P4, and beyond it:
    `await call` sees the second of the two). The done callback sees the first.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._first: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._note)

    async def get(self) -> resources_pb2.File:
        """The file, or what the service refused the call with."""
        try:
            file: resources_pb2.File = await self._call
            return file
        except grpc.aio.AioRpcError as error:
            if error.details() == "Internal error from Core" and self._first is not None:
                raise self._first from None
            raise

    def _note(self, call: Any) -> None:
        if self._first is None:
            self._first = grpc.aio.AioRpcError(
                _at_once(call.code()),
                trailing_metadata=_at_once(call.trailing_metadata()),
                initial_metadata=_at_once(call.initial_metadata()),
                details=_at_once(call.details()),
            )


def _at_once(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """The result of a coroutine that has nothing to wait for: a done call knows its status."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        result: _T = finished.value
        return result
    coroutine.close()
    raise AssertionError("a done call knows its status")


async def upload(
    running: RunningService,
    messages: Iterable[UploadRequest | bytes],
    *,
    half_close: bool = True,
    **options: Any,
) -> resources_pb2.File:
    """Sends messages on a connection of its own as far as the service takes them; answers the file."""
    async with running.channel() as channel:
        call = upload_call(channel, **options)
        answer = Answer(call)
        for message in messages:
            try:
                await call.write(message)
            except Exception:  # noqa: BLE001 (the truth is in the answer)
                break
        else:
            if half_close:
                await call.done_writing()
        return await answer.get()

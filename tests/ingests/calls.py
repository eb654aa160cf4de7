"""Upload calls over a real socket, sent message by message."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import UploadRequest

from tests.rpc.uploading import Answer
from tests.support.stubs import IngestStub


class UploadCall:
    """One Upload; `send` may be called in several places of a test, `answer` once."""

    def __init__(self, stub: IngestStub) -> None:
        self._call = stub.Upload(timeout=60)
        self._answer = Answer(self._call)
        self._over = False

    async def send(self, messages: Sequence[UploadRequest]) -> None:
        for message in messages:
            if self._over:
                return
            try:
                await self._call.write(message)
            except Exception:  # noqa: BLE001 (whatever it says, the truth is in the call, peers.md P4)
                self._over = True

    async def answer(self) -> resources_pb2.File:
        """The file, or the call's true error."""
        if not self._over:
            with contextlib.suppress(Exception):
                await self._call.done_writing()
        return await self._answer.get()


def refusal(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, str]:
    """Code and reason of a refused call; "" if it has no reason."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status is not None else ():
        if detail.Unpack(info):
            return error.code(), info.reason
    return error.code(), ""

"""Clients that break in one way each, and then go on until the file is stored, if it can be gone on with."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc
from model_ingest._errors import ConnectionLostError
from model_ingest.v1 import errors_pb2, resources_pb2
from model_ingest.v1.ingest_service_pb2 import UploadRequest

from tests.faults.children import OWN_CONNECTION, stub_of
from tests.faults.client import BEING_FINISHED, STORED, get, messages, reason_of, upload
from tests.support.files import create_request, gguf
from tests.support.proxy import Faults, Plan, TcpProxy
from tests.support.stubs import IngestStub

CHUNK_BYTES = 32 * 1024
#: After these a client goes on; a machine that is busy may bring the last two to anybody.
_RESUMABLE = {"CHUNK_CHECKSUM_MISMATCH", "OFFSET_GAP", "WRITER_BUSY", "UPLOAD_STALLED", "BACKEND_DOWN"}
_TRIES = 40


@dataclass
class SmallUpload:
    """One small file, and the way its first upload breaks ("" for not at all)."""

    number: int
    breaks: str
    address: str
    stub: IngestStub
    name: str = ""
    tries: int = 0

    @property
    def data(self) -> bytes:
        return gguf(100_000 + self.number * 137, seed=self.number)

    @property
    def is_lost(self) -> bool:
        """A wrong digest is final."""
        return self.breaks == "wrong digest"

    async def run(self) -> resources_pb2.File:
        data = self.data
        request = create_request(data, f"small-{self.number}", request_id=f"{self.number:036d}")
        self.name = (await self.stub.CreateIngest(request, timeout=300)).files[0].name
        if self.breaks:
            await BREAKS[self.breaks](self, messages(self.name, data, chunk_bytes=CHUNK_BYTES))
        if self.is_lost:
            return (await get(self.stub, self.name)).files[0]
        return await self._until_stored(data)

    async def _until_stored(self, data: bytes) -> resources_pb2.File:
        while self.tries < _TRIES:
            file = (await get(self.stub, self.name)).files[0]
            if file.state == STORED:
                return file
            if file.state in BEING_FINISHED:
                # Whoever waits for all of us bounds this.
                await patience(10)
                continue
            self.tries += 1
            rest = messages(self.name, data, start=file.committed_size, chunk_bytes=CHUNK_BYTES)
            if await ends_with(upload(self.stub, rest, timeout=300), _RESUMABLE):
                await patience()
        raise AssertionError(f"{self.name} was not stored after {_TRIES} tries")


async def patience(about_seconds: float = 2) -> None:
    """Hundreds that ask again at once would keep the service from the very work that they wait for."""
    await asyncio.sleep(about_seconds * random.uniform(0.5, 1.5))


async def ends_with(work: Awaitable[object], reasons: set[str]) -> str:
    """Waits for `work`; the reason it was refused with, which must be one of these; "" if it was not."""
    try:
        await work
    except grpc.aio.AioRpcError as error:
        reason = reason_of(error)
        if reason not in reasons and error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return reason or error.code().name
    except ConnectionLostError:
        return "LOST"
    return ""


async def _cut(one: SmallUpload, wanted: list[UploadRequest]) -> None:
    at = random.Random(one.number).randrange(100, 90_000)
    plan = Plan(up=Faults(cut_after_bytes=at, reset=one.number % 2 == 0))
    async with TcpProxy(one.address, lambda number: plan) as proxy:  # noqa: SIM117
        async with grpc.aio.insecure_channel(proxy.address, options=OWN_CONNECTION) as channel:
            assert await ends_with(upload(stub_of(channel), wanted, timeout=300), _RESUMABLE)


async def _wrong_crc(one: SmallUpload, wanted: list[UploadRequest]) -> None:
    wanted[2].chunk.crc32c ^= 1
    assert await ends_with(upload(one.stub, wanted, timeout=300), _RESUMABLE) != ""


async def _wrong_digest(one: SmallUpload, wanted: list[UploadRequest]) -> None:
    wanted[-1].finish.sha256 = "sha256:" + "0" * 64
    refused = {*_RESUMABLE, "DIGEST_MISMATCH", "UPLOAD_CLOSED"}
    file = resources_pb2.File()
    # On a busy machine `finish` may be answered before the bytes are verified.
    while file.state != resources_pb2.File.STATE_FAILED:
        if file.state not in BEING_FINISHED:
            await ends_with(upload(one.stub, wanted, timeout=300), refused)
        file = (await get(one.stub, one.name)).files[0]
        assert file.state != STORED, one
        await patience()
    assert file.failure.reason == errors_pb2.DIGEST_MISMATCH, file


async def _cancelled(one: SmallUpload, wanted: list[UploadRequest]) -> None:
    """As good as a client that was killed: the stream is reset."""
    call = one.stub.Upload(timeout=300)
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        for message in wanted[: 1 + one.number % 4]:
            await call.write(message)
    call.cancel()
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
        await call


async def _stalled(one: SmallUpload, wanted: list[UploadRequest]) -> None:
    """Sends nothing more and waits: the service must end it, with the reason."""
    call = one.stub.Upload(timeout=300)
    for message in wanted[:3]:
        await call.write(message)
    assert await ends_with(call, _RESUMABLE) == "UPLOAD_STALLED"


BREAKS: dict[str, Callable[[SmallUpload, list[UploadRequest]], Awaitable[None]]] = {
    "cut": _cut,
    "wrong crc": _wrong_crc,
    "wrong digest": _wrong_digest,
    "cancelled": _cancelled,
    "stalled": _stalled,
}


def small_uploads(numbers: range, address: str, stubs: list[IngestStub]) -> list[SmallUpload]:
    """Every third one breaks, in turn in each of the ways."""
    ways = list(BREAKS)
    return [
        SmallUpload(n, "" if n % 3 else ways[n // 3 % len(ways)], address, stubs[n % len(stubs)])
        for n in numbers
    ]

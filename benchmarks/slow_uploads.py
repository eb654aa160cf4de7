"""Many open uploads that send a little now and then."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from pathlib import Path
from typing import Any, Self

import grpc
from model_ingest.v1.ingest_service_pb2 import ListIngestsRequest, UploadChunk, UploadRequest, UploadStart

from tests.support.files import MEBIBYTE, create_request
from tests.support.models import beginning
from tests.support.service import environment
from tests.support.stubs import ingest_stub

#: A connection takes 100 streams (design.md section 2); some are left for other calls.
_STREAMS_A_CHANNEL = 90
_FIRST_BYTES = 64 * 1024
_CHUNK_BYTES = 8 * 1024
#: 8 KiB every 5 s are above the least that the service takes, 64 KiB a minute.
_PAUSE_SECONDS = 5.0
_AT_ONCE = 64


class SlowUploads:
    """`async with SlowUploads(address, count) as uploads`, then `open_all`; they send until the end."""

    def __init__(self, address: str, count: int) -> None:
        self._channels = [
            grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
            for _ in range(0, count, _STREAMS_A_CHANNEL)
        ]
        self._count = count
        self._tasks: list[asyncio.Task[None]] = []
        self._calls: list[Any] = []
        self.sent_bytes = 0

    @staticmethod
    def environment(data_dir: Path, url: str, count: int) -> dict[str, str]:
        """Settings under which so many may be open at once."""
        return environment(data_dir, url, max_uploads=count + 24, require_digest=False, log_level="WARNING")

    @property
    def alive(self) -> int:
        """Calls that the service has not ended."""
        return sum(1 for call in self._calls if not call.done())

    async def ends(self) -> Counter[str]:
        """How the calls ended that did."""
        ends: Counter[str] = Counter()
        for call in self._calls:
            if call.done():
                ends[f"{(await call.code()).name}: {await call.details()}"] += 1
        return ends

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for channel in self._channels:
            await channel.close()

    async def open_all(self) -> None:
        """Each has its first bytes on the way when this returns."""
        free = asyncio.Semaphore(_AT_ONCE)
        ready = [asyncio.Event() for _ in range(self._count)]
        self._tasks = [asyncio.create_task(self._send(n, free, ready[n])) for n in range(self._count)]
        await asyncio.gather(*(event.wait() for event in ready))

    async def _send(self, number: int, free: asyncio.Semaphore, ready: asyncio.Event) -> None:
        stub = ingest_stub(self._channels[number // _STREAMS_A_CHANNEL])
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            async with free:
                ingest = await stub.CreateIngest(create_request(MEBIBYTE * 8, f"slow-{number}"), timeout=300)
                call = stub.Upload()
                self._calls.append(call)
                await call.write(UploadRequest(start=UploadStart(file=ingest.files[0].name)))
                await self._chunk(call, 0, beginning(MEBIBYTE * 8, _FIRST_BYTES))
            ready.set()
            offset = _FIRST_BYTES
            while True:
                await asyncio.sleep(_PAUSE_SECONDS)
                await self._chunk(call, offset, bytes(_CHUNK_BYTES))
                offset += _CHUNK_BYTES
        ready.set()

    async def _chunk(self, call: Any, offset: int, data: bytes) -> None:
        await call.write(UploadRequest(chunk=UploadChunk(offset=offset, data=data)))
        self.sent_bytes += len(data)


async def committed_in_all(address: str, count: int) -> bool:
    """True once each of the uploads has durable bytes."""
    found, token = 0, ""
    async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        while True:
            page = await ingest_stub(channel).ListIngests(
                ListIngestsRequest(page_size=1000, page_token=token), timeout=60
            )
            found += sum(1 for ingest in page.ingests if ingest.files[0].committed_size)
            token = page.next_page_token
            if not token:
                return found >= count

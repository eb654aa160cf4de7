"""What reading one HTTP answer may cost: bytes and CPU on the event loop, interim answers (1xx) included."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpcore

from ingest_service.forwarding.target import Unreachable

#: Of status line and headers, together with all interim answers before them.
_HEAD_BYTES = 64 * 1024
_HEAD_CPU_SECONDS = 0.5
#: Between two reads nothing else runs on the loop: what is read at once costs little, whatever it is.
_PIECE_BYTES = 4096
_SMALL_PIECE_BYTES = 512
_DEAR_SECONDS = 0.01
#: For each second of the loop that an answer takes, it waits so many: it gets a tenth of the loop.
_WAITS = 9.0
_LEAST_WAIT_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class AnswerBudget:
    """What an answer's body may cost; whoever sends a request gives its time."""

    body_bytes: int
    cpu_seconds: float

    @property
    def wire_bytes(self) -> int:
        """The same with what frames it."""
        return self.body_bytes * 5 // 4 + _HEAD_BYTES


class MeteredStream(httpcore.AsyncNetworkStream):
    """A connection that carries one answer after the other. Reading raises Unreachable beyond the budget."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._begin()

    def _begin(self) -> None:
        self._read_bytes, self._max_bytes = 0, _HEAD_BYTES
        self._cpu_seconds, self._max_cpu_seconds = 0.0, _HEAD_CPU_SECONDS
        self._owed_seconds = 0.0
        self._piece_bytes = _PIECE_BYTES
        self._resumed_at: float | None = None

    def body_begins(self, budget: AnswerBudget) -> None:
        """The head has come, and perhaps the body's beginning with it."""
        self._max_bytes = self._read_bytes + budget.wire_bytes
        self._max_cpu_seconds = self._cpu_seconds + budget.cpu_seconds

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 (httpcore's)
        await self._pay()
        data = await self._stream.read(min(max_bytes, self._piece_bytes), timeout)
        self._read_bytes += len(data)
        if self._read_bytes > self._max_bytes:
            raise Unreachable(f"The target answered with more than {self._max_bytes} bytes.")
        self._resumed_at = time.thread_time()
        return data

    async def _pay(self) -> None:
        """Since the last piece was handed out, this answer alone has kept the loop."""
        if self._resumed_at is None:
            return
        spent = time.thread_time() - self._resumed_at
        self._resumed_at = None
        self._cpu_seconds += spent
        if self._cpu_seconds > self._max_cpu_seconds:
            raise Unreachable(
                f"The target answered what takes more than {self._max_cpu_seconds:g} s of CPU to read."
            )
        if spent > _DEAR_SECONDS:
            self._piece_bytes = _SMALL_PIECE_BYTES
        self._owed_seconds += spent * _WAITS
        if self._owed_seconds >= _LEAST_WAIT_SECONDS:
            owed, self._owed_seconds = self._owed_seconds, 0.0
            await asyncio.sleep(owed)
        else:
            # What is here already is read without a wait: others have to get their turn all the same.
            await asyncio.sleep(0)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 (httpcore's)
        # A request: what is read next is its answer.
        self._begin()
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 (httpcore's)
    ) -> httpcore.AsyncNetworkStream:
        return MeteredStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class MeteredBackend(httpcore.AsyncNetworkBackend):
    """Opens connections over TCP."""

    def __init__(self) -> None:
        # Named, not found out: httpcore would look for it, and import it, within the first request.
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (httpcore's)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return MeteredStream(
            await self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
        )

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

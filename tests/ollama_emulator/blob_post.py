"""`POST /api/blobs/:digest` with everything that can go wrong at byte k (section 2)."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor

from .blobs import Blobs, InvalidDigest
from .body import BodyError
from .exchange import Answer, Exchange, error_response
from .faults import Armed, Fault, Kind
from .golang import quote
from .http import HangUp, Reset, Response
from .uploads import receive

TERMINAL = (Kind.RESET, Kind.HANG_UP, Kind.RESPOND, Kind.NO_SPACE, Kind.REFUSE, Kind.RESTART)
_SLOW_BUFFER = 32 << 10
Terminate = Callable[[Armed], Awaitable[None]]


def no_space(blobs: Blobs) -> Response:
    """A full disk as Go words it; with a large body the client usually sees a reset."""
    path = blobs.folder / f"sha256-{random.randrange(10**9, 10**10)}"
    return error_response(f"write {path}: no space left on device", 500)


def scripted_response(fault: Fault) -> Response:
    return Response(fault.status, fault.payload, fault.content_type, dict(fault.headers))


class BlobPost:
    def __init__(
        self, exchange: Exchange, digest: str, blobs: Blobs, executor: Executor, end: Terminate
    ) -> None:
        self._exchange = exchange
        self._digest = digest
        self._blobs = blobs
        self._executor = executor
        self._end = end

    async def run(self) -> None:
        body = self._exchange.body
        last: list[Armed] = []
        for armed in self._exchange.faults(*TERMINAL, Kind.STALL):
            if armed.fault.at_bytes is None:
                last.append(armed)
            else:
                body.at(armed.fault.at_bytes, self._action(armed))
        for armed in self._exchange.faults(Kind.SLOW_READ):
            body.bytes_per_second = armed.fault.bytes_per_second
            # A small window, else the kernel takes megabytes before the client feels it.
            option = (socket.SOL_SOCKET, socket.SO_RCVBUF, _SLOW_BUFFER)
            self._exchange.wire.sock.setsockopt(*option)
        ends = [armed for armed in last if armed.fault.kind in TERMINAL]
        if ends and not ends[0].fault.takes_effect:
            with contextlib.suppress(BodyError):
                await body.discard()
            await self._end(ends[0])
        response = await self._store()
        for armed in last:
            await self._action(armed)()
        await self._exchange.respond(response)

    def _action(self, armed: Armed) -> Callable[[], Awaitable[None]]:
        async def act() -> None:
            if armed.fault.kind is Kind.STALL:
                await self._exchange.stall(armed)
            else:
                await self._end(armed)

        return act

    async def _store(self) -> Response:
        await self._exchange.body.start()
        try:
            if self._digest in self._blobs:
                return Response(200)  # without reading a byte
        except InvalidDigest as error:
            return error_response(str(error), 400)
        corrupt = self._exchange.faults(Kind.CORRUPT_UPLOAD)
        at = (corrupt[0].fault.at_bytes or 0) if corrupt else None
        try:
            stored = await receive(self._exchange.body, self._blobs, self._executor, at)
        except (BodyError, OSError) as error:
            return error_response(str(error), 500)
        for armed in self._exchange.faults(Kind.TRUNCATE_BLOB):
            self._blobs.truncate(stored, armed.fault.size)
        if stored != self._digest:
            # The bytes are kept under their true name all the same.
            text = f"expected {quote(self._digest)}, got {quote(stored)}"
            return error_response(f"digest mismatch, {text}", 400)
        return Response(201)


async def terminate(fault: Fault, blobs: Blobs) -> None:
    """Raises what the fault wants to happen instead of an answer."""
    if fault.kind is Kind.HANG_UP:
        raise HangUp
    if fault.kind is Kind.RESPOND:
        raise Answer(scripted_response(fault))
    if fault.kind is Kind.NO_SPACE:
        raise Answer(no_space(blobs))
    raise Reset

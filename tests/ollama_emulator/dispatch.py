"""From a request head to the end of its answer: faults first, then the route."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .blob_post import TERMINAL, BlobPost, terminate
from .body import BodyError
from .convert import Crash
from .create_request import APIError
from .exchange import Answer, Exchange, error_response
from .faults import Armed, FaultPlan, Kind
from .http import Reset, Response
from .parts import Worker, Workshop
from .routes import Handler, Request, Stream
from .stream import LineAnswer, finish


class Dispatcher:
    """`power(armed)` starts what refuse and restart faults do to the whole server."""

    def __init__(
        self,
        shop: Workshop,
        plan: FaultPlan,
        offset_minutes: int,
        power: Callable[[Armed | None], None],
    ) -> None:
        self._shop = shop
        self._plan = plan
        self._offset = offset_minutes
        self._power = power
        self.wedged: list[Worker] = []

    async def run(self, exchange: Exchange, handler: Handler | None, parameter: str) -> None:
        try:
            if handler is None:
                self._take(exchange, "")
                shop = self._shop
                args = (exchange, parameter, shop.blobs, shop.executor, self._end)
                await BlobPost(*args).run()
            else:
                await self._json(exchange, handler, parameter)
        except Answer as answer:
            await exchange.respond(answer.response)
        except BodyError as error:
            await exchange.respond(error_response(str(error), 400))
        except Crash:
            # The Go process is gone, and with it every connection (contract section 7).
            self._power(None)
            raise Reset from None

    async def fixed(self, exchange: Exchange, response: Response) -> None:
        """An answer that needs no handler: 403, 404, 405. Faults on `unknown` hit here."""
        self._take(exchange, "")
        try:
            for armed in exchange.faults(*TERMINAL):
                await self._end(armed)
            await exchange.respond(response)
        except Answer as answer:
            await exchange.respond(answer.response)

    def _take(self, exchange: Exchange, text: str) -> None:
        call = exchange.call
        exchange.armed = self._plan.take(call.name, f"{call.path} {text}")
        call.faults = [str(armed.fault.kind) for armed in exchange.armed]

    async def _end(self, armed: Armed) -> None:
        if armed.fault.kind in (Kind.REFUSE, Kind.RESTART):
            self._power(armed)
            raise Reset
        await terminate(armed.fault, self._shop.blobs)

    async def _json(self, exchange: Exchange, handler: Handler, parameter: str) -> None:
        raw = await exchange.body.read_all()
        exchange.call.json = _loads(raw)
        self._take(exchange, raw.decode("utf-8", "replace"))
        for armed in exchange.faults(Kind.STALL):
            if armed.fault.after_line is None:
                await exchange.stall(armed)
        if exchange.call.name != "blob_head":
            self._vanish(exchange, parameter)
        ends = exchange.faults(*TERMINAL)
        if ends and not ends[0].fault.takes_effect:
            await self._end(ends[0])
        result = await self._result(handler, Request(self._shop, parameter, raw, self._offset))
        if ends:
            if isinstance(result, Stream):
                await finish(result.worker)
            await self._end(ends[0])
        if isinstance(result, Response):
            await exchange.respond(result)
        else:
            await self._lines(exchange, result)
        if exchange.call.name == "blob_head":
            self._vanish(exchange, parameter)  # HEAD 200 is not a lease

    async def _result(self, handler: Handler, request: Request) -> Response | Stream:
        try:
            return await handler(request)
        except APIError as error:
            return error_response(str(error), error.status or 500)

    async def _lines(self, exchange: Exchange, stream: Stream) -> None:
        version = self._shop.version
        answer = LineAnswer(exchange, stream.worker, version, cancels=stream.cancels)
        try:
            await answer.run(stream=stream.stream)
        finally:
            if answer.wedged:
                self.wedged.append(stream.worker)

    def _vanish(self, exchange: Exchange, parameter: str) -> None:
        """Deletes the blobs the call names: a race with a delete or a prune (section 3.5)."""
        if not exchange.faults(Kind.VANISH_BLOB):
            return
        digests = [parameter] if parameter else []
        if isinstance(exchange.call.json, dict):
            for key in ("files", "adapters"):
                digests += (exchange.call.json.get(key) or {}).values()
        for digest in digests:
            self._shop.blobs.remove(digest)


def _loads(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return None

"""The life of every accepted connection: requests in turn, then its death."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import TYPE_CHECKING

from . import control
from .body import Body, BodyError
from .calls import Call
from .exchange import Exchange
from .guard import forbidden
from .http import BadRequest, ClientGone, HangUp, Head, Reset, Response, Wire, render_head
from .routes import find

if TYPE_CHECKING:
    from .server import OllamaEmulator


class Connections:
    def __init__(self, emulator: OllamaEmulator) -> None:
        self._emulator = emulator
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, sock: socket.socket, number: int) -> None:
        wire = Wire(sock)
        task = asyncio.create_task(self._serve(wire, number))
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            # A task cancelled before its first step never ran its own clean-up.
            wire.reset()

        task.add_done_callback(ended)

    async def reset_all(self) -> None:
        """Every connection ends with an RST, as when the process is killed."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, wire: Wire, number: int) -> None:
        try:
            while await self._request(wire, number):
                pass
            wire.close()
        except (HangUp, ClientGone):
            wire.close()
        except Reset:
            wire.reset()
        except Exception as error:  # noqa: BLE001 - kept for the test to see, see aclose
            self._emulator.errors.append(error)

    async def _request(self, wire: Wire, number: int) -> bool:
        """Answers one request; whether the connection stays for another."""
        try:
            head = await wire.read_head()
            if head is None:
                return False
            body = Body(wire, head)
        except BadRequest as error:
            text = f"400 Bad Request: {error}".encode()
            headers = [("Content-Type", "text/plain; charset=utf-8"), ("Connection", "close")]
            await wire.send(render_head(400, headers) + text)
            return False
        if head.path.startswith(control.PREFIX):
            return await self._control(wire, head, body)
        call = Call(len(self._emulator.calls) + 1, "unknown", head.method, head.path, head.headers, number)
        self._emulator.calls.append(call)
        body.on_read = lambda received: setattr(call, "body_bytes", received)
        exchange = Exchange(wire, head, body, call, self._emulator.reset_delay)
        try:
            await self._answer(exchange)
        except Exception as error:
            self._note(call, error)
            raise
        finally:
            if call.outcome == "open":
                call.outcome = "aborted"
            call.finished = time.monotonic()
        return exchange.keep_alive

    async def _answer(self, exchange: Exchange) -> None:
        dispatcher = self._emulator.dispatcher
        found = find(exchange.head.method, exchange.head.path)
        if not isinstance(found, Response):
            exchange.call.name = found[0]
        if forbidden(exchange.head, self._emulator.host):
            await dispatcher.fixed(exchange, Response(403))
        elif isinstance(found, Response):
            await dispatcher.fixed(exchange, found)
        else:
            await dispatcher.run(exchange, found[1], found[2])

    def _note(self, call: Call, error: Exception) -> None:
        if call.outcome != "open":
            return
        if isinstance(error, ClientGone):
            call.outcome = "client_gone"
        elif call.status is not None:
            call.outcome = "cut"
        elif isinstance(error, Reset):
            call.outcome = "reset"
        elif isinstance(error, HangUp):
            call.outcome = "hung_up"

    async def _control(self, wire: Wire, head: Head, body: Body) -> bool:
        with contextlib.suppress(BodyError):
            raw = await body.read_all()
            response = await control.handle(self._emulator, head.method, head.path, raw)
            headers = [("Content-Length", str(len(response.body)))]
            if response.status == 204:
                headers = []
            if response.content_type:
                headers.append(("Content-Type", response.content_type))
            await wire.send(render_head(response.status, headers) + response.body)
            return head.keep_alive
        return False

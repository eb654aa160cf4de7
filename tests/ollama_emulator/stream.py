"""NDJSON answers: first error as status, then lines, one flush each (contract section 3.2)."""

from __future__ import annotations

import asyncio

from .create_request import APIError
from .eras import Version
from .exchange import Exchange, error_response
from .faults import Armed, Kind
from .golang import dumps
from .http import ClientGone, HangUp, Reset, Response
from .parts import Progress, Worker

_LINE_FAULTS = (Kind.STALL, Kind.RAW_LINE, Kind.ERROR_LINE, Kind.CUT, Kind.END_EARLY)
_PLAIN = "application/json"  # create and pull set it bare


class _Ended(Exception):
    """A fault ends this answer."""

    def __init__(self, armed: Armed) -> None:
        super().__init__(armed.fault.kind)
        self.armed = armed


class LineAnswer:
    """Drives a worker and writes its messages. `cancels`: a client that leaves ends the work
    (era C, and pull); elsewhere a streaming worker wedges for ever (section 3.4)."""

    def __init__(self, exchange: Exchange, worker: Worker, version: Version, *, cancels: bool) -> None:
        self._exchange = exchange
        self._worker = worker
        self._version = version
        self._cancels = cancels
        self._count = 0
        self._started = False
        self._done: set[int] = set()
        self._held = b""
        self.wedged = False

    async def run(self, *, stream: bool) -> None:
        try:
            await (self._stream() if stream else self._wait())
        finally:
            if not self.wedged:
                await self._worker.aclose()

    async def _wait(self) -> None:
        """`stream:false`: nothing until the end, then the last message only. In eras A and B
        the waiter does not notice a client that left, so the work is done all the same."""
        latest = Progress("")
        try:
            async for latest in self._worker:
                self._count += 1
                self._exchange.call.lines.append(latest.as_json().decode())
                await self._pause()
                for armed in self._due(latest.status):
                    if armed.fault.kind is Kind.STALL:
                        await self._exchange.stall(armed)
                if self._cancels and self._exchange.wire.gone():
                    raise ClientGone("during create")
        except APIError as error:
            await self._exchange.respond(error_response(str(error), error.status or 500, _PLAIN))
            return
        await self._exchange.respond(Response(200, latest.as_json(), _PLAIN))

    async def _stream(self) -> None:
        try:
            async for progress in self._worker:
                if self._exchange.wire.gone():
                    raise ClientGone("between lines")
                await self._line(progress.as_json(), progress.status)
            await self._flush()
            await self._exchange.close_stream()
        except APIError as error:
            await self._fail(error)
        except _Ended as ended:
            await self._end(ended.armed)
        except ClientGone:
            await self._abandon()
            raise

    async def _fail(self, error: APIError) -> None:
        if not self._started and not self._version.first_error_is_a_line:
            await self._exchange.respond(error_response(str(error), error.status or 500, _PLAIN))
            return
        line: dict[str, object] = {"error": str(error)}
        if self._version.first_error_is_a_line and error.status is not None:
            line["status"] = error.status  # before 0.12.6 the status was in the line
        await self._line(dumps(line), "")
        await self._flush()
        await self._exchange.close_stream()

    async def _line(self, line: bytes, status: str) -> None:
        if not self._started:
            self._started = True
            await self._exchange.open_stream("application/x-ndjson")
            await self._act("")
        await self._pause()
        await self._write(line + b"\n")
        self._count += 1
        self._exchange.call.lines.append(line.decode())
        await self._act(status)

    async def _pause(self) -> None:
        for armed in self._exchange.faults(Kind.LINE_DELAY):
            await asyncio.sleep(armed.fault.seconds or 0)

    def _due(self, status: str) -> list[Armed]:
        """Line faults whose place has come; each acts once in an answer."""
        due = []
        for armed in self._exchange.faults(*_LINE_FAULTS):
            early_stall = armed.fault.kind is Kind.STALL and armed.fault.after_line is None
            if armed.number in self._done or early_stall:
                continue
            if armed.fault.hits_line(self._count, status):
                self._done.add(armed.number)
                due.append(armed)
        return due

    async def _act(self, status: str) -> None:
        for armed in self._due(status):
            fault = armed.fault
            if fault.kind is Kind.STALL:
                await self._exchange.stall(armed)
            elif fault.kind is Kind.RAW_LINE:
                filler = b'{"status":"' + b"x" * fault.size + b'"}' if fault.size else b""
                await self._write((fault.payload or filler) + b"\n")
            else:
                if fault.kind is Kind.ERROR_LINE:
                    text = fault.payload.decode("utf-8", "replace")
                    await self._write(dumps({"error": text}) + b"\n")
                    self._exchange.call.lines.append(dumps({"error": text}).decode())
                raise _Ended(armed)

    async def _write(self, data: bytes) -> None:
        if self._exchange.faults(Kind.JOIN_LINES):
            if not self._held:
                self._held = data
                return
            data, self._held = self._held + data, b""
        if splits := self._exchange.faults(Kind.SPLIT_LINES):
            at = splits[0].fault.at_bytes or len(data) // 2
            await self._exchange.send_piece(data[:at])
            await asyncio.sleep(splits[0].fault.seconds or 0.01)
            data = data[at:]
        if data:
            await self._exchange.send_piece(data)

    async def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            await self._exchange.send_piece(held)

    async def _end(self, armed: Armed) -> None:
        if armed.fault.takes_effect:
            await finish(self._worker)
        await self._flush()
        if armed.fault.kind is Kind.CUT:
            raise Reset if armed.fault.reset else HangUp
        await self._exchange.close_stream()

    async def _abandon(self) -> None:
        if self._cancels:
            return
        # The worker goes on to its next send and blocks there: what it does in between, such
        # as writing the manifest once `writing manifest` was taken, still happens.
        try:
            await anext(self._worker)
            self.wedged = True
        except (StopAsyncIteration, APIError):
            pass


async def finish(worker: Worker) -> None:
    """Runs a worker to its end with nobody listening."""
    try:
        async for _ in worker:
            pass
    except APIError:
        pass

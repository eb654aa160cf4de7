"""A TCP proxy of our own between client and service: cuts, resets, stalls, goes half-open, throttles."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

_READ_BYTES = 64 * 1024


@dataclass
class Faults:
    """What happens to the bytes of one direction. Limits count from the connection's start.

    cut_after_bytes: the connection ends after so many bytes, with a FIN, or with a RST if `reset`.
    stall_after_bytes: nothing more passes, the connection stays open (half-open: neither side hears of it).
    bytes_per_second: no faster than that.
    flip_at_byte: that byte of the stream is inverted.
    """

    cut_after_bytes: int | None = None
    reset: bool = False
    stall_after_bytes: int | None = None
    bytes_per_second: int | None = None
    flip_at_byte: int | None = None


@dataclass
class Plan:
    """What happens to one connection."""

    up: Faults = field(default_factory=Faults)
    down: Faults = field(default_factory=Faults)


class TcpProxy:
    """`async with TcpProxy(target_address) as proxy`; `plan` is asked once for each new connection."""

    def __init__(self, target: str, plan: Callable[[int], Plan] = lambda number: Plan()) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._plan = plan
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.connections = 0
        self.bytes_up = 0
        self.address = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        self.reset_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def reset_all(self) -> None:
        """Every connection ends with a RST, now."""
        for writer in list(self._writers):
            _reset(writer)

    def set_target(self, target: str) -> None:
        """Connections from now on go elsewhere."""
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        plan = self._plan(self.connections)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            self._forget(writer, task)
            return
        self._writers.add(far_writer)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer, plan.up, writer, counts=True))
                group.create_task(self._pump(far_reader, writer, plan.down, far_writer, counts=False))
        except* (ConnectionError, OSError):
            pass
        finally:
            for end in (writer, far_writer):
                self._forget(end, task)
                end.close()
            for end in (writer, far_writer):
                with contextlib.suppress(ConnectionError, OSError, TimeoutError):
                    await asyncio.wait_for(end.wait_closed(), 1)

    def _forget(self, writer: asyncio.StreamWriter, task: asyncio.Task[None]) -> None:
        self._writers.discard(writer)
        self._tasks.discard(task)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        faults: Faults,
        source_writer: asyncio.StreamWriter,
        *,
        counts: bool,
    ) -> None:
        passed = 0
        while True:
            wanted = _READ_BYTES
            if faults.bytes_per_second is not None:
                wanted = min(wanted, max(1, faults.bytes_per_second // 20))
            for limit in (faults.cut_after_bytes, faults.stall_after_bytes):
                if limit is not None:
                    wanted = min(wanted, limit - passed)
            if faults.stall_after_bytes is not None and passed >= faults.stall_after_bytes:
                await asyncio.Event().wait()
            if faults.cut_after_bytes is not None and passed >= faults.cut_after_bytes:
                self._cut(sink, source_writer, faults)
                raise ConnectionResetError("cut by plan")
            data = await source.read(wanted)
            if not data:
                with contextlib.suppress(ConnectionError, OSError):
                    sink.write_eof()
                return
            if faults.flip_at_byte is not None and passed <= faults.flip_at_byte < passed + len(data):
                changed = bytearray(data)
                changed[faults.flip_at_byte - passed] ^= 0xFF
                data = bytes(changed)
            sink.write(data)
            await sink.drain()
            passed += len(data)
            if counts:
                self.bytes_up += len(data)
            if faults.bytes_per_second is not None:
                await asyncio.sleep(len(data) / faults.bytes_per_second)

    @staticmethod
    def _cut(sink: asyncio.StreamWriter, source_writer: asyncio.StreamWriter, faults: Faults) -> None:
        for writer in (sink, source_writer):
            if faults.reset:
                _reset(writer)
            else:
                writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Closes with a RST instead of a FIN."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()

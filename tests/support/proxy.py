"""A TCP proxy of our own between client and service: cuts, resets, stalls, goes half-open, throttles."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from tests.support.raw_server import End, RawServer

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
        self._server = RawServer(self._pass_on)
        self.connections = 0
        self.bytes_up = 0
        self.address = ""
        self._is_dead = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        self.address = self._server.address
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._server.__aexit__(*exc)

    def reset_all(self) -> None:
        """Every connection ends with a RST, now."""
        self._server.reset_all()

    def go_half_open(self) -> None:
        """From now on nothing passes, in any direction; every connection stays open."""
        self._is_dead.set()

    def set_target(self, target: str) -> None:
        """Connections from now on go elsewhere."""
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))

    async def _pass_on(self, near: End) -> None:
        self.connections += 1
        plan = self._plan(self.connections)
        try:
            far = await self._server.connect(*self._target)
        except OSError:
            near.reset()
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(near, far, plan.up, counts=True))
                group.create_task(self._pump(far, near, plan.down, counts=False))
        except* (ConnectionError, OSError):
            pass
        finally:
            far.writer.close()

    async def _pump(self, source: End, sink: End, faults: Faults, *, counts: bool) -> None:
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
                for end in (sink, source):
                    end.reset() if faults.reset else end.writer.close()
                raise ConnectionResetError("cut by plan")
            data = await source.reader.read(wanted)
            if self._is_dead.is_set():
                await asyncio.Event().wait()
            if not data:
                with contextlib.suppress(ConnectionError, OSError):
                    sink.writer.write_eof()
                return
            if faults.flip_at_byte is not None and passed <= faults.flip_at_byte < passed + len(data):
                changed = bytearray(data)
                changed[faults.flip_at_byte - passed] ^= 0xFF
                data = bytes(changed)
            sink.writer.write(data)
            await sink.writer.drain()
            passed += len(data)
            if counts:
                self.bytes_up += len(data)
            if faults.bytes_per_second is not None:
                await asyncio.sleep(len(data) / faults.bytes_per_second)

"""A TCP server for tests that answer byte by byte, of which nothing is left at its end.

`asyncio.start_server` knows a connection only once its task has begun to run: a connection whose task is
cancelled before that, or that has no `finally` around its reading, is left to the garbage collector.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Self


class End(asyncio.StreamReaderProtocol):
    """One end of a connection, listed in `ends` for as long as its socket is open."""

    def __init__(self, ends: set[End], accepted: Callable[[End], None] = lambda end: None) -> None:
        loop = asyncio.get_running_loop()
        self.reader = asyncio.StreamReader(loop=loop)
        super().__init__(self.reader, loop=loop)
        self.ended: asyncio.Future[None] = loop.create_future()
        self._ends = ends
        self._accepted = accepted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        self.writer = asyncio.StreamWriter(transport, self, self.reader, asyncio.get_running_loop())
        self._ends.add(self)
        self._accepted(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._ends.discard(self)
        self.ended.set_result(None)

    def reset(self) -> None:
        """Closes with a RST instead of a FIN."""
        connection = self.writer.get_extra_info("socket")
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class RawServer:
    """`async with RawServer(serve) as server`; `serve(end)` runs once for each connection.

    At the end the listener is closed, every `serve` is cancelled and every connection reset, and both are
    waited for. What a `serve` raised is raised then, unless the other side went away.
    """

    def __init__(self, serve: Callable[[End], Awaitable[None]]) -> None:
        self._serve = serve
        self._is_closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[Exception] = []
        self.ends: set[End] = set()
        self.address = ""

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: End(self.ends, self._accept), "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._is_closed = True
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.reset_all()
        while self.ends:
            await next(iter(self.ends)).ended
        await self._server.wait_closed()
        if self._errors:
            raise ExceptionGroup("a test's server failed", self._errors)

    async def connect(self, host: str, port: int) -> End:
        """A connection to elsewhere that ends with this server."""
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(lambda: End(self.ends), host, port))[1]

    def reset_all(self) -> None:
        """Every connection ends with a RST, now."""
        for end in list(self.ends):
            end.reset()

    def _accept(self, end: End) -> None:
        if self._is_closed:
            end.reset()
            return
        task = asyncio.create_task(self._run(end))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, end: End) -> None:
        try:
            await self._serve(end)
        except (ConnectionError, EOFError):
            pass
        except Exception as error:  # noqa: BLE001 (raised at the end)
            self._errors.append(error)
        finally:
            end.writer.close()

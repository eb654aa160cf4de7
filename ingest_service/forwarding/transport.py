"""httpx over connections of our own making, so that each answer has a budget.

httpx's own transport makes its connections by itself, and has no place for a limit on interim answers.
"""

from __future__ import annotations

import contextlib
import ssl
import sys
from collections.abc import AsyncIterable, AsyncIterator, Iterator

import anyio
import httpcore
import httpx

from ingest_service.forwarding.metered import AnswerBudget, MeteredBackend, MeteredStream

#: The key in a request's extensions.
BUDGET = "answer_budget"
_DEFAULT = AnswerBudget(64 * 1024, 0.5)
#: Ollama closes idle connections on a restart: few are kept.
_MAX_CONNECTIONS = 8
_MAX_IDLE = 2
_IDLE_SECONDS = 15.0
_SAME_NAMES = (
    "ConnectTimeout", "ReadTimeout", "WriteTimeout", "PoolTimeout", "TimeoutException",
    "ConnectError", "ReadError", "WriteError", "NetworkError",
    "LocalProtocolError", "RemoteProtocolError", "ProtocolError", "UnsupportedProtocol", "ProxyError",
)  # fmt: skip
_KIN: dict[type[BaseException], type[httpx.TransportError]] = {
    getattr(httpcore, name): getattr(httpx, name) for name in _SAME_NAMES
}


def warm_up() -> None:
    """Imports what the first request needs; it takes some 0.1 s. Not for a thread with an event loop."""
    anyio.run(anyio.sleep, 0)
    # httpcore looks for it at each connection; what is not there would be looked for on disk each time.
    sys.modules.setdefault("sniffio", None)  # type: ignore[arg-type]


class Transport(httpx.AsyncBaseTransport):
    """For one target. `trust` is needed for https only."""

    def __init__(self, trust: ssl.SSLContext | None) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=trust,
            max_connections=_MAX_CONNECTIONS,
            max_keepalive_connections=_MAX_IDLE,
            keepalive_expiry=_IDLE_SECONDS,
            http1=True,
            http2=False,
            network_backend=MeteredBackend(),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        with _in_httpx_kinds():
            answer = await self._pool.handle_async_request(
                httpcore.Request(
                    request.method,
                    url,
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        connection = answer.extensions.get("network_stream")
        if not isinstance(connection, MeteredStream):
            raise httpx.RemoteProtocolError("the connection became one of another protocol")
        connection.body_begins(request.extensions.get(BUDGET, _DEFAULT))
        assert isinstance(answer.stream, AsyncIterable)
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(answer.stream, answer),
            extensions=answer.extensions,
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    """The answer's bytes as they come."""

    def __init__(self, parts: AsyncIterable[bytes], answer: httpcore.Response) -> None:
        self._parts = parts
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _in_httpx_kinds():
            async for part in self._parts:
                yield part

    async def aclose(self) -> None:
        await self._answer.aclose()


@contextlib.contextmanager
def _in_httpx_kinds() -> Iterator[None]:
    try:
        yield
    except tuple(_KIN) as error:
        kind = next(_KIN[kin] for kin in type(error).__mro__ if kin in _KIN)
        raise kind(str(error)) from error

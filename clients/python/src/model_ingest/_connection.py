"""One channel to one server: its options, its first contact, and calls that end."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Final, TypeVar

import grpc

from model_ingest._errors import BusyError, IngestError, UnreachableError
from model_ingest._limits import Limits
from model_ingest._status import from_rpc_error
from model_ingest._wire import serialised
from model_ingest.v1 import catalog_service_pb2_grpc, ingest_service_pb2, ingest_service_pb2_grpc
from model_ingest.v1.ingest_service_pb2 import UploadRequest
from model_ingest.v1.resources_pb2 import File

DEFAULT_SERVER: Final = "127.0.0.1:50051"
DEFAULT_PORT: Final = 50051
_SERVICE: Final = ingest_service_pb2.DESCRIPTOR.services_by_name["IngestService"]
_UPLOAD: Final = f"/{_SERVICE.full_name}/Upload"
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024

_HAS_SCHEME = re.compile(r"^(unix|dns|ipv4|ipv6|vsock|unix-abstract|passthrough|xds):")
_HAS_PORT = re.compile(r":\d+$")
_LOOPBACK = re.compile(r"^(localhost|127\.[0-9.]+|\[::1\])(:|$)")
# grpc makes these up itself when there is no server to ask.
_MAYBE_OURS = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
)
_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


def address(server: str) -> str:
    """`HOST:PORT` as grpc wants it; a missing port is 50051. ValueError for a URL or nothing at all."""
    server = server.strip()
    if not server or ("://" in server and not _HAS_SCHEME.match(server)):
        raise ValueError(f"{server!r} is no server address: write HOST:PORT, without http://")
    if _HAS_SCHEME.match(server) or _HAS_PORT.search(server):
        return server
    return f"{server}:{DEFAULT_PORT}"


def channel_options(server: str) -> list[tuple[str, int | str]]:
    """Only what has a reason."""
    options: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        # A dead link is noticed in quiet streams as well. On a half-open one the timeout of grpc's other
        # pings counts, 60 s by default; a link whose buffers hold half a minute of bytes is not dead.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 35_000),
        ("grpc.http2.max_pings_without_data", 0),
        # grpc's own waits between connects grow to 2 minutes; ours decide (`_backoff`).
        ("grpc.min_reconnect_backoff_ms", 10_000),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # Retries need to know what the server has committed, which grpc's own do not (AIP-194).
        ("grpc.enable_retries", 0),
        # Two clients in one process must not share a connection that one of them gave up on.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if _LOOPBACK.match(server):
        # https_proxy in the environment must not swallow a local service.
        options.append(("grpc.enable_http_proxy", 0))
    return options


class Connection:
    """The channel, the stubs, and the one way a unary call is made.

    Belongs to the event loop it was made on.
    """

    def __init__(
        self, server: str, limits: Limits, credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        self.server = address(server)
        self.contacted = False
        self._limits = limits
        options = channel_options(self.server)
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(self.server, options)
        else:
            self._channel = grpc.aio.secure_channel(self.server, credentials, options)
        self.ingests = ingest_service_pb2_grpc.IngestServiceStub(self._channel)
        # The stub's own would parse nothing out of the chunks' bytes, and serialise them on the loop.
        self.upload: grpc.aio.StreamUnaryMultiCallable[UploadRequest | bytes, File] = (
            self._channel.stream_unary(
                _UPLOAD, request_serializer=serialised, response_deserializer=File.FromString
            )
        )
        self.catalog = catalog_service_pb2_grpc.CatalogServiceStub(self._channel)

    async def close(self) -> None:
        """Cancels what still runs."""
        await self._channel.close()

    async def ready(self) -> None:
        """Returns once there is a connection, or once grpc knows why there is none (the call then says it).

        Without this a peer that accepts and never speaks costs each call its whole deadline.
        Raises UnreachableError after `connect_timeout_seconds`.
        """
        ends_seconds = time.monotonic() + self._limits.connect_timeout_seconds
        pause_seconds = 0.002
        waited = False
        while True:
            # Asked rather than awaited: a cancelled wait_for_state_change leaves its operation behind.
            state = self._channel.get_state(try_to_connect=True)
            if state is grpc.ChannelConnectivity.READY:
                return
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE and waited:
                return
            if state is grpc.ChannelConnectivity.SHUTDOWN:
                raise UnreachableError("this client is closed")
            if time.monotonic() >= ends_seconds:
                raise UnreachableError(
                    f"cannot reach {self.server}: no answer within {self._limits.connect_timeout_seconds:g} s"
                )
            waited = True
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 2, 0.05)

    async def unary(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
    ) -> _Response:
        """One call with a deadline; while the server itself asks to wait, it is asked again until then.

        Every unary call of the API is safe to repeat (creations carry a request id).
        """
        ends_seconds = time.monotonic() + self._limits.timeout_seconds
        while True:
            await self.ready()
            try:
                response = await method(request, timeout=max(0.05, ends_seconds - time.monotonic()))
            except grpc.aio.AioRpcError as failed:
                error = self.error(failed)
                delay_seconds = error.retry_after_seconds
                if not isinstance(error, BusyError) or delay_seconds is None:
                    raise error from None
                if time.monotonic() + delay_seconds >= ends_seconds:
                    raise error from None
                await asyncio.sleep(delay_seconds)
            else:
                self.contacted = True
                return response

    def error(self, failed: grpc.aio.AioRpcError) -> IngestError:
        """The error of our tree; notes whether the server has ever answered."""
        error = from_rpc_error(failed, self.server, contacted=self.contacted)
        if error.reason or error.code not in _MAYBE_OURS:
            self.contacted = True
        return error

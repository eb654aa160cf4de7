"""`GET /metrics` over HTTP, on threads of its own: it answers above all while the event loop does not.

There is no authentication, so whoever reaches the port must not be able to use anything up: connections are
few and short, and a newer one is worth more than an older.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import sys
import threading
from collections import deque
from socketserver import BaseServer, TCPServer, ThreadingMixIn
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, MetricsHandler

from ingest_service.telemetry.descriptors import SHORTAGE

_log = logging.getLogger(__name__)
#: Beyond these the oldest is cut, so that one that says nothing keeps nobody out.
_MAX_CONNECTIONS = 8
#: So long a connection may say nothing, or not take its answer.
_IDLE_SECONDS = 5.0
#: A stop is noticed after this long at most.
_POLL_SECONDS = 0.1
_JOIN_SECONDS = 2.0
_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


class _Handler(MetricsHandler):
    timeout = _IDLE_SECONDS
    server_version = "model-ingest"
    sys_version = ""

    def do_GET(self) -> None:  # noqa: N802 (the library's name)
        try:
            is_ours = urlsplit(self.path).path == "/metrics"
        except ValueError:
            self.send_error(400)
            return
        if not is_ours:
            self.send_error(404)
            return
        # What the asker would like to have it in is parsed by the library, and there are ways to break that.
        del self.headers["Accept"]
        super().do_GET()


class _Server(ThreadingMixIn, TCPServer):
    """The library's own takes any number of connections for any time, and asks for its host's full name."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, family: socket.AddressFamily, address: Any, handler: type[MetricsHandler]) -> None:
        self.address_family = family
        self._open: deque[Any] = deque()
        #: Never set.
        self._pause = threading.Event()
        super().__init__(address, handler)

    def get_request(self) -> Any:
        try:
            return super().get_request()
        except OSError as error:
            SHORTAGE.note(error)
            if error.errno in _SHORT:
                # The connection stays in the queue: without a pause it would be asked for again and again.
                self._pause.wait(_POLL_SECONDS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.append(request)
        while len(self._open) > _MAX_CONNECTIONS:
            with contextlib.suppress(OSError):
                self._open.popleft().shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with contextlib.suppress(ValueError):
            self._open.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            _log.exception("unforeseen fault while metrics were asked for")


class MetricsServer:
    """`start`, then `stop`; both wait, so call them on a thread that may."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._handler: type[MetricsHandler] = _Handler.factory(registry)
        self._server: BaseServer | None = None
        self._thread: threading.Thread | None = None

    def start(self, listen: str) -> int:
        """Listens on HOST:PORT; answers the port, which for 0 is a free one. Raises OSError."""
        host, _, port = listen.rpartition(":")
        try:
            family, *_, found = socket.getaddrinfo(
                host.strip("[]"), None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            # The port is not left to getaddrinfo, which takes 65536 for 0.
            server = _Server(family, (found[0], int(port), *found[2:]), self._handler)
        except (OverflowError, UnicodeError) as error:
            raise OSError(str(error)) from error
        self._server = server
        self._thread = threading.Thread(
            target=server.serve_forever, args=(_POLL_SECONDS,), name="metrics", daemon=True
        )
        self._thread.start()
        return int(server.server_address[1])

    def stop(self) -> None:
        """Does nothing if it was not started."""
        if self._server is None or self._thread is None:
            return
        server, self._server = self._server, None
        server.shutdown()
        server.server_close()
        self._thread.join(_JOIN_SECONDS)

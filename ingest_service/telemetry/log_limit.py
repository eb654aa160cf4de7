"""Bounds what callers can make the log say: beyond 20 lines a second of a kind, one line counts the rest.

Only lines that are written while a call is answered are counted, for each peer and kind (logger and message);
what the service does by itself, such as a boot's repairs, keeps one line for each thing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextvars import ContextVar

#: The address, without its port, of whoever made the call that is being answered; empty: nobody.
PEER: ContextVar[str] = ContextVar("peer", default="")

_MAX_LINES = 20
_WINDOW_SECONDS = 1.0
#: Kinds of lines of peers that are counted; a kind that was pushed out begins anew.
_MAX_KINDS = 1024
_COUNT = "more lines like this were left out"


class LogLimit(logging.Filter):
    """A filter of `handler`, to which it also gives the lines that count."""

    def __init__(self, handler: logging.Handler, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._handler = handler
        self._clock = clock
        self._lock = threading.Lock()
        #: (peer, logger, message) -> when its second began, how many lines in it.
        self._kinds: OrderedDict[tuple[str, str, str], tuple[float, int]] = OrderedDict()
        self._timer: threading.Timer | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        peer = PEER.get()
        if not peer or record.msg == _COUNT:
            return True
        record.peer = peer
        kind = (peer, record.name, str(record.msg))
        now = self._clock()
        with self._lock:
            began, lines = self._kinds.pop(kind, (now, 0))
            ended = lines - _MAX_LINES if now - began >= _WINDOW_SECONDS else 0
            if now - began >= _WINDOW_SECONDS:
                began, lines = now, 0
            self._kinds[kind] = (began, lines + 1)
            pushed_out = self._kinds.popitem(last=False) if len(self._kinds) > _MAX_KINDS else None
            if lines >= _MAX_LINES and self._timer is None:
                self._timer = threading.Timer(_WINDOW_SECONDS, self.flush)
                self._timer.daemon = True
                self._timer.start()
        if ended > 0:
            self._tell(kind, ended)
        if pushed_out is not None and pushed_out[1][1] > _MAX_LINES:
            self._tell(pushed_out[0], pushed_out[1][1] - _MAX_LINES)
        return lines < _MAX_LINES

    def flush(self) -> None:
        """Tells every count that is not told yet, when a flood has ended."""
        with self._lock:
            self._timer = None
            full = {
                kind: lines - _MAX_LINES for kind, (_, lines) in self._kinds.items() if lines > _MAX_LINES
            }
            for kind in full:
                del self._kinds[kind]
        for kind, count in full.items():
            self._tell(kind, count)

    def _tell(self, kind: tuple[str, str, str], count: int) -> None:
        peer, name, message = kind
        record = logging.LogRecord(name, logging.WARNING, "", 0, _COUNT, (), None)
        vars(record).update(peer=peer, of=message, count=count)
        self._handler.handle(record)


def peer_address(peer: str) -> str:
    """gRPC's `ipv4:127.0.0.1:50051` without the port: each connection has another."""
    return peer.rpartition(":")[0] or peer or "unknown"

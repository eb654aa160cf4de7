"""Says in the log that the process, or the machine, has run out of file descriptors."""

from __future__ import annotations

import errno
import logging
import resource
import threading
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)
_PAUSE_SECONDS = 60.0
_MACHINE = "the machine has run out of open files: raise the sysctl fs.file-max, or stop what holds them"
_PROCESS = (
    "this process has run out of file descriptors: raise its limit (`ulimit -n`, LimitNOFILE= in a systemd"
    " unit, --ulimit nofile= of a container) and restart it, or lower INGEST_MAX_UPLOADS"
)
#: What a client or an operator reads; the log has the rest.
WORDS = "The service has run out of file descriptors: raise its limit (`ulimit -n`)."


class DescriptorShortage:
    """One WARNING a minute at most, with a count of the failures since the last. Any thread may call it."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._told_seconds: float | None = None

    def note(self, error: BaseException) -> bool:
        """Whether `error`, or what caused it, is a lack of descriptors (EMFILE, ENFILE); then it is told."""
        number = _number_of(error)
        if number is None:
            return False
        with self._lock:
            self._failures += 1
            now = self._clock()
            if self._told_seconds is not None and now - self._told_seconds < _PAUSE_SECONDS:
                return True
            self._told_seconds, failures, self._failures = now, self._failures, 0
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        extra = {"soft_limit": soft, "hard_limit": hard, "failures": failures}
        _log.warning(_PROCESS if number == errno.EMFILE else _MACHINE, extra=extra)
        return True


#: The process has one limit, so it has one of these.
SHORTAGE = DescriptorShortage()


def _number_of(error: BaseException) -> int | None:
    """The errno of the first lack of descriptors among `error` and its causes."""
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, OSError) and one.errno in {errno.EMFILE, errno.ENFILE}:
            return one.errno
        if isinstance(one, BaseExceptionGroup):
            waiting.extend(one.exceptions)
        waiting.extend(cause for cause in (one.__cause__, one.__context__) if cause is not None)
    return None

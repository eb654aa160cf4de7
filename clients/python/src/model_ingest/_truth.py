"""What a call really ended with, in spite of a write that failed.

When the server answers while a write is on its way, grpc.aio sets the call's status twice: once
to what the server said, once to INTERNAL "Internal error from Core" by the failed write, in
either order (measured: 1 to 13 % of early answers end as INTERNAL even for `await call`). The
done callback sees the first of the two, `await call` the last: one of them is the truth.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import grpc

from model_ingest._errors import ConnectionLostError

_T = TypeVar("_T")
_NOISE: Final = "Internal error from Core"


class FirstStatus:
    """The status that a call was given first. Made right after the call."""

    def __init__(self, call: grpc.aio.Call) -> None:
        self._first: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._note)

    def truth(self, last: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """`last` is what `await call` raised. ConnectionLostError where nobody knows: ask the server."""
        if not _is_noise(last):
            return last
        first = self._first
        if first is None or _is_noise(first) or first.code() is grpc.StatusCode.OK:
            raise ConnectionLostError("the stream broke off, and its answer was lost")
        return first

    def _note(self, call: grpc.aio.Call) -> None:
        if self._first is None:
            self._first = grpc.aio.AioRpcError(
                _at_once(call.code()),
                trailing_metadata=_at_once(call.trailing_metadata()),
                details=_at_once(call.details()),
            )


def _is_noise(error: grpc.aio.AioRpcError) -> bool:
    return error.code() is grpc.StatusCode.INTERNAL and error.details() == _NOISE


def _at_once(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """The result of a coroutine that does not have to wait: a done call knows its status."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        result: _T = finished.value
        return result
    coroutine.close()
    raise RuntimeError("a done call has a status")

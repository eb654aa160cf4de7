"""Messages that are no valid protobuf, or hold more than a request may.

They are refused by us: grpc.aio would tell the client the exception's text.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from ingest_service.vocabulary.errors import IngestError


class UndecodableMessage(Exception):
    """The client sent bytes that are no message of the method's request type."""


class _Bad:
    """Stands in for such a message until the handler asks for it."""

    def __init__(self, error: type[UndecodableMessage] | IngestError) -> None:
        self._error = error

    def taken(self) -> type[UndecodableMessage] | IngestError:
        """The error, once: it will hold the frames that hold this, and each other they would keep alive."""
        error, self._error = self._error, UndecodableMessage
        return error


def safe_deserializer(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """`deserialize`, but it raises nothing; `checked` raises in its stead."""
    if deserialize is None:
        return None

    def safe(data: bytes) -> Any:
        try:
            return deserialize(data)
        except IngestError as error:
            # Its traceback holds the message's bytes.
            return _Bad(error.with_traceback(None))
        except Exception:  # noqa: BLE001 (protobuf raises its own kind, and ValueError for bad UTF-8)
            return _Bad(UndecodableMessage)

    return safe


def checked(message: Any) -> Any:
    """The message. Raises UndecodableMessage, or the IngestError that the deserializer raised."""
    if isinstance(message, _Bad):
        raise message.taken()
    return message


async def checked_stream(messages: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    """The messages. Raises as `checked` does at the first that is none.

    gRPC's own stream keeps its last message, and lives until the garbage collector comes by if nobody closes
    it: close this one, and both go at once.
    """
    async with contextlib.aclosing(aiter(messages)) as stream:  # type: ignore[type-var]
        while True:
            try:
                # In no variable: that would keep it while the next one is awaited.
                yield checked(await anext(stream))
            except StopAsyncIteration:
                return

"""Messages that are no valid protobuf.

They are refused by us: grpc.aio would tell the client the exception's text.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any


class UndecodableMessage(Exception):
    """The client sent bytes that are no message of the method's request type."""


class _Undecodable:
    """Stands in for such a message until the handler asks for it."""


_UNDECODABLE = _Undecodable()


def safe_deserializer(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """`deserialize`, but it raises nothing; `checked` raises in its stead."""
    if deserialize is None:
        return None

    def safe(data: bytes) -> Any:
        try:
            return deserialize(data)
        except Exception:  # noqa: BLE001 (protobuf raises its own kind, and ValueError for bad UTF-8)
            return _UNDECODABLE

    return safe


def checked(message: Any) -> Any:
    """The message. Raises UndecodableMessage."""
    if message is _UNDECODABLE:
        raise UndecodableMessage
    return message


async def checked_stream(messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The messages. Raises UndecodableMessage at the first that is none."""
    async for message in messages:
        yield checked(message)

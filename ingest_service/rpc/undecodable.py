"""Messages that are no valid protobuf, or hold more than a request may.

They are refused by us: grpc.aio would tell the client the exception's text.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from ingest_service.vocabulary.errors import IngestError


class UndecodableMessage(Exception):
    """The client sent bytes that are no message of the method's request type."""


@dataclass(frozen=True, slots=True)
class _Bad:
    """Stands in for such a message until the handler asks for it."""

    error: type[UndecodableMessage] | IngestError


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
        raise message.error
    return message


async def checked_stream(messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The messages. Raises as `checked` does at the first that is none."""
    async for message in messages:
        yield checked(message)

"""Hashing bytes of the store from the first to the last."""

from __future__ import annotations

from collections.abc import Callable

from ingest_service.storage import BlobReader, FileExecutor, Sha256

_PIECE_BYTES = 8 * 1024 * 1024


async def digest_of(
    reader: BlobReader, executor: FileExecutor, on_read: Callable[[int], None] = lambda _: None
) -> str:
    """`sha256:<hex>` of all its bytes, 8 MiB of them in memory at a time; `on_read` is told how many each
    time. Raises StorageFailed."""
    hasher = Sha256(executor)
    try:
        while data := await reader.read(hasher.hashed_bytes, _PIECE_BYTES):
            await hasher.update([data])
            on_read(len(data))
    finally:
        await hasher.settle()
    return hasher.digest()

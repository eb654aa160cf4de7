"""Reading a blob again from its first byte to its last, in a way that nobody else notices."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol


class BlobScan(Protocol):
    """One pass over a blob's bytes."""

    @property
    def size_bytes(self) -> int:
        """How long it was when it was opened."""
        ...

    async def hash_next(self) -> int:
        """Hashes the next few bytes; how many, 0 at the end. Raises StorageFailed, BackendDown."""
        ...

    def digest(self) -> str:
        """`sha256:<hex>` of what was hashed so far."""
        ...

    async def is_current(self) -> bool:
        """The bytes that are read here are still those under the name: nobody has replaced them."""
        ...


class BlobScanner(Protocol):
    """Opens blobs for one pass."""

    def open(self, sha256: str) -> AbstractAsyncContextManager[BlobScan]:
        """Raises BlobCorrupt if there is no such file, StorageFailed, BackendDown."""
        ...

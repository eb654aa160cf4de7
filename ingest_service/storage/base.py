"""What a blob store does. `tests/storage/conformance.py` is the suite every store must pass.

Errors: StorageFull when there is no room; StorageFailed when bytes could not be kept, after which the
partial is poisoned: what was not synced before is not to be trusted (security.md section 6); StoreDown when
the store cannot be used for the moment and nothing is lost (permissions, a missing directory, another store
in its place).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from ingest_service.storage.buffer import Buffer
from ingest_service.storage.placed import PlacedBy
from ingest_service.storage.source_file import SourceFile


class PartialFile(Protocol):
    """Bytes that are arriving, with the exclusive right to write them."""

    @property
    def partial_id(self) -> str:
        """The id the service made for it; never a client's word."""
        ...

    @property
    def is_shared(self) -> bool:
        """It was a second name of a file in the import folder when it was opened: others may change it."""
        ...

    async def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Writes the buffers one after the other from `offset` on. Not durable before `sync`."""
        ...

    async def read(self, offset: int, size_bytes: int) -> bytes:
        """Up to `size_bytes` of what was written from `offset` on."""
        ...

    async def truncate(self, size_bytes: int) -> None:
        """Cuts off what lies behind."""
        ...

    async def sync(self) -> None:
        """Makes everything written before this call durable, the file's own existence included."""
        ...

    async def size_bytes(self) -> int:
        """How long it is now."""
        ...

    async def remove(self) -> None:
        """Removes it, durably, and lets go of it."""
        ...

    async def close(self) -> None:
        """Lets go of it, after the last submitted write has returned; the bytes stay. May be repeated."""
        ...


class BlobReader(Protocol):
    """An open blob."""

    @property
    def size_bytes(self) -> int:
        """How long it is."""
        ...

    async def read(self, offset: int, size_bytes: int) -> bytes:
        """Up to `size_bytes` from `offset`; fewer only at the end."""
        ...


class BlobStore(Protocol):
    """Keeps blobs under their digests, and partials until they become blobs."""

    async def create_partial(self, partial_id: str) -> PartialFile:
        """A new, empty partial, locked. Raises WriterBusy if there is one already."""
        ...

    async def adopts(self, source: SourceFile) -> bool:
        """`adopt` would very likely do it: no room is needed for the file."""
        ...

    async def adopt(self, partial_id: str, source: SourceFile) -> PartialFile | None:
        """A new partial, locked, with the bytes that the file has now, without copying them; None if the
        store cannot do that, or not safely: copy them then. Not durable before `sync`.

        What is written to the partial or cut from it never reaches the file, but for bytes that somebody
        writes to the file the partial may have them too: whoever publishes it looks whether the file has
        changed. Raises WriterBusy if there is a partial already.
        """
        ...

    async def open_partial(self, partial_id: str) -> PartialFile | None:
        """An existing partial, locked; None if there is none. Raises WriterBusy while another holds it."""
        ...

    def read_partial(self, partial_id: str) -> AbstractAsyncContextManager[BlobReader]:
        """A partial, open for reading beside its writer, who alone knows how far; it stays open through
        `publish`. `size_bytes` is that of the moment. Raises StorageFailed if there is none.
        """
        ...

    async def remove_partial(self, partial_id: str) -> bool:
        """Removes a partial that nobody holds; False if there was none. Raises WriterBusy if held."""
        ...

    async def partial_ids(self) -> list[str]:
        """Every partial there is."""
        ...

    async def publish(self, partial_id: str, sha256: str) -> None:
        """Moves a synced partial to its final place, durably. Finishes what a crash left half done.

        Raises StorageFailed if neither the partial nor the blob is there, WriterBusy while another process
        works on the same digest for too long: ask again later.
        """
        ...

    async def blob_size_bytes(self, sha256: str) -> int | None:
        """The blob's length; None if it is not there."""
        ...

    def open_blob(self, sha256: str) -> AbstractAsyncContextManager[BlobReader]:
        """The blob, open for reading. Raises BlobCorrupt if it is not there."""
        ...

    async def why_not_placeable(self, directory: Path) -> str:
        """Why no blob can be placed in that directory, in a few words; "" if one can."""
        ...

    async def place_blob(self, sha256: str, directory: Path, on_progress: Callable[[int], None]) -> PlacedBy:
        """Puts the blob into a directory of blobs of another program on this machine.

        Raises NotPlaced where the store, the directory or the file systems do not allow it.
        """
        ...

    async def blob_digests(self) -> list[str]:
        """Every blob there is."""
        ...

    async def remove_blob(self, sha256: str, unwanted: Callable[[], Awaitable[bool]]) -> bool:
        """Removes a blob if `unwanted`, asked while nobody can publish it, says so; False if not.

        Raises WriterBusy as `publish` does.
        """
        ...

    async def quarantine_blob(self, sha256: str, unknown: Callable[[], Awaitable[bool]]) -> str | None:
        """Moves a blob out of the store's way, for a person to look at; answers where it is.

        None if `unknown`, asked while nobody can publish it, says no, or it is gone. Raises WriterBusy.
        """
        ...

    async def probe(self) -> None:
        """Proves that the store is the right one and can be written, in every directory where bytes are kept:
        writes, syncs, reads back and removes a few.
        """
        ...

    async def free_bytes(self) -> int:
        """Room left for an unprivileged writer."""
        ...

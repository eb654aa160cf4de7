"""Hashers of uploads that broke off, kept for their next call: hashlib's state cannot be saved elsewhere."""

from __future__ import annotations

from collections import OrderedDict

from ingest_service.ingests.pipeline import Hasher

_CAPACITY = 256


class WarmHashers:
    """The newest few; what is forgotten is read and hashed again from the file."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[int, Hasher]] = OrderedDict()

    def keep(self, file_id: str, writer_epoch: int, hasher: Hasher) -> None:
        """`hasher` has seen what the writer of that epoch wrote."""
        self._kept[file_id] = (writer_epoch, hasher)
        self._kept.move_to_end(file_id)
        if len(self._kept) > _CAPACITY:
            self._kept.popitem(last=False)

    def take(self, file_id: str, writer_epoch: int, committed_size: int) -> Hasher | None:
        """The hasher for the writer of this epoch; None unless it saw only bytes that are still there.

        Another epoch in between means another writer, perhaps in another process, perhaps with other bytes
        behind the committed ones.
        """
        epoch, hasher = self._kept.pop(file_id, (-1, None))
        if hasher is None or epoch + 1 != writer_epoch or hasher.hashed_bytes > committed_size:
            return None
        return hasher

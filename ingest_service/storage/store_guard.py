"""Refuses file calls in a data directory that is not the store which this process opened.

A data directory can be replaced while the service runs: a volume is unmounted, a directory renamed. The path
stays the same and looks right, but bytes written there are not where the database says they are.
"""

from __future__ import annotations

from pathlib import Path

from ingest_service.storage.identity import read_store_id
from ingest_service.vocabulary.errors import StoreReplaced


class StoreGuard:
    """Compares the store id in the data directory with the one that was found at the start."""

    def __init__(self, data_directory: Path) -> None:
        self._data_directory = data_directory
        #: The id that the database has; None before it is known, when nothing is compared.
        self.expected: str | None = None

    def check(self) -> None:
        """Reads one small file; call it in a worker thread. Raises StoreReplaced, or OSError if the id cannot
        be read.
        """
        if self.expected is None:
            return
        found = read_store_id(self._data_directory)
        if found != self.expected:
            raise StoreReplaced(
                f"The data directory {'has no store id' if found is None else f'is store {found}'}, but this"
                f" service opened store {self.expected}: nothing was written to it. Mount the right volume at"
                " INGEST_DATA_DIR, then ask again."
            )

"""The end of a blob that was marked DELETING: its bytes go, then its row."""

from __future__ import annotations

import logging

from ingest_service.database import Database
from ingest_service.storage import BlobStore
from ingest_service.vocabulary.errors import WriterBusy

_log = logging.getLogger(__name__)


async def remove_deleting(database: Database, store: BlobStore, sha256: str) -> bool:
    """True if the bytes are gone. Otherwise somebody wants them again, or is at work on them: the next sweep
    looks at it again.

    A publisher that wrote its PUBLISHING row meanwhile waits for the digest's lock, or has made the row a
    reference: whether it is unwanted is asked once more while the lock is ours.
    """
    try:
        removed = await store.remove_blob(
            sha256, lambda: database.read(lambda tx: tx.blobs.is_unwanted(sha256))
        )
    except WriterBusy:
        return False
    if removed:
        await database.transact(lambda tx: tx.blobs.remove_deleting(sha256))
        _log.info("removed a blob that nobody refers to", extra={"sha256": sha256})
    return removed

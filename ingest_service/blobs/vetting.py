"""Whether a stored blob may be used: by an ingest that names its digest, or by a target it is sent to."""

from __future__ import annotations

from ingest_service.blobs.inspector import Inspector
from ingest_service.database import Database
from ingest_service.formats import JSON, RULES_VERSION, FormatLimits, format_for
from ingest_service.storage import BlobStore, FileExecutor
from ingest_service.vocabulary.errors import BlobCorrupt
from ingest_service.vocabulary.records import Blob, Inspection
from ingest_service.vocabulary.states import BlobState


class Vetting:
    """Reads headers of stored blobs again where only older rules have accepted them."""

    def __init__(
        self, database: Database, store: BlobStore, executor: FileExecutor, limits: FormatLimits
    ) -> None:
        self._database = database
        self._store = store
        self._executor = executor
        self._limits = limits

    async def inspect(self, sha256: str, file_name: str) -> Inspection:
        """What the stored bytes are, as a file of that name. Raises FormatInvalid, BlobCorrupt,
        StorageFailed."""
        async with self._store.open_blob(sha256) as blob:
            inspector = Inspector(file_name, blob.size_bytes, self._limits, self._executor)
            await inspector.catch_up(blob, blob.size_bytes)
        if inspection := inspector.inspection:
            return inspection
        raise BlobCorrupt

    async def usable(self, sha256: str, file_name: str) -> Blob | None:
        """The blob, LIVE and accepted by the rules of today as what the file's name says; None if there is
        no such blob.

        Raises FormatInvalid if today's rules refuse it, BlobCorrupt or StorageFailed if it cannot be read.
        """
        blob = await self._live(sha256)
        if blob is None or (blob.format != format_for(file_name) and blob.rules_version):
            return None
        # Which rules a JSON file has to keep depends on its name:
        # config.json may have been accepted as notes.json.
        if blob.rules_version >= RULES_VERSION and blob.format != JSON:
            return blob
        inspection = await self.inspect(sha256, file_name)
        if blob.rules_version >= RULES_VERSION:
            return blob
        await self._database.transact(lambda tx: tx.blobs.accept(sha256, inspection))
        return await self._live(sha256)

    async def _live(self, sha256: str) -> Blob | None:
        found = await self._database.read(lambda tx: tx.blobs.some([sha256]))
        blob = found.get(sha256)
        return blob if blob is not None and blob.state is BlobState.LIVE else None

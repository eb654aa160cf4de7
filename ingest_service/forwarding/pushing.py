"""Gets an ingest's files to a target: HEAD, and POST where they are not there yet."""

from __future__ import annotations

from ingest_service.forwarding.create_request import digest_of
from ingest_service.forwarding.ollama import OllamaClient
from ingest_service.forwarding.target import Refused, Unreachable
from ingest_service.storage import BlobStore
from ingest_service.vocabulary.errors import BlobCorrupt, IngestError
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.records import File, Ingest

#: HEAD, POST and HEAD again within one attempt; the next attempt comes with backoff.
_PUSH_TRIES = 2


class BlobPush:
    """The files of one attempt. Raises TargetError."""

    def __init__(self, client: OllamaClient, store: BlobStore) -> None:
        self._client = client
        self._store = store
        #: (done, total) bytes of the file that is being pushed.
        self.progress: tuple[int, int] = (0, 0)
        #: Digests that this attempt brought there: what the target had before may be rotten.
        self.brought: set[str] = set()

    async def push(self, ingest: Ingest) -> None:
        """Every file is at the target, as far as the target can tell."""
        for file in ingest.files:
            await self._have(file)

    async def _have(self, file: File) -> None:
        sha256 = digest_of(file)
        for tries_left in reversed(range(_PUSH_TRIES)):
            if await self._client.has_blob(sha256):
                return
            try:
                await self._post(file)
                return
            except Unreachable:
                # A reset says nothing: the target may have had the bytes all along (contract section 2).
                if tries_left == 0 and not await self._client.has_blob(sha256):
                    raise

    async def _post(self, file: File) -> None:
        self.progress = (0, file.size_bytes)

        def on_progress(done_bytes: int) -> None:
            self.progress = (done_bytes, file.size_bytes)

        try:
            async with self._store.open_blob(digest_of(file)) as blob:
                if blob.size_bytes != file.size_bytes:
                    raise BlobCorrupt
                await self._client.push_blob(digest_of(file), blob, on_progress)
        except BlobCorrupt as error:
            raise Refused(error.message, reason=Reason.BLOB_CORRUPT) from error
        except IngestError as error:
            # The store's own message is about writing.
            words = "The stored bytes cannot be read right now."
            raise Unreachable(words, reason=Reason.STORAGE_FAILED) from error
        except Refused as error:
            if "digest mismatch" in error.words:
                words = f"The target counted other bytes than are stored under this digest: {error.words}"
                raise Refused(words, reason=Reason.BLOB_CORRUPT) from error
            raise
        self.brought.add(digest_of(file))

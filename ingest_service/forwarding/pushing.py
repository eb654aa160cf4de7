"""Gets an ingest's files to a target: HEAD, and POST where they are not there yet."""

from __future__ import annotations

from contextlib import suppress

from ingest_service.blobs import Vetting
from ingest_service.formats.shards import check_shards
from ingest_service.forwarding.create_request import digest_of
from ingest_service.forwarding.cut_through import CutThrough
from ingest_service.forwarding.moves import DeploymentMoves
from ingest_service.forwarding.ollama import OllamaClient
from ingest_service.forwarding.target import Refused, Target, Unreachable
from ingest_service.storage import BlobStore, NotPlaced
from ingest_service.vocabulary.errors import BlobCorrupt, FormatInvalid, IngestError, StorageFailed
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.records import Blob, File, Ingest
from ingest_service.vocabulary.states import FileRole

#: HEAD, POST and HEAD again within one attempt; the next attempt comes with backoff.
_PUSH_TRIES = 2
_UNREADABLE = "The stored bytes cannot be read right now."


class BlobPush:
    """The files of one attempt. Raises TargetError."""

    def __init__(
        self,
        client: OllamaClient,
        store: BlobStore,
        vetting: Vetting,
        moves: DeploymentMoves,
        target: Target,
        *,
        beside: CutThrough | None,
    ) -> None:
        self._client = client
        self._store = store
        self._vetting = vetting
        self._moves = moves
        self._target = target
        self._beside = beside
        #: (done, total) bytes of the file that is being pushed.
        self.progress: tuple[int, int] = (0, 0)
        #: Digests that this attempt brought there: what the target had before may be rotten.
        self.brought: set[str] = set()

    async def push(self, ingest: Ingest) -> None:
        """Every file is at the target, as far as the target can tell."""
        await self._vet_shards(ingest)
        for file in ingest.files:
            await self._vet(file)
            if not await self._adopted(file):
                await self._have(file)

    async def _vet_shards(self, ingest: Ingest) -> None:
        """Shards that older rules accepted are compared anew, before the first of them is sent."""
        shards = [file for file in ingest.files if file.role is FileRole.SHARD]
        facts = [(file.file_name, (await self._vet(file)).facts or {}) for file in shards]
        try:
            check_shards(facts)
        except FormatInvalid as error:
            raise Refused(error.message, reason=Reason.FORMAT_INVALID) from error

    async def _vet(self, file: File) -> Blob:
        """Nothing reaches a target that is rotten here, or that the rules of today refuse."""
        try:
            blob = await self._vetting.usable(digest_of(file), file.file_name)
        except FormatInvalid as error:
            raise Refused(f"{file.file_name}: {error.message}", reason=Reason.FORMAT_INVALID) from error
        except BlobCorrupt:
            blob = None
        except StorageFailed as error:
            raise Unreachable(_UNREADABLE, reason=Reason.STORAGE_FAILED) from error
        if blob is None:
            words = (
                f"The stored bytes of {file.file_name} are not those of its digest any more: push it again."
            )
            raise Refused(words, reason=Reason.BLOB_CORRUPT)
        return blob

    async def _adopted(self, file: File) -> bool:
        """The target's models directory is ours as well, and the bytes were put there."""
        if self._target.models_dir is None or not await self._is_whole(file):
            return False
        sha256 = digest_of(file)
        self.progress = (0, file.size_bytes)
        try:
            how = await self._store.place_blob(
                sha256, self._target.models_dir / "blobs", lambda done: self._tell(done, file.size_bytes)
            )
        except NotPlaced as error:
            await self._say(file, f"goes to {self._target.name} over HTTP: {error.words}.")
            return False
        if not await self._client.has_blob(sha256):
            words = "its models directory is not the one that the target uses"
            await self._say(file, f"goes to {self._target.name} over HTTP: {words}.")
            return False
        self.brought.add(sha256)
        await self._say(file, f"is at {self._target.name} without sending its bytes ({how}).")
        return True

    async def _is_whole(self, file: File) -> bool:
        """Nobody counts what is placed: a stored file that was cut would take a good one's place there."""
        with suppress(IngestError):
            return await self._store.blob_size_bytes(digest_of(file)) == file.size_bytes
        return False

    async def _say(self, file: File, words: str) -> None:
        await self._moves.notice(f"{file.file_name} {words}")

    def _tell(self, done_bytes: int, size_bytes: int) -> None:
        self.progress = (done_bytes, size_bytes)

    async def _have(self, file: File) -> None:
        sha256 = digest_of(file)
        if self._beside is not None and self._beside.brought(self._target.name, file.id):
            self.brought.add(sha256)
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

        try:
            async with self._store.open_blob(digest_of(file)) as blob:
                if blob.size_bytes != file.size_bytes:
                    raise BlobCorrupt
                await self._client.push_blob(
                    digest_of(file), blob, lambda done: self._tell(done, file.size_bytes)
                )
        except BlobCorrupt as error:
            raise Refused(error.message, reason=Reason.BLOB_CORRUPT) from error
        except IngestError as error:
            # The store's own message is about writing.
            raise Unreachable(_UNREADABLE, reason=Reason.STORAGE_FAILED) from error
        except Refused as error:
            if "digest mismatch" in error.words:
                words = f"The target counted other bytes than are stored under this digest: {error.words}"
                raise Refused(words, reason=Reason.BLOB_CORRUPT) from error
            raise
        self.brought.add(digest_of(file))

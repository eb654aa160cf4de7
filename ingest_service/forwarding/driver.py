"""Drives one deployment: version, HEAD, POST blob, POST create, show (ollama-contract.md section 8)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ingest_service.forwarding.create_answer import CreateLine
from ingest_service.forwarding.moves import DeploymentMoves
from ingest_service.forwarding.ollama import OllamaClient, Shown
from ingest_service.forwarding.statuses import StatusWriter
from ingest_service.forwarding.target import (
    BlobMissing,
    OutcomeUnknown,
    Refused,
    TargetError,
    Unreachable,
)
from ingest_service.storage import BlobStore
from ingest_service.vocabulary.errors import BlobCorrupt, IngestError
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.records import Deployment, File, Ingest
from ingest_service.vocabulary.states import DeploymentState

_log = logging.getLogger(__name__)

#: HEAD, POST and HEAD again within one attempt; the next attempt comes with backoff.
_PUSH_TRIES = 2
_MIN_SILENCE_SECONDS = 15 * 60.0
_SLOWEST_CREATE_BYTES_PER_SECOND = 20_000_000
#: What Ollama says of a blob that is not what its name promises.
_ROTTEN = ("eof", "invalid file magic", "not in gguf format", "exceeds file size")
#: The one file's name at Ollama. Ours, not the client's: Ollama goes by its suffix.
_MODEL_FILE = "model.gguf"


class Driver:
    """One attempt. Ends with the deployment READY, or raises why not (TargetError, LeaseLost, CancelDue)."""

    def __init__(self, client: OllamaClient, store: BlobStore, moves: DeploymentMoves) -> None:
        self._client = client
        self._store = store
        self._moves = moves
        #: (done, total) bytes of the present step; read by whoever renews the lease.
        self.progress: tuple[int, int] = (0, 0)
        self._pushed = False

    async def run(self) -> None:
        """Takes the deployment as far as it goes."""
        async with self._client:
            await self._run()

    async def _run(self) -> None:
        ingest, deployment = await self._moves.read()
        if deployment.create_baseline is not None and await self._settled(ingest, deployment):
            return
        version = await self._client.version()
        await self._moves.move(
            DeploymentState.PUSHING,
            target_version=version,
            create_baseline=None,
        )
        await self._push(ingest)
        try:
            await self._create(ingest)
        except BlobMissing:
            # It vanished between HEAD and create (pruned, or deleted with another model): once more.
            await self._moves.notice("The target lost the bytes before it used them; they are sent again.")
            await self._moves.move(DeploymentState.PUSHING, create_baseline=None)
            await self._push(ingest)
            await self._create(ingest)

    async def _push(self, ingest: Ingest) -> None:
        for file in ingest.files:
            for tries_left in reversed(range(_PUSH_TRIES)):
                if await self._client.has_blob(_digest(file)):
                    break
                try:
                    await self._push_file(file)
                    break
                except Unreachable:
                    # A reset says nothing: the target may have had the bytes all along (contract section 2).
                    if tries_left == 0 and not await self._client.has_blob(_digest(file)):
                        raise

    async def _push_file(self, file: File) -> None:
        self.progress = (0, file.size_bytes)

        def on_progress(done_bytes: int) -> None:
            self.progress = (done_bytes, file.size_bytes)

        try:
            async with self._store.open_blob(_digest(file)) as blob:
                if blob.size_bytes != file.size_bytes:
                    raise BlobCorrupt
                await self._client.push_blob(_digest(file), blob, on_progress)
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
        self._pushed = True

    async def _create(self, ingest: Ingest) -> None:
        before = await self._client.show(ingest.model)
        # First: whoever renews the lease must not write the push's progress over the new step's.
        self.progress = (0, 0)
        await self._moves.move(DeploymentState.CREATING, create_baseline=_baseline(before))
        size_bytes = sum(file.size_bytes for file in ingest.files)
        silence = max(_MIN_SILENCE_SECONDS, size_bytes / _SLOWEST_CREATE_BYTES_PER_SECOND)
        layer_digest = ""

        def on_line(line: CreateLine) -> None:
            nonlocal layer_digest
            self.progress = (line.completed_bytes, line.total_bytes)
            layer_digest = layer_digest or _layer(line.status)
            words.put(line.status)

        try:
            async with StatusWriter(self._moves) as words:
                await self._client.create(_request(ingest), on_line, silence)
        except OutcomeUnknown as error:
            _, deployment = await self._moves.read()
            if await self._settled(ingest, deployment):
                return
            raise error.otherwise or Unreachable(error.words) from error
        except Refused as error:
            raise self._rotten_or(error) from error
        await self._confirm(ingest, layer_digest)

    async def _confirm(self, ingest: Ingest, layer_digest: str) -> None:
        shown = await self._client.show(ingest.model)
        if shown is None:
            raise Unreachable("Create said success, but the target does not show the model.")
        await self._ready(ingest, layer_digest or shown.layer_digest)

    async def _settled(self, ingest: Ingest, deployment: Deployment) -> bool:
        """A create whose answer was not seen: if `show` differs from before and has our bytes, it worked.

        Differing alone proves nothing: another ingest of the name, or anybody with the target's own tools,
        may have put other bytes there meanwhile. Where Ollama rewrites the bytes (0.30.0 to 0.34.0) the
        layer's digest is mostly another one; then create comes again, which changes nothing if it worked.
        """
        now = await self._client.show(ingest.model)
        if now is None or _baseline(now) == deployment.create_baseline:
            return False
        if now.layer_digest != _digest(ingest.files[0]):
            return False
        await self._moves.notice("The answer to create was lost; the target shows the model.")
        await self._ready(ingest, now.layer_digest)
        return True

    async def _ready(self, ingest: Ingest, layer_digest: str) -> None:
        try:
            manifest = await self._client.manifest_digest(ingest.canonical_model)
        except TargetError:
            # The model is there; a list that cannot be read takes nothing from that.
            manifest = ""
        await self._moves.move(
            DeploymentState.READY, layer_digest=layer_digest, manifest_digest=manifest, failure=None
        )
        _log.info("model ready", extra={"ingest": ingest.id, "model": ingest.model})

    def _rotten_or(self, error: Refused) -> Refused:
        """A blob that was there before we came, and that Ollama cannot read, is rotten there."""
        if self._pushed or not any(text in error.words.lower() for text in _ROTTEN):
            return error
        return Refused(
            f"The target cannot read the copy of the bytes that it already had ({error.words}). Remove that"
            " blob from the target's models directory, then retry.",
            reason=Reason.TARGET_BLOB_CORRUPT,
        )


def _digest(file: File) -> str:
    assert file.sha256 is not None, "a deployment is claimed only once its files are stored"
    return file.sha256


def _request(ingest: Ingest) -> Mapping[str, Any]:
    """Create's body: built here, of known parts only (security.md R10)."""
    return {"model": ingest.model, "files": {_MODEL_FILE: _digest(ingest.files[0])}, "stream": True}


def _baseline(shown: Shown | None) -> dict[str, str]:
    return {} if shown is None else {"modified_at": shown.modified_at}


def _layer(status: str) -> str:
    """The model layer's digest, from the first line that names a layer (contract 3.5)."""
    for start in ("using existing layer ", "creating new layer "):
        if status.startswith(start):
            return status.removeprefix(start)[:80]
    return ""

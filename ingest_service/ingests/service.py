"""Creating, reading and cancelling ingests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from datetime import datetime

from ingest_service.blobs import TakingBack, Vetting
from ingest_service.database import Conflict, Database, Transaction
from ingest_service.formats import format_for
from ingest_service.ingests.accepting import Accepting, same_request, stored_among
from ingest_service.ingests.admission import Admission
from ingest_service.ingests.agreement import check_file
from ingest_service.ingests.limits import Limits
from ingest_service.ingests.names import parse_model_name
from ingest_service.ingests.requests import (
    NewFile,
    NewIngest,
    check_known_targets,
    check_new_ingest,
    check_request_id,
)
from ingest_service.lifecycle import Change
from ingest_service.storage import BlobStore
from ingest_service.vocabulary.errors import (
    BlobCorrupt,
    BytesMissing,
    FormatInvalid,
    IngestNotFound,
    ModelNotFound,
    StorageFailed,
)
from ingest_service.vocabulary.records import Blob, Ingest, Model
from ingest_service.vocabulary.states import FileState, IngestState

_log = logging.getLogger(__name__)


class Ingests:
    """The domain's unary calls. Every method is one short transaction, files looked at before it."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        vetting: Vetting,
        limits: Limits,
        targets: Sequence[str],
        *,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
        taking_back: TakingBack | None = None,
    ) -> None:
        self._database = database
        self._store = store
        self._vetting = vetting
        self._taking_back = taking_back
        self._limits = limits
        self._targets = tuple(targets)
        self._admission = Admission(store, limits, clock=clock)
        self._clock = clock
        self._accepting = Accepting(targets, clock=clock, new_id=new_id)
        self._cancel_listeners: list[Callable[[Ingest], None]] = []

    def on_cancel(self, listener: Callable[[Ingest], None]) -> None:
        """`listener` is called after each committed cancel, so that a running upload ends at once."""
        self._cancel_listeners.append(listener)

    async def create(self, request: NewIngest, *, needs_room: bool = True) -> Ingest:
        """A new ingest, or the one that this request_id made before. `needs_room`: its bytes are not on the
        store's disk already.

        Raises the errors of `check_new_ingest`, RequestIdReused, StorageFull.
        """
        check_request_id(request.request_id)
        # In a thread: a body may have megabytes.
        fingerprint = await asyncio.to_thread(request.fingerprint)
        # First of all: what was accepted once stays accepted, whatever has become of room and settings since.
        former = await self._made_before(request.request_id, fingerprint)
        if former is not None:
            return former
        name = check_new_ingest(request, self._limits, self._targets)
        usable_digests = await self._usable_digests(request)
        if await self._looked_in_quarantine(request, usable_digests):
            usable_digests = await self._usable_digests(request)
        usable = await self._admission.usable_bytes()

        async def work(tx: Transaction) -> Ingest:
            raced = await tx.ingests.by_request_id(request.request_id) if request.request_id else None
            if raced is not None:
                return same_request(raced, fingerprint)
            stored = await stored_among(tx, request.files, usable_digests)
            missing = sum(file.size_bytes for file in request.files if file.file_name not in stored)
            if missing and needs_room:
                await self._admission.check(tx, missing, usable)
            return await self._accepting.insert(tx, request, name, stored, fingerprint)

        try:
            ingest = await self._database.transact(work)
        except Conflict:
            # Somebody committed the same request_id between our look and our insert: now it is there.
            ingest = await self._database.transact(work)
        _log.info("ingest accepted", extra={"ingest": ingest.id, "model": ingest.canonical_model})
        return ingest

    async def get(self, ingest_id: str) -> Ingest:
        """The ingest as it is. Raises IngestNotFound."""
        ingest = await self._database.read(lambda tx: tx.ingests.get(ingest_id))
        if ingest is None:
            raise IngestNotFound
        return ingest

    async def by_request_id(self, request_id: str) -> Ingest | None:
        """The ingest that this request_id made, if there is one."""
        return await self._database.transact(lambda tx: tx.ingests.by_request_id(request_id))

    async def page(
        self, *, model: str, states: Sequence[IngestState], before_number: int | None, limit: int
    ) -> tuple[list[Ingest], int | None]:
        """Ingests, newest first; see `IngestQueries.page`. Raises NameInvalid."""
        canonical = parse_model_name(model).canonical if model else None
        return await self._database.read(
            lambda tx: tx.ingests.page(
                canonical_model=canonical, states=states, before_number=before_number, limit=limit
            )
        )

    async def cancel(self, ingest_id: str) -> Ingest:
        """Stops what can be stopped; a done ingest is answered as it is. Raises IngestNotFound."""

        async def work(tx: Transaction) -> Ingest:
            before = await tx.ingests.lock(ingest_id)
            if before is None:
                raise IngestNotFound
            change = Change(before, self._clock())
            change.cancel(await tx.deployments.unattended(ingest_id))
            if change.after == before:
                return before
            return await tx.ingests.save(before, change.after, change.events, change.now)

        ingest = await self._database.transact(work)
        _log.info("cancel asked for", extra={"ingest": ingest.id, "state": ingest.state})
        for listener in self._cancel_listeners:
            listener(ingest)
        return ingest

    async def retry(self, ingest_id: str, targets: Sequence[str] = ()) -> Ingest:
        """What failed, or waits for its next try, on targets (none given: on any) is tried now; an ingest of
        which nothing does is answered as it is.

        Raises IngestNotFound, BytesMissing, TargetUnknown.
        """

        async def work(tx: Transaction) -> Ingest:
            before = await tx.ingests.lock(ingest_id)
            if before is None:
                raise IngestNotFound
            if before.deleted_at is not None:
                raise BytesMissing("The model of this ingest was deleted: push it again.")
            if any(file.state is not FileState.STORED for file in before.files):
                raise BytesMissing
            check_known_targets(targets, [deployment.target for deployment in before.deployments])
            if before.state in {IngestState.CANCELLING, IngestState.CANCELLED}:
                return before
            change = Change(before, self._clock())
            change.retry(targets, await tx.ingests.targets_of_newer(before))
            if change.after == before and not change.events:
                return before
            return await tx.ingests.save(before, change.after, change.events, change.now)

        ingest = await self._database.transact(work)
        _log.info("ingest retried", extra={"ingest": ingest.id, "state": ingest.state})
        return ingest

    async def model(self, name: str) -> Model:
        """The catalog's entry. Raises NameInvalid, ModelNotFound."""
        canonical = parse_model_name(name, field="name").canonical
        model = await self._database.read(lambda tx: tx.models.get(canonical))
        if model is None:
            raise ModelNotFound
        return model

    async def models(self, *, prefix: str, after: str | None, limit: int) -> tuple[list[Model], str | None]:
        """The catalog by canonical name; see `ModelQueries.page`."""
        return await self._database.read(
            lambda tx: tx.models.page(prefix=prefix.lower(), after=after, limit=limit)
        )

    async def _made_before(self, request_id: str, fingerprint: str) -> Ingest | None:
        if not request_id:
            return None
        former = await self._database.transact(lambda tx: tx.ingests.by_request_id(request_id))
        return None if former is None else same_request(former, fingerprint)

    async def _looked_in_quarantine(self, request: NewIngest, stored: Collection[str]) -> bool:
        """For what is declared and not stored; False if there is nothing to look for."""
        wanted = {
            file.sha256: (file.file_name, file.size_bytes)
            for file in request.files
            if file.sha256 and file.sha256 not in stored
        }
        if self._taking_back is None or not wanted:
            return False
        await self._taking_back.take_back(wanted)
        return True

    async def _usable_digests(self, request: NewIngest) -> set[str]:
        """Of what may be counted as stored: it is there, and what today's rules accept as these files."""
        vetted: dict[tuple[str, int, str], Blob | None] = {}
        for index, file in enumerate(request.files):
            if not file.sha256:
                continue
            # Shards may all be the same few bytes: they are looked at once.
            same = (file.sha256, file.size_bytes, format_for(file.file_name))
            try:
                if same not in vetted:
                    vetted[same] = await self._vet(file)
                if blob := vetted[same]:
                    check_file(file, blob.facts or {})
            except FormatInvalid as error:
                field = f"files[{index}].sha256"
                raise error.about(field) from error
        return {sha256 for (sha256, _, _), blob in vetted.items() if blob is not None}

    async def _vet(self, file: NewFile) -> Blob | None:
        if await self._store.blob_size_bytes(file.sha256) != file.size_bytes:
            return None
        try:
            return await self._vetting.usable(file.sha256, file.file_name)
        except (BlobCorrupt, StorageFailed):
            # Its bytes are to be sent again.
            _log.warning("a stored blob cannot be read", extra={"sha256": file.sha256})
            return None

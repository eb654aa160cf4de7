"""DeployModel: a stored model to more targets, as a new ingest of its name that has no bytes to send."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ingest_service.blobs import Vetting
from ingest_service.database import Conflict, Database, Transaction
from ingest_service.ingests.accepting import Accepting, same_request, stored_among
from ingest_service.ingests.file_set import check_file_set
from ingest_service.ingests.limits import Limits
from ingest_service.ingests.names import parse_model_name
from ingest_service.ingests.options import check_options
from ingest_service.ingests.requests import (
    NewFile,
    NewIngest,
    check_known_targets,
    check_request_id,
)
from ingest_service.storage import BlobStore
from ingest_service.vocabulary.errors import (
    BackendDown,
    BlobCorrupt,
    FormatInvalid,
    ModelNotFound,
    OptionUnsupported,
    StorageFailed,
)
from ingest_service.vocabulary.records import Ingest, Model

_log = logging.getLogger(__name__)
#: The model may be pushed again while its files are looked at: then the newer one is looked at.
_TRIES = 5


@dataclass(frozen=True, slots=True)
class DeployRequest:
    """A DeployModelRequest in the domain's words."""

    name: str
    targets: Sequence[str] = ()
    request_id: str = ""

    def fingerprint(self) -> str:
        """The same for the same body, and none of CreateIngest's: what `request_id` is held against."""
        body = json.dumps({"deploy": self.name, "targets": list(self.targets)}, sort_keys=True)
        return hashlib.sha256(body.encode()).hexdigest()


class Deploying:
    """Takes the files and options of the newest stored ingest of the name."""

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
    ) -> None:
        self._database = database
        self._store = store
        self._vetting = vetting
        self._limits = limits
        self._targets = tuple(targets)
        self._accepting = Accepting(targets, clock=clock, new_id=new_id)

    async def deploy(self, request: DeployRequest) -> Ingest:
        """The new ingest, or the one that this request_id made before.

        Raises ArgumentInvalid, NameInvalid, RequestIdReused, TargetUnknown, ModelNotFound, OptionUnsupported,
        FormatInvalid, BlobCorrupt.
        """
        check_request_id(request.request_id)
        # In a thread: a body may have megabytes.
        fingerprint = await asyncio.to_thread(request.fingerprint)
        former = await self._made_before(request.request_id, fingerprint)
        if former is not None:
            return former
        canonical = parse_model_name(request.name, field="name").canonical
        check_known_targets(request.targets, self._targets)
        for _ in range(_TRIES):
            ingest = await self._try(canonical, request, fingerprint)
            if ingest is not None:
                extra = {"ingest": ingest.id, "model": canonical}
                _log.info("a stored model is deployed", extra=extra)
                return ingest
        raise BackendDown("The model is pushed again and again just now; ask again.")

    async def _made_before(self, request_id: str, fingerprint: str) -> Ingest | None:
        if not request_id:
            return None
        former = await self._database.transact(lambda tx: tx.ingests.by_request_id(request_id))
        return None if former is None else same_request(former, fingerprint)

    async def _try(self, canonical: str, request: DeployRequest, fingerprint: str) -> Ingest | None:
        """None if another ingest is the newest by now."""
        model = await self._database.read(lambda tx: tx.models.get(canonical))
        if model is None:
            raise ModelNotFound
        new = _as_request(model, request)
        self._check(new)
        for file in new.files:
            await self._vet(file)

        async def work(tx: Transaction) -> Ingest | None:
            raced = await tx.ingests.by_request_id(new.request_id) if new.request_id else None
            if raced is not None:
                return same_request(raced, fingerprint)
            # Locked, so that a deletion of the model comes either before or after all of this.
            newest = await tx.ingests.lock(model.newest.id)
            if newest is None or (await tx.models.ingest_ids(canonical))[:1] != [newest.id]:
                return None
            stored = await stored_among(tx, new.files, {file.sha256 for file in new.files})
            for file in new.files:
                if file.file_name not in stored:
                    raise _corrupt(file)
            return await self._accepting.insert(tx, new, parse_model_name(new.model), stored, fingerprint)

        try:
            return await self._database.transact(work)
        except Conflict:
            # Somebody committed the same request_id between our look and our insert: now it is there.
            return await self._database.transact(work)

    def _check(self, new: NewIngest) -> None:
        """What was accepted once may be switched off by now. Raises OptionUnsupported."""
        check_options(new.options, allow_from=self._limits.allow_from)
        check_file_set(new.files, new.options, allow_safetensors=self._limits.allow_safetensors)
        if new.options.get("from") and not self._targets:
            raise OptionUnsupported("What builds upon a target's model needs a target.", field="options.from")

    async def _vet(self, file: NewFile) -> None:
        """Its bytes are there, and accepted by the rules of today. Raises BlobCorrupt, FormatInvalid."""
        try:
            is_there = await self._store.blob_size_bytes(file.sha256) == file.size_bytes
            if is_there and await self._vetting.usable(file.sha256, file.file_name) is not None:
                return
        except FormatInvalid as error:
            raise error.about("name") from error
        except (BlobCorrupt, StorageFailed) as error:
            raise _corrupt(file) from error
        raise _corrupt(file)


def _as_request(model: Model, request: DeployRequest) -> NewIngest:
    return NewIngest(
        model=model.newest.model,
        files=tuple(
            NewFile(file.file_name, file.role, file.size_bytes, file.sha256 or "")
            for file in model.newest.files
        ),
        options=model.newest.options,
        targets=tuple(request.targets),
        request_id=request.request_id,
    )


def _corrupt(file: NewFile) -> BlobCorrupt:
    return BlobCorrupt(
        f"The stored bytes of {file.file_name} are missing or damaged: push the same file again.",
        metadata={"sha256": file.sha256},
    )

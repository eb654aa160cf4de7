"""A new ingest's rows, whoever asked for it: CreateIngest, or DeployModel."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime

from ingest_service.database import Transaction
from ingest_service.formats import RULES_VERSION, format_for
from ingest_service.ingests.agreement import check_quantize, check_together
from ingest_service.ingests.names import ModelName
from ingest_service.ingests.order import supersede_older
from ingest_service.ingests.requests import NewFile, NewIngest
from ingest_service.lifecycle import Change
from ingest_service.vocabulary.errors import RequestIdReused
from ingest_service.vocabulary.records import Blob, Deployment, File, Ingest, Inspection
from ingest_service.vocabulary.states import DeploymentState, FileState, IngestState


class Accepting:
    """Makes ingests for the targets of the configuration."""

    def __init__(
        self, targets: Sequence[str], *, clock: Callable[[], datetime], new_id: Callable[[], str]
    ) -> None:
        self._targets = tuple(targets)
        self._clock = clock
        self._new_id = new_id

    async def insert(
        self,
        tx: Transaction,
        request: NewIngest,
        name: ModelName,
        stored: Mapping[str, Blob],
        fingerprint: str,
    ) -> Ingest:
        """Writes it; `stored` are the blobs, LIVE in this transaction, of the files that need no bytes.
        Raises FormatInvalid if all are there and do not fit together, or the options not with them."""
        now = self._clock()
        change = Change.of_new(self._new_ingest(request, name, stored, fingerprint, now), now)
        if len(stored) == len(request.files):
            check_together([(file, stored[file.file_name].facts or {}) for file in request.files])
        for file in change.after.files:
            if blob := stored.get(file.file_name):
                check_quantize(file, blob.facts or {}, request.options)
                change.inspected(file.id, Inspection(blob.format, blob.rules_version, blob.facts or {}))
        made = await tx.ingests.insert(change.after, change.events)
        await supersede_older(tx, change)
        return made

    def _new_ingest(
        self, request: NewIngest, name: ModelName, stored: Collection[str], fingerprint: str, now: datetime
    ) -> Ingest:
        ingest_id = self._new_id()
        wanted = () if request.store_only else request.targets or self._targets
        return Ingest(
            id=ingest_id,
            model=name.display,
            canonical_model=name.canonical,
            state=IngestState.UPLOADING,
            files=tuple(
                self._new_file(ingest_id, file, file.file_name in stored, now) for file in request.files
            ),
            deployments=tuple(
                Deployment(
                    id=self._new_id(), ingest_id=ingest_id, target=target, state=DeploymentState.PENDING
                )
                for target in self._targets
                if target in wanted
            ),
            options=request.options,
            request_id=request.request_id or None,
            request_fingerprint=fingerprint if request.request_id else None,
            last_sequence=0,
            created_at=now,
            updated_at=now,
        )

    def _new_file(self, ingest_id: str, file: NewFile, is_stored: bool, now: datetime) -> File:
        return File(
            id=self._new_id(),
            ingest_id=ingest_id,
            file_name=file.file_name,
            role=file.role,
            state=FileState.STORED if is_stored else FileState.PENDING,
            size_bytes=file.size_bytes,
            committed_size=file.size_bytes if is_stored else 0,
            declared_sha256=file.sha256 or None,
            sha256=file.sha256 if is_stored else None,
            deduplicated=is_stored,
            writer_epoch=0,
            progress_at=now,
        )


def same_request(former: Ingest, fingerprint: str) -> Ingest:
    """The ingest that this request_id made before. Raises RequestIdReused if it was for another body."""
    if former.request_fingerprint != fingerprint:
        raise RequestIdReused(field="request_id")
    return former


async def stored_among(
    tx: Transaction, files: Sequence[NewFile], digests: Collection[str]
) -> dict[str, Blob]:
    """Of the files with one of these digests those that need no bytes: their names, and their blobs, which
    stay LIVE until this transaction has referred to them."""
    live = await tx.blobs.live_among(digests)
    return {
        file.file_name: blob
        for file in files
        if (blob := live.get(file.sha256)) is not None and _fits(blob, file)
    }


def _fits(blob: Blob, file: NewFile) -> bool:
    """The stored bytes are what the file's name says they are: others are to be sent, and then refused."""
    return (
        blob.size_bytes == file.size_bytes
        and blob.format == format_for(file.file_name)
        and blob.rules_version >= RULES_VERSION
    )

"""Lists the blobs of a store as models again, when the database that knew them was lost.

Only while nothing else works on the store. Every step may be the last: what is done is not done again.

    every blob, in blobs/ or quarantine/ -> hashed anew, header read -> LIVE row -> models -> an ingest each
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import partial

from ingest_service.blobs import Inspector, digest_of
from ingest_service.database import Database
from ingest_service.formats import GGUF, JSON, SAFETENSORS
from ingest_service.ingests.names import parse_model_name
from ingest_service.ingests.rebuild_plan import (
    FoundBlob,
    Kind,
    PlannedModel,
    file_names,
    found_blob,
    plan_models,
    with_suffix,
)
from ingest_service.ingests.requests import NewFile, NewIngest
from ingest_service.ingests.service import Ingests
from ingest_service.storage import BlobReader, BlobStore, FileExecutor, LocalQuarantine, QuarantinedCopy
from ingest_service.vocabulary.errors import (
    BlobCorrupt,
    FormatInvalid,
    OptionUnsupported,
    SizeLimit,
    StorageFailed,
)
from ingest_service.vocabulary.records import Inspection
from ingest_service.vocabulary.states import BlobState, FileRole, IngestState

_SNIFFED_BYTES = 64


class Outcome(StrEnum):
    """What came of a blob, or of a set of them."""

    LISTED = "listed"
    #: The catalog had it before.
    KNOWN = "known"
    #: Its bytes are sound and kept; no model is made of it.
    LEFT = "left"
    #: Its bytes are not those of its digest.
    DAMAGED = "damaged"
    #: Its bytes cannot be read.
    UNREADABLE = "unreadable"
    #: A name was given for a digest that is not in the store.
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Told:
    """One line of the report."""

    outcome: Outcome
    digests: tuple[str, ...]
    size_bytes: int = 0
    model: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the reading is."""

    blobs: int
    total_blobs: int
    read_bytes: int
    total_bytes: int


@dataclass(slots=True)
class RebuildReport:
    """How often each came."""

    counts: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    #: Somebody has to look at what was told.
    needs_attention: bool = False
    is_interrupted: bool = False


class Rebuild:
    """`run` once. `tell` is called with each line of the report, `on_progress` about every 8 MiB."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        quarantine: LocalQuarantine,
        ingests: Ingests,
        executor: FileExecutor,
        *,
        new_inspector: Callable[[str, int], Inspector],
        clock: Callable[[], datetime],
        report: RebuildReport,
        tell: Callable[[Told], None],
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._database = database
        self._store = store
        self._quarantine = quarantine
        self._ingests = ingests
        self._executor = executor
        self._new_inspector = new_inspector
        self._clock = clock
        self._say = tell
        self._on_progress = on_progress
        self.report = report
        self._progress = Progress(0, 0, 0, 0)

    async def run(self, given: Mapping[str, str]) -> None:
        """Fills the report in. `given`: digest -> model name. Raises DatabaseDown, StoreDown, StorageFull."""
        copies: dict[str, list[QuarantinedCopy]] = {}
        for copy in await self._quarantine.copies():
            copies.setdefault(copy.sha256, []).append(copy)
        in_blobs = await self._store.blob_digests()
        digests = sorted({*in_blobs, *copies})
        await self._count(in_blobs, copies)
        found: list[FoundBlob] = []
        for sha256 in digests:
            blob = await self._readable(sha256, copies.get(sha256, ()))
            found += [blob] if blob is not None else []
            self._advance(blobs=1)
        await self._list(found, given)
        for sha256 in sorted(given.keys() - digests):
            detail = "no blob of this digest is in blobs/ or quarantine/"
            self._tell(Told(Outcome.ABSENT, (sha256,), 0, given[sha256], detail))

    async def _list(self, found: Sequence[FoundBlob], given: Mapping[str, str]) -> None:
        listed = await self._database.read(lambda tx: tx.blobs.referred([blob.sha256 for blob in found]))
        for blob in found:
            if blob.sha256 in listed:
                self._tell(Told(Outcome.KNOWN, (blob.sha256,), blob.size_bytes))
        planned, left = plan_models([blob for blob in found if blob.sha256 not in listed], given)
        for model in planned:
            await self._list_model(model)
        for some in left:
            self._leave(some.blobs, some.why, needs_attention=some.needs_attention)

    async def _list_model(self, planned: PlannedModel) -> None:
        first = planned.blobs[0]
        if not planned.name:
            why = "its header says no name that can be used: give one with --name"
            self._leave(planned.blobs, why)
            return
        name, detail = planned.name, ""
        if await self._is_taken(name):
            if planned.is_given:
                self._leave(planned.blobs, f"the name {name} is taken: give another", needs_attention=True)
                return
            name = with_suffix(name, first.sha256)
            detail = f"{planned.name} is taken"
            if await self._is_taken(name):
                self._leave(planned.blobs, f"the name {name} is taken, too: give one with --name")
                return
        role = FileRole.SHARD if first.kind is Kind.SHARD else FileRole.MODEL
        files = tuple(
            NewFile(file_name, role, blob.size_bytes, blob.sha256)
            for file_name, blob in zip(file_names(name, len(planned.blobs)), planned.blobs, strict=True)
        )
        try:
            ingest = await self._ingests.create(NewIngest(model=name, files=files, store_only=True))
        except (FormatInvalid, OptionUnsupported, SizeLimit) as refused:
            self._leave(planned.blobs, refused.message, needs_attention=True)
            return
        if ingest.state is not IngestState.STORED:
            # A header could be read a moment ago and cannot now: the log has the cause.
            await self._ingests.cancel(ingest.id)
            self._leave(planned.blobs, "its bytes cannot be read any more", needs_attention=True)
            return
        self._tell(Told(Outcome.LISTED, _digests(planned.blobs), _size(planned.blobs), ingest.model, detail))

    async def _is_taken(self, name: str) -> bool:
        canonical = parse_model_name(name).canonical
        return await self._database.read(lambda tx: tx.models.get(canonical)) is not None

    async def _readable(self, sha256: str, copies: Sequence[QuarantinedCopy]) -> FoundBlob | None:
        try:
            found = await self._in_blobs(sha256)
        except (StorageFailed, BlobCorrupt) as error:
            self._tell(Told(Outcome.UNREADABLE, (sha256,), detail=f"in blobs: {error.message}"))
            found = None
        for copy in copies:
            if found is not None:
                break
            try:
                found = await self._in_quarantine(copy)
            except (StorageFailed, BlobCorrupt) as error:
                detail = f"in quarantine: {error.message}"
                self._tell(Told(Outcome.UNREADABLE, (sha256,), copy.size_bytes, detail=detail))
        return found

    async def _in_blobs(self, sha256: str) -> FoundBlob | None:
        size_bytes = await self._store.blob_size_bytes(sha256)
        if size_bytes is None:
            return None
        row = (await self._database.read(lambda tx: tx.blobs.some([sha256]))).get(sha256)
        opening = partial(self._store.open_blob, sha256)
        if row is not None and row.state is BlobState.LIVE and row.size_bytes == size_bytes:
            # Read by a rebuild before this one, or stored since.
            self._advance(read_bytes=size_bytes)
            if row.rules_version and row.format == GGUF:
                return found_blob(sha256, size_bytes, row.facts or {})
            return (await self._inspect(sha256, size_bytes, opening))[1]
        if await self._has_digest(sha256, opening):
            inspection, found = await self._inspect(sha256, size_bytes, opening)
            await self._record(sha256, size_bytes, inspection)
            return found
        if row is not None:
            await self._database.transact(lambda tx: tx.blobs.mark_corrupt(sha256))
            where: str | None = "blobs"
        else:
            where = await self._store.quarantine_blob(sha256, _nobody_knows_it)
        detail = f"its bytes have another digest; it is in {where}; push it again"
        self._tell(Told(Outcome.DAMAGED, (sha256,), size_bytes, detail=detail))
        return None

    async def _in_quarantine(self, copy: QuarantinedCopy) -> FoundBlob | None:
        opening = partial(self._quarantine.open, copy)
        if not await self._has_digest(copy.sha256, opening):
            detail = f"its bytes have another digest; it is in quarantine as {copy.name}; push it again"
            self._tell(Told(Outcome.DAMAGED, (copy.sha256,), copy.size_bytes, detail=detail))
            return None
        inspection, found = await self._inspect(copy.sha256, copy.size_bytes, opening)
        record = partial(self._record, copy.sha256, copy.size_bytes, inspection)
        if not await self._quarantine.take_back(copy, record):
            raise BlobCorrupt("The copy was changed while it was read.")
        return found

    async def _has_digest(
        self, sha256: str, opening: Callable[[], AbstractAsyncContextManager[BlobReader]]
    ) -> bool:
        async with opening() as reader:
            return await digest_of(reader, self._executor, self._read) == sha256

    async def _inspect(
        self, sha256: str, size_bytes: int, opening: Callable[[], AbstractAsyncContextManager[BlobReader]]
    ) -> tuple[Inspection, FoundBlob]:
        """What can be told without the file's name. Of what is refused, or is no GGUF, rules_version is 0:
        whoever uses it later, under a name, has it read again."""
        async with opening() as reader:
            head = await reader.read(0, _SNIFFED_BYTES)
            inspector = self._new_inspector("model.gguf", size_bytes)
            try:
                await inspector.catch_up(reader, size_bytes)
                why = "the file ends within its header"
            except FormatInvalid as refused:
                why = refused.message
        if inspector.inspection is not None:
            facts = inspector.inspection.facts
            return inspector.inspection, found_blob(sha256, size_bytes, facts)
        kept = Inspection(_looks_like(head), 0, {})
        return kept, FoundBlob(sha256, size_bytes, Kind.OTHER, why=why)

    async def _record(self, sha256: str, size_bytes: int, inspection: Inspection) -> None:
        now = self._clock()
        await self._database.transact(lambda tx: tx.blobs.make_live(sha256, size_bytes, inspection, now))

    async def _count(self, in_blobs: Sequence[str], copies: Mapping[str, Sequence[QuarantinedCopy]]) -> None:
        sizes = {sha256: some[0].size_bytes for sha256, some in copies.items()}
        for sha256 in in_blobs:
            sizes[sha256] = await self._store.blob_size_bytes(sha256) or 0
        self._progress = Progress(0, len(sizes), 0, sum(sizes.values()))

    def _read(self, size_bytes: int) -> None:
        self._advance(read_bytes=size_bytes)

    def _advance(self, *, blobs: int = 0, read_bytes: int = 0) -> None:
        now = self._progress
        self._progress = Progress(
            now.blobs + blobs, now.total_blobs, now.read_bytes + read_bytes, now.total_bytes
        )
        self._on_progress(self._progress)

    def _leave(self, blobs: Sequence[FoundBlob], why: str, *, needs_attention: bool = False) -> None:
        self.report.needs_attention |= needs_attention
        self._tell(Told(Outcome.LEFT, _digests(blobs), _size(blobs), detail=why))

    def _tell(self, told: Told) -> None:
        self.report.counts[told.outcome] += 1
        if told.outcome in {Outcome.DAMAGED, Outcome.UNREADABLE, Outcome.ABSENT}:
            self.report.needs_attention = True
        self._say(told)


async def _nobody_knows_it() -> bool:
    return True


def _digests(blobs: Sequence[FoundBlob]) -> tuple[str, ...]:
    return tuple(blob.sha256 for blob in blobs)


def _size(blobs: Sequence[FoundBlob]) -> int:
    return sum(blob.size_bytes for blob in blobs)


def _looks_like(head: bytes) -> str:
    if head[8:9] == b"{":
        return SAFETENSORS
    return JSON if head.lstrip(b" \t\r\n").startswith((b"{", b"[")) else GGUF

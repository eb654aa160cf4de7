"""Deleting a model: from its targets first, then from the catalog, then the bytes that nobody else needs.

What a crash leaves is one of: the model as it was (perhaps gone from some targets: asked again they say that
they have none), or blobs marked DELETING, which the sweep removes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ingest_service.database import Database, Transaction
from ingest_service.forwarding import TargetError, TargetRemoval
from ingest_service.ingests.blob_removal import remove_deleting
from ingest_service.ingests.names import parse_model_name
from ingest_service.ingests.requests import check_known_targets
from ingest_service.lifecycle import Change
from ingest_service.storage import BlobStore
from ingest_service.vocabulary.errors import (
    IngestError,
    ModelBusy,
    ModelNotFound,
    TargetUnknown,
    TargetUnreachable,
)
from ingest_service.vocabulary.records import Deployment, Ingest, Model
from ingest_service.vocabulary.states import DeploymentState

_log = logging.getLogger(__name__)
_DELETED = "The model was deleted from the catalog."


@dataclass(frozen=True, slots=True)
class Deleted:
    """The model as it was, and of each target that was asked whether it had it."""

    model: Model
    removed: Mapping[str, bool]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is to be deleted: whatever comes under the name later is another model."""

    canonical: str
    model: Model
    ingest_ids: frozenset[str]


@dataclass(slots=True)
class _Outcome:
    model: Model
    doomed: list[str] = field(default_factory=list)


class Removal:
    """DeleteModel."""

    def __init__(
        self, database: Database, store: BlobStore, targets: TargetRemoval, *, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._store = store
        self._targets = targets
        self._clock = clock

    async def delete(self, name: str, targets: Sequence[str] = (), *, all_targets: bool = False) -> Deleted:
        """Raises NameInvalid, TargetUnknown, ModelNotFound, ModelBusy; TargetUnreachable if a target could
        not be asked (the catalog is as it was then)."""
        canonical = parse_model_name(name, field="name").canonical
        check_known_targets(targets, self._targets.names)
        seen = await self._database.read(lambda tx: _look(tx, canonical))
        wanted = self._wanted(seen.model, targets, all_targets=all_targets)
        removed = await self._from_targets(seen, wanted)
        outcome = await self._database.transact(lambda tx: self._forget(tx, seen, removed))
        extra = {"model": canonical, "blobs": len(outcome.doomed), "targets": ",".join(removed)}
        _log.info("a model was deleted", extra=extra)
        for sha256 in outcome.doomed:
            await self._remove(sha256)
        return Deleted(outcome.model, removed)

    def _wanted(self, model: Model, named: Sequence[str], *, all_targets: bool) -> list[str]:
        wanted = set(named)
        if all_targets:
            deployed = {deployment.target for deployment in model.deployments}
            lost = sorted(
                deployment.target
                for deployment in model.deployments
                if deployment.target not in self._targets.names and _may_be_there(deployment)
            )
            if lost:
                raise TargetUnknown(
                    f"The model went to {', '.join(lost)} as well, which this service is not configured with"
                    " any more: name the targets to remove it from.",
                    field="all_targets",
                    metadata={"known": ",".join(self._targets.names)},
                )
            wanted |= deployed
        return [name for name in self._targets.names if name in wanted]

    async def _from_targets(self, seen: _Seen, wanted: Sequence[str]) -> Mapping[str, bool]:
        async def check() -> None:
            # The turn is ours: nothing that began to create there since we looked can be under way, and what
            # begins later creates anew after the removal.
            await self._database.read(lambda tx: _check(tx, seen))

        answers = await self._targets.remove(seen.model.newest.model, wanted, check)
        removed = {name: answer for name, answer in answers.items() if isinstance(answer, bool)}
        failed = {name: answer for name, answer in answers.items() if isinstance(answer, TargetError)}
        if failed:
            gone = [name for name, had_it in removed.items() if had_it]
            if gone:
                await self._tell(seen, gone)
            words = "; ".join(f"target {name}: {error.words}" for name, error in failed.items())
            raise TargetUnreachable(
                f"{words} Nothing was removed from the catalog"
                + (f", but the model is gone from {', '.join(gone)}" if gone else "")
                + ": call again.",
                metadata={"target": next(iter(failed))},
            )
        return removed

    async def _tell(self, seen: _Seen, gone: Sequence[str]) -> None:
        """The model stays, though not everywhere: its history says so."""

        async def work(tx: Transaction) -> None:
            ingest = await tx.ingests.lock(seen.model.newest.id)
            if ingest is None or ingest.deleted_at is not None:
                return
            change = Change(ingest, self._clock())
            change.notice(_removed_from(gone))
            await tx.ingests.save(ingest, change.after, change.events, change.now)

        try:
            await self._database.transact(work)
        except IngestError:
            _log.warning("what targets removed could not be told", extra={"targets": ",".join(gone)})

    async def _forget(self, tx: Transaction, seen: _Seen, removed: Mapping[str, bool]) -> _Outcome:
        locked = await tx.ingests.lock_in_catalog(seen.canonical)
        # Read again now that the locks are had: what was stored while they were waited for is seen too.
        await _check(tx, seen)
        model = await tx.models.get(seen.canonical)
        if model is None:
            # Somebody else deleted it meanwhile: it is as was asked for.
            return _Outcome(seen.model)
        gone = [name for name, had_it in removed.items() if had_it]
        words = f"{_DELETED} {_removed_from(gone)}" if gone else _DELETED
        for ingest in locked:
            change = Change(ingest, self._clock())
            change.delete(words)
            await tx.ingests.save(ingest, change.after, change.events, change.now)
        # In one order, so that two deletions of models that share blobs cannot wait for each other.
        doomed = [
            sha256 for sha256 in _digests(locked) if await tx.blobs.mark_deleting(sha256, even_corrupt=True)
        ]
        return _Outcome(model, doomed)

    async def _remove(self, sha256: str) -> None:
        try:
            await remove_deleting(self._database, self._store, sha256)
        except IngestError:
            _log.warning("the bytes of a deleted model are left to the sweep", extra={"sha256": sha256})


async def _look(tx: Transaction, canonical: str) -> _Seen:
    model = await tx.models.get(canonical)
    if model is None:
        raise ModelNotFound
    seen = _Seen(canonical, model, frozenset(await tx.models.ingest_ids(canonical)))
    await _check(tx, seen)
    return seen


async def _check(tx: Transaction, seen: _Seen) -> None:
    """Nothing of the model moves, and it is still the one that was seen. Raises ModelBusy."""
    moving = await tx.models.moving(seen.canonical)
    if moving is not None:
        raise ModelBusy(
            f"Ingest {moving.ingest_id} of this model is still on its way to target {moving.target}"
            f" ({moving.state}): wait for it, or cancel it.",
            metadata={"ingest": moving.ingest_id, "target": moving.target},
        )
    newer = set(await tx.models.ingest_ids(seen.canonical)) - seen.ingest_ids
    if newer:
        raise ModelBusy(
            "The model was pushed or deployed again meanwhile: look at it, then call again.",
            metadata={"ingest": min(newer)},
        )


def _may_be_there(deployment: Deployment) -> bool:
    return deployment.state is DeploymentState.READY or deployment.attempts > 0


def _removed_from(targets: Sequence[str]) -> str:
    return f"It was removed from {', '.join(targets)}."


def _digests(ingests: Sequence[Ingest]) -> list[str]:
    return sorted({file.sha256 for ingest in ingests for file in ingest.files if file.sha256})

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
from ingest_service.ingests.lost_models import LostModels
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
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.records import Deployment, Failure, Ingest, Model
from ingest_service.vocabulary.states import DeploymentState

_log = logging.getLogger(__name__)
_DELETED = "The model was deleted from the catalog."
_REMOVED = "DeleteModel removed the model from this target."


@dataclass(frozen=True, slots=True)
class Deleted:
    """The model as it was, None if the catalog had forgotten it; of each target asked, whether it had it."""

    model: Model | None
    removed: Mapping[str, bool]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is to be deleted: whatever comes under the name later is another model."""

    canonical: str
    #: None: the catalog has forgotten it, but targets may have it still.
    model: Model | None
    ingest_ids: frozenset[str]
    #: The name as targets are asked for it.
    spelling: str
    #: By target, where an ingest of ours may have made it.
    deployed: Mapping[str, Deployment]


@dataclass(slots=True)
class _Outcome:
    model: Model | None
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
        self._lost = LostModels(database, clock=clock)

    async def delete(self, name: str, targets: Sequence[str] = (), *, all_targets: bool = False) -> Deleted:
        """Raises NameInvalid, TargetUnknown, ModelNotFound, ModelBusy; TargetUnreachable if a target could
        not be asked (the catalog is as it was then).

        Targets that are asked for go on being asked after the catalog forgot the name, where a deployment of
        ours may have left it.
        """
        canonical = parse_model_name(name, field="name").canonical
        check_known_targets(targets, self._targets.names)
        asks = bool(targets) or all_targets
        seen = await self._database.read(lambda tx: _look(tx, canonical, asks_targets=asks))
        wanted = self._wanted(seen, targets, all_targets=all_targets)
        removed = await self._from_targets(seen, wanted)
        outcome = await self._database.transact(lambda tx: self._forget(tx, seen, removed))
        extra = {"model": canonical, "blobs": len(outcome.doomed), "targets": ",".join(removed)}
        _log.info("a model was deleted", extra=extra)
        for sha256 in outcome.doomed:
            await self._remove(sha256)
        return Deleted(outcome.model, removed)

    def _wanted(self, seen: _Seen, named: Sequence[str], *, all_targets: bool) -> list[str]:
        for index, target in enumerate(named):
            if target not in seen.deployed:
                raise TargetUnknown(
                    f"No ingest deployed {seen.spelling} to {target}: what is there under that name is not"
                    f" ours, and is left alone. Ours went to: {', '.join(seen.deployed) or 'no target'}.",
                    field=f"targets[{index}]",
                    metadata={"known": ",".join(seen.deployed)},
                )
        wanted = set(named)
        if all_targets:
            lost = sorted(
                target
                for target, deployment in seen.deployed.items()
                if target not in self._targets.names and not _is_gone(deployment)
            )
            if lost:
                raise TargetUnknown(
                    f"The model went to {', '.join(lost)} as well, which this service is not configured with"
                    " any more: name the targets to remove it from.",
                    field="all_targets",
                    metadata={"known": ",".join(self._targets.names)},
                )
            wanted |= set(seen.deployed)
        return [name for name in self._targets.names if name in wanted]

    async def _from_targets(self, seen: _Seen, wanted: Sequence[str]) -> Mapping[str, bool]:
        async def check() -> None:
            # The turn is ours: nothing that began to create there since we looked can be under way, and what
            # begins later creates anew after the removal.
            await self._database.read(lambda tx: _check(tx, seen))

        answers = await self._targets.remove(seen.spelling, wanted, check)
        removed = {name: answer for name, answer in answers.items() if isinstance(answer, bool)}
        failed = {name: answer for name, answer in answers.items() if isinstance(answer, TargetError)}
        if failed:
            gone = [name for name, had_it in removed.items() if had_it]
            await self._tell(seen, removed)
            words = "; ".join(f"target {name}: {error.words}" for name, error in failed.items())
            raise TargetUnreachable(
                f"{words} Nothing was removed from the catalog"
                + (f", but the model is gone from {', '.join(gone)}" if gone else "")
                + ": call again.",
                metadata={"target": next(iter(failed))},
            )
        return removed

    async def _tell(self, seen: _Seen, removed: Mapping[str, bool]) -> None:
        """The model stays, though not everywhere: its deployments and its history say so."""
        gone = [name for name, had_it in removed.items() if had_it]

        async def work(tx: Transaction) -> None:
            await self._mark_removed(tx, seen, removed, self._clock())
            if seen.model is None:
                return
            ingest = await tx.ingests.lock(seen.model.newest.id)
            if not gone or ingest is None or ingest.deleted_at is not None:
                return
            change = Change(ingest, self._clock())
            change.notice(_removed_from(gone))
            await tx.ingests.save(ingest, change.after, change.events, change.now)

        try:
            await self._database.transact(work)
            if seen.model is not None:
                asked = [one for one in seen.model.deployments if one.target in removed]
                await self._lost.record(asked, _REMOVED)
        except IngestError:
            _log.warning("what targets removed could not be told", extra={"targets": ",".join(gone)})

    async def _forget(self, tx: Transaction, seen: _Seen, removed: Mapping[str, bool]) -> _Outcome:
        if seen.model is None:
            await self._mark_removed(tx, seen, removed, self._clock())
            return _Outcome(None)
        locked = await tx.ingests.lock_in_catalog(seen.canonical)
        # Read again now that the locks are had: what was stored while they were waited for is seen too.
        await _check(tx, seen)
        model = await tx.models.get(seen.canonical)
        if model is None:
            # Somebody else deleted it meanwhile: it is as was asked for.
            return _Outcome(seen.model)
        gone = [name for name, had_it in removed.items() if had_it]
        words = f"{_DELETED} {_removed_from(gone)}" if gone else _DELETED
        now = self._clock()
        for ingest in locked:
            change = Change(ingest, now)
            change.delete(words)
            await tx.ingests.save(ingest, change.after, change.events, now)
        await self._mark_removed(tx, seen, removed, now)
        # In one order, so that two deletions of models that share blobs cannot wait for each other.
        doomed = [
            sha256 for sha256 in _digests(locked) if await tx.blobs.mark_deleting(sha256, even_corrupt=True)
        ]
        return _Outcome(model, doomed)

    async def _mark_removed(
        self, tx: Transaction, seen: _Seen, removed: Mapping[str, bool], now: datetime
    ) -> None:
        """Targets that answered have not got it any more, whether they had it or not.

        Deployments of deleted ingests that say READY are LOST, each with its event.
        """
        for ingest_id in await tx.deployments.deleted_ready(seen.canonical, list(removed)):
            ingest = await tx.ingests.lock(ingest_id)
            if ingest is None:
                continue
            change = Change(ingest, now)
            for one in ingest.deployments:
                if one.target in removed:
                    change.lose(one.id, Failure(Reason.TARGET_LOST_MODEL, _REMOVED, {"target": one.target}))
            await tx.ingests.save(ingest, change.after, change.events, now)
        for target in removed:
            await tx.deployments.mark_removed(seen.deployed[target], now)

    async def _remove(self, sha256: str) -> None:
        try:
            await remove_deleting(self._database, self._store, sha256)
        except IngestError:
            _log.warning("the bytes of a deleted model are left to the sweep", extra={"sha256": sha256})


async def _look(tx: Transaction, canonical: str, *, asks_targets: bool) -> _Seen:
    model = await tx.models.get(canonical)
    deployed = await tx.models.may_be_on(canonical)
    newest = model.newest if model else None
    if model is None and asks_targets:
        # What a target said to have removed is not ours any more: somebody may have put another there since.
        deployed = {target: one for target, one in deployed.items() if not _is_gone(one)}
        newest = await tx.ingests.get(list(deployed.values())[-1].ingest_id) if deployed else None
    if newest is None:
        raise ModelNotFound
    ids = frozenset(await tx.models.ingest_ids(canonical))
    seen = _Seen(canonical, model, ids, newest.model, deployed)
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


def _is_gone(deployment: Deployment) -> bool:
    """The target has said that it has not got the model, and nothing was tried there since."""
    return deployment.state is DeploymentState.LOST or deployment.removed_at is not None


def _removed_from(targets: Sequence[str]) -> str:
    return f"It was removed from {', '.join(targets)}."


def _digests(ingests: Sequence[Ingest]) -> list[str]:
    return sorted({file.sha256 for ingest in ingests for file in ingest.files if file.sha256})

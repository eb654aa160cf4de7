"""Writes down what targets say they have not got any more: the deployment is LOST, and a retry can begin."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime

from ingest_service.database import Database, Transaction
from ingest_service.lifecycle import Change
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.records import Deployment, Failure
from ingest_service.vocabulary.states import DeploymentState

_log = logging.getLogger(__name__)
_WORDS = "The model was READY on this target, and the target says that it has not got it any more."


class LostModels:
    """Moves deployments from READY to LOST."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def record(self, deployments: Sequence[Deployment], words: str = _WORDS) -> None:
        """Of each, as it was read before the target was asked. Raises what the database raises.

        What has changed since says nothing about the answer, and is left alone. `words` go into the failure.
        """
        for deployment in deployments:
            if await self._database.transact(lambda tx, lost=deployment: self._record(tx, lost, words)):  # type: ignore[misc]
                extra = {"ingest": deployment.ingest_id, "target": deployment.target}
                _log.warning("a target has not got a model any more", extra=extra)

    async def _record(self, tx: Transaction, asked: Deployment, words: str) -> bool:
        ingest = await tx.ingests.lock(asked.ingest_id)
        if ingest is None or ingest.deleted_at is not None:
            return False
        now = next((one for one in ingest.deployments if one.id == asked.id), None)
        if now is None or now.state is not DeploymentState.READY or now.fencing != asked.fencing:
            return False
        if asked.target in await tx.ingests.targets_of_newer(ingest):
            # The newer ingest has the word about this target.
            return False
        change = Change(ingest, self._clock())
        change.lose(asked.id, Failure(Reason.TARGET_LOST_MODEL, words, {"target": asked.target}))
        await tx.ingests.save(ingest, change.after, change.events, change.now)
        return True

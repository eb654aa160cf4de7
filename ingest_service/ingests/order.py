"""Which of several ingests of one name may go to a target: the one accepted last (design.md section 5).

Rows are locked from the newer ingest to the older, always, so that two that are stored at once cannot wait
for each other.
"""

from __future__ import annotations

from ingest_service.database import Transaction
from ingest_service.lifecycle import Change
from ingest_service.vocabulary.records import Ingest
from ingest_service.vocabulary.states import INGEST_STORED


async def keep_order(tx: Transaction, change: Change) -> None:
    """To be called before a change is saved that may have made its ingest's last file STORED.

    It gives up the targets that a newer ingest, stored before it, was meant for; older ones give up its own.
    """
    if change.after.state not in INGEST_STORED or change.before.state in INGEST_STORED:
        return
    change.supersede(await tx.ingests.targets_of_newer(change.after))
    await supersede_older(tx, change)


async def supersede_older(tx: Transaction, change: Change) -> None:
    """Older ingests of the name give up the targets that this one, which has a row, goes to."""
    ingest: Ingest = change.after
    targets = {deployment.target for deployment in ingest.deployments}
    if ingest.state not in INGEST_STORED or not targets:
        return
    for older_id in await tx.ingests.older_with_moving_deployments(ingest):
        older = await tx.ingests.lock(older_id)
        assert older is not None
        lost = Change(older, change.now)
        lost.supersede(targets)
        if lost.events:
            await tx.ingests.save(older, lost.after, lost.events, lost.now)

"""Asks targets before a start whether they can be used, for `check`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from ingest_service.forwarding.board import TargetBoard, TargetStatus
from ingest_service.forwarding.target import Target
from ingest_service.forwarding.transport import warm_up


async def unusable_targets(targets: Sequence[Target]) -> list[TargetStatus]:
    """Asks each for its version, for 5 s at most; answers those that gave none."""
    await asyncio.to_thread(warm_up)
    board = TargetBoard(targets, clock=lambda: datetime.now(UTC))
    return [status for status in await board.look() if not status.reachable]

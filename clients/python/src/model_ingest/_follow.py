"""Follows an ingest to its end, keeping a snapshot."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Final

from model_ingest._backoff import Backoff
from model_ingest._connection import Connection
from model_ingest._errors import IngestError
from model_ingest._retry import repeat
from model_ingest._snapshot import apply
from model_ingest._updates import Moved, OnUpdate, Waiting
from model_ingest._watch import watch
from model_ingest.v1.ingest_service_pb2 import GetIngestRequest
from model_ingest.v1.resources_pb2 import Ingest

_PAUSE_SECONDS: Final = 1.0


async def follow(
    connection: Connection,
    start: Ingest,
    after_sequence: int,
    on_update: OnUpdate | None,
    *,
    patience_seconds: float,
    stall_seconds: float,
) -> Ingest:
    """The ingest once it is done, whatever the outcome. `start` is where it stood last."""
    ingest = _copy(start)

    def on_wait(error: IngestError, delay_seconds: float) -> None:
        if on_update is not None:
            on_update(Waiting("", error, delay_seconds))

    while True:
        stream = watch(
            connection,
            ingest.name,
            after_sequence,
            Backoff(patience_seconds),
            stall_seconds=stall_seconds,
            on_wait=on_wait,
        )
        async with aclosing(stream) as responses:
            async for response in responses:
                if response.HasField("heartbeat"):
                    continue
                apply(ingest, response)
                event = response.event if response.HasField("event") else None
                if event is not None:
                    after_sequence = event.sequence
                if on_update is not None:
                    on_update(Moved(_copy(ingest), event))
        # Events tell what happened; the resource also holds what no event carries (digests, versions).
        request = GetIngestRequest(name=ingest.name)
        truth = await repeat(
            lambda: connection.unary(connection.ingests.GetIngest, request),  # noqa: B023 (awaited at once)
            Backoff(patience_seconds),
        )
        if truth.done:
            return truth
        # A watch that ends before its ingest does is no promise of ours; but never spin.
        await asyncio.sleep(_PAUSE_SECONDS)


def _copy(ingest: Ingest) -> Ingest:
    copy = Ingest()
    copy.CopyFrom(ingest)
    return copy

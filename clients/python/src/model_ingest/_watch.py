"""Follows an ingest through broken streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import grpc

from model_ingest._backoff import Backoff
from model_ingest._connection import Connection
from model_ingest._errors import IngestError, StalledError
from model_ingest._retry import OnWait
from model_ingest._watchdog import Watchdog, cancelled_from_outside
from model_ingest.v1.ingest_service_pb2 import WatchIngestRequest, WatchIngestResponse


async def watch(
    connection: Connection,
    name: str,
    after_sequence: int,
    backoff: Backoff,
    *,
    stall_seconds: float,
    on_wait: OnWait | None = None,
) -> AsyncGenerator[WatchIngestResponse, None]:
    """Events in order, none lost or doubled, progress and heartbeats between them, until it is done.

    A broken stream is watched again after the last event seen, until nothing came for the
    backoff's patience. A server that was never reached is not tried again. One that ends a watch
    because it lasted long enough is asked again at once. `on_wait` hears why the next try waits.
    """
    while True:
        brought_something = False
        try:
            async for response in _one_stream(connection, name, after_sequence, stall_seconds):
                brought_something = True
                backoff.progressed()
                if response.HasField("event"):
                    after_sequence = max(after_sequence, response.event.sequence)
                yield response
            return
        except IngestError as error:
            if not connection.contacted:
                raise
            # One that brought nothing is waited for all the same: never a busy loop.
            if _is_renewal(error) and brought_something:
                continue
            delay_seconds = backoff.after(error)
            if on_wait is not None:
                on_wait(error, delay_seconds)
        await asyncio.sleep(delay_seconds)


def _is_renewal(error: IngestError) -> bool:
    """A planned end of the stream (`WatchIngest` in ingest_service.proto), not a service that goes away."""
    return error.reason == "DRAINING" and error.retry_after_seconds == 0


async def _one_stream(
    connection: Connection, name: str, after_sequence: int, stall_seconds: float
) -> AsyncGenerator[WatchIngestResponse, None]:
    await connection.ready()
    call = connection.ingests.WatchIngest(WatchIngestRequest(name=name, after_sequence=after_sequence))
    watchdog = Watchdog(call, stall_seconds)
    try:
        with watchdog:
            async for response in call:
                connection.contacted = True
                watchdog.fed()
                yield response
    except grpc.aio.AioRpcError as error:
        raise connection.error(error) from None
    except asyncio.CancelledError:
        if watchdog.fired and not cancelled_from_outside():
            # Heartbeats come every 15 s: silence is a dead peer, not a quiet ingest.
            raise StalledError(f"{connection.server} was silent for {stall_seconds:g} s") from None
        raise
    finally:
        call.cancel()

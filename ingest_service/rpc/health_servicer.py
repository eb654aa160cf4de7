"""grpc.health.v1: what Health says, for the server as a whole and for each service.

The servicer that comes with grpcio-health-checking writes its watches by hand, which the interceptors do not
wrap (peers.md P17), and never ends them: each one would hold up a drain until its grace is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthServicer

from ingest_service.vocabulary.errors import Draining


class HealthService(HealthServicer):
    """NOT_SERVING until told otherwise."""

    def __init__(self, services: Sequence[str]) -> None:
        self._known = frozenset({"", *services})
        self._status: int = HealthCheckResponse.NOT_SERVING
        self._draining = False
        self._changed = asyncio.Event()

    def set_serving(self, *, serving: bool) -> None:
        """Tells everybody; after `drain` it is too late to serve."""
        serving = serving and not self._draining
        self._status = HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
        self._wake()

    def drain(self) -> None:
        """NOT_SERVING for good; every watch says so and ends."""
        self._draining = True
        self.set_serving(serving=False)

    async def Check(self, request: HealthCheckRequest, context: Any) -> HealthCheckResponse:
        if request.service not in self._known:
            await context.abort(grpc.StatusCode.NOT_FOUND, "There is no such service.")
        return HealthCheckResponse(status=self._status)

    async def Watch(self, request: HealthCheckRequest, context: Any) -> AsyncIterator[HealthCheckResponse]:
        shown = None
        while True:
            changed = self._changed
            status = self._status if request.service in self._known else HealthCheckResponse.SERVICE_UNKNOWN
            if status != shown:
                shown = status
                yield HealthCheckResponse(status=status)
                # While that was being sent, the status may have changed: the last one is told before the end.
                continue
            if self._draining:
                raise Draining
            await changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

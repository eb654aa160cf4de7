"""The gRPC server: its options, its services, and nothing tuned besides (design.md section 2)."""

from __future__ import annotations

from google.rpc import error_details_pb2
from grpc import aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from model_ingest.v1 import (
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    ingest_service_pb2,
    ingest_service_pb2_grpc,
)

from ingest_service.rpc.catalog_servicer import CatalogServicer
from ingest_service.rpc.health_servicer import HealthService
from ingest_service.rpc.ingest_servicer import IngestServicer
from ingest_service.rpc.interceptors import BoundedRequests, ErrorInterceptor, SmallCallsFirst, UploadMessages
from ingest_service.rpc.read_turns import ReadTurns

_MEBIBYTE = 1024 * 1024

SERVICE_NAMES = (
    ingest_service_pb2.DESCRIPTOR.services_by_name["IngestService"].full_name,
    catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"].full_name,
)
#: Importing them put their descriptors where reflection looks: grpcurl can print error details.
_ERROR_DETAILS = error_details_pb2.DESCRIPTOR.name

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", 4 * _MEBIBYTE),
    ("grpc.max_send_message_length", 4 * _MEBIBYTE),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.max_concurrent_streams", 100),
    # A pulled cable is noticed after 40 s, not after gRPC's default of two hours (peers.md P11).
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Clients may ping as often; gRPC's default answers long streams' pings with GOAWAY.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
    # On by default: a second server would bind the same port without an error (P14).
    ("grpc.so_reuseport", 0),
    # Identity only: weights do not compress, and a small message that inflates is an attack.
    ("grpc.compression_enabled_algorithms_bitset", 1),
)


def server_options(*, shares_port: bool = False, call_window_bytes: int = 0) -> tuple[tuple[str, int], ...]:
    """SERVER_OPTIONS; with `serve --workers` the kernel spreads connections over processes on one port.

    HTTP/2 windows grow with what a link can carry, unless `call_window_bytes` fixes what each call may have
    unread; the rest of a message is let in once it is being read.
    """
    options = dict(SERVER_OPTIONS)
    if shares_port:
        options["grpc.so_reuseport"] = 1
    if call_window_bytes:
        options |= {"grpc.http2.bdp_probe": 0, "grpc.http2.lookahead_bytes": call_window_bytes}
    return tuple(options.items())


class RpcServer:
    """The server with its services and health."""

    def __init__(
        self,
        ingests: IngestServicer,
        catalog: CatalogServicer,
        *,
        shares_port: bool = False,
        call_window_bytes: int = 0,
    ) -> None:
        self.turns = ReadTurns()
        interceptors = [ErrorInterceptor(), BoundedRequests(), UploadMessages(), SmallCallsFirst(self.turns)]
        self._server = aio.server(
            interceptors=interceptors,
            options=server_options(shares_port=shares_port, call_window_bytes=call_window_bytes),
        )
        self._health = HealthService(SERVICE_NAMES)
        ingest_service_pb2_grpc.add_IngestServiceServicer_to_server(ingests, self._server)
        catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server(catalog, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*SERVICE_NAMES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self, listen: str) -> int:
        """Listens, not yet SERVING; answers the port. Raises OSError if the address cannot be had."""
        try:
            port = self._server.add_insecure_port(listen)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {listen}") from error
        if port == 0:
            raise OSError(f"cannot listen on {listen}")
        await self._server.start()
        return port

    async def set_serving(self, *, serving: bool) -> None:
        """What Health answers, for the server as a whole and for each service."""
        self._health.set_serving(serving=serving)

    async def stop(self, grace_seconds: float) -> None:
        """Takes no new calls; running ones may go on for that long, then they are cancelled."""
        self._health.drain()
        await self._server.stop(grace_seconds)

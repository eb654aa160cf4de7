"""The generated stubs under the types that they have on a grpc.aio channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import grpc
from model_ingest.v1.catalog_service_pb2_grpc import CatalogServiceStub
from model_ingest.v1.ingest_service_pb2_grpc import IngestServiceStub

if TYPE_CHECKING:
    from model_ingest.v1.catalog_service_pb2_grpc import CatalogServiceAsyncStub as CatalogStub
    from model_ingest.v1.ingest_service_pb2_grpc import IngestServiceAsyncStub as IngestStub
else:
    CatalogStub, IngestStub = CatalogServiceStub, IngestServiceStub

__all__ = ["CatalogStub", "IngestStub", "catalog_stub", "ingest_stub"]


def ingest_stub(channel: grpc.aio.Channel) -> IngestStub:
    """IngestService on that channel."""
    return cast("IngestStub", IngestServiceStub(cast("Any", channel)))


def catalog_stub(channel: grpc.aio.Channel) -> CatalogStub:
    """CatalogService on that channel."""
    return cast("CatalogStub", CatalogServiceStub(cast("Any", channel)))

"""Every RPC of the protos is served."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from model_ingest.v1 import catalog_service_pb2, ingest_service_pb2

from tests.rpc.refusals import error_of, refused_without_reason
from tests.rpc.scenes import Scene

SERVICES = [
    ingest_service_pb2.DESCRIPTOR.services_by_name["IngestService"],
    catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"],
]
METHODS = {f"{service.name}.{method.name}": method for service in SERVICES for method in service.methods}
#: An empty request to one of these is a good one.
ANSWERED = {
    "IngestService.ListIngests",
    "IngestService.GetCapabilities",
    "CatalogService.ListModels",
    "CatalogService.ListTargets",
}


async def answer_of(scene: Scene, method: MethodDescriptor) -> Any:
    """The (first) answer to an empty request, or the error."""
    service = method.containing_service
    assert service is not None
    async with scene.running.channel() as channel:
        kind = f"{_kind(method.client_streaming)}_{_kind(method.server_streaming)}"
        call = getattr(channel, kind)(
            f"/{service.full_name}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        request: Any = GetMessageClass(method.input_type)()
        started = call([request] if method.client_streaming else request, timeout=30)
        return await (started.read() if method.server_streaming else started)


def _kind(streaming: bool) -> str:
    return "stream" if streaming else "unary"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", sorted(METHODS))
async def test_an_rpc_is_served(shared: Scene, name: str) -> None:
    if name in ANSWERED:
        await answer_of(shared, METHODS[name])
        return
    # An empty request to one of these is wrong, and its handler says so.
    error = await error_of(answer_of(shared, METHODS[name]))
    assert error.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}, error


def test_the_list_names_rpcs_that_exist() -> None:
    assert set(METHODS) >= ANSWERED


@pytest.mark.asyncio(loop_scope="module")
async def test_an_rpc_that_nobody_knows(shared: Scene) -> None:
    async with shared.running.channel() as channel:
        call: Any = channel.unary_unary("/model_ingest.v1.IngestService/NoSuchMethod")
        await refused_without_reason(call(b""), grpc.StatusCode.UNIMPLEMENTED)

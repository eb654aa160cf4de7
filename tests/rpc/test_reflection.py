"""Reflection: what grpcurl needs to list, describe and call, and to print error details."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from ingest_service.rpc.server import SERVICE_NAMES
from tests.rpc.scenes import GIVE_UP_SECONDS, Scene

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def ask(shared: Scene, request: ServerReflectionRequest) -> ServerReflectionResponse:
    """One question, one answer."""
    async with shared.running.channel() as channel:
        stub: Any = ServerReflectionStub
        call = stub(channel).ServerReflectionInfo()
        await call.write(request)
        await call.done_writing()
        answer: ServerReflectionResponse = await asyncio.wait_for(call.read(), GIVE_UP_SECONDS)
        return answer


async def files_of(shared: Scene, symbol: str) -> dict[str, FileDescriptorProto]:
    """The file that declares the symbol, and what the service says with it."""
    answer = await ask(shared, ServerReflectionRequest(file_containing_symbol=symbol))
    assert answer.WhichOneof("message_response") == "file_descriptor_response", answer
    files = [
        FileDescriptorProto.FromString(data) for data in answer.file_descriptor_response.file_descriptor_proto
    ]
    return {file.name: file for file in files}


async def test_every_service_is_listed(shared: Scene) -> None:
    answer = await ask(shared, ServerReflectionRequest(list_services=""))
    assert {service.name for service in answer.list_services_response.service} == {
        *SERVICE_NAMES,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


@pytest.mark.parametrize("service", SERVICE_NAMES)
async def test_every_service_is_described(shared: Scene, service: str) -> None:
    files = await files_of(shared, service)
    declared = [
        f"{file.package}.{declaration.name}" for file in files.values() for declaration in file.service
    ]
    assert service in declared


@pytest.mark.parametrize("symbol", ["google.rpc.ErrorInfo", "google.rpc.BadRequest", "google.rpc.RetryInfo"])
async def test_error_details_are_described(shared: Scene, symbol: str) -> None:
    files = await files_of(shared, symbol)
    details = files["google/rpc/error_details.proto"]
    assert symbol.rpartition(".")[2] in [message.name for message in details.message_type]


async def test_a_symbol_that_nobody_knows_is_an_answer_not_an_end(shared: Scene) -> None:
    answer = await ask(shared, ServerReflectionRequest(file_containing_symbol="no.such.Thing"))
    assert answer.WhichOneof("message_response") == "error_response"

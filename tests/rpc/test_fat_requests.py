"""Lists that no honest client sends are refused before they cost the event loop anything."""

from __future__ import annotations

import grpc
import pytest
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import CreateIngestRequest, FileSpec, ListIngestsRequest

from tests.support.service import RunningService


async def test_a_list_of_states_longer_than_there_are_states(service: RunningService) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await service.ingests.ListIngests(
            ListIngestsRequest(states=[resources_pb2.Ingest.STATE_READY] * 300_000)
        )
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    every = [value for value in resources_pb2.Ingest.State.values() if value]
    assert not (await service.ingests.ListIngests(ListIngestsRequest(states=every * 2))).ingests


async def test_more_files_targets_or_options_than_any_model_has(service: RunningService) -> None:
    fat_options = resources_pb2.CreateOptions(licenses=["x" * 1_000_000] * 3 + ["x" * 200_000])
    for request in (
        CreateIngestRequest(model="m", files=[FileSpec()] * 2000),
        CreateIngestRequest(model="m", files=[FileSpec()], targets=["t"] * 2000),
        CreateIngestRequest(model="m", files=[FileSpec()], options=fat_options),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await service.ingests.CreateIngest(request)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT

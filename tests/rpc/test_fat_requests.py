"""Lists that no honest client sends are refused before they cost the event loop anything."""

from __future__ import annotations

import grpc
import pytest
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import CreateIngestRequest, FileSpec, ListIngestsRequest

from tests.rpc.refusals import refused
from tests.support.files import create_request, gguf
from tests.support.service import RunningService


async def test_a_list_of_states_longer_than_there_are_states(service: RunningService) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.ingests.ListIngests(
            ListIngestsRequest(states=[resources_pb2.Ingest.STATE_READY] * 300_000)
        )
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    every = [value for value in resources_pb2.Ingest.State.values() if value]
    assert not (await service.ingests.ListIngests(ListIngestsRequest(states=every * 2))).ingests


async def test_more_files_targets_or_options_than_any_model_has(service: RunningService) -> None:
    fat_options = resources_pb2.CreateOptions(licenses=["x" * 1_000_000] * 3 + ["x" * 200_000])
    many_parameters = resources_pb2.CreateOptions()
    many_parameters.parameters.update({f"p{number}": number for number in range(10_000)})
    many_messages = resources_pb2.CreateOptions()
    for _ in range(1025):
        many_messages.messages.add(role="user")
    many_licenses = resources_pb2.CreateOptions(licenses=["MIT"] * 1025)
    for request, field in (
        (CreateIngestRequest(files=[FileSpec()] * 2000), "files"),
        (CreateIngestRequest(targets=["t"] * 2000), "targets"),
        (CreateIngestRequest(options=fat_options), "options"),
        (CreateIngestRequest(options=many_parameters), "options.parameters"),
        (CreateIngestRequest(options=many_messages), "options.messages"),
        (CreateIngestRequest(options=many_licenses), "options.licenses"),
    ):
        # Named before the model, which is missing as well: nothing else was looked at.
        reason = "ARGUMENT_INVALID" if field == "targets" else "OPTION_UNSUPPORTED"
        await refused(service.ingests.CreateIngest(request), reason, field)


async def test_a_body_of_megabytes_is_not_hashed_on_the_loop(service: RunningService) -> None:
    """`tests/support/loop_guard.py` fails the test if it is; asked for again it is the same ingest."""
    request = create_request(gguf(100_000))
    request.options.licenses.extend(["x" * 1_000_000] * 2)
    request.request_id = "fat"
    first = await service.ingests.CreateIngest(request)
    assert (await service.ingests.CreateIngest(request)).name == first.name
    request.options.licenses.append("MIT")
    await refused(service.ingests.CreateIngest(request), "REQUEST_ID_REUSED", "request_id")

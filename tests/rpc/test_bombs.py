"""A few megabytes of a request never become gigabytes of objects: they are counted undecoded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from model_ingest.v1.ingest_service_pb2 import CreateIngestRequest
from model_ingest.v1.resources_pb2 import CreateOptions

from ingest_service.rpc.call_gates import ReadingGate
from ingest_service.rpc.undecodable import UndecodableMessage
from ingest_service.rpc.wire_limits import REQUEST_TYPES
from ingest_service.rpc.wire_scan import check_counts
from ingest_service.vocabulary.errors import BadRequestError, TooBusy
from tests.rpc.refusals import refused
from tests.support import bombs
from tests.support.memory import peak_growth
from tests.support.service import RunningService

_CREATE = CreateIngestRequest.DESCRIPTOR.full_name
_MEBIBYTE = 1024 * 1024


def raw_call(channel: Any, method: str, data: bytes) -> Any:
    """A call with bytes of our choice; what is decoded is not looked at."""
    return channel.unary_unary(f"/model_ingest.v1.{method}")(data)


async def test_bombs_are_refused_by_name_and_cost_no_memory(service: RunningService) -> None:
    channel: Any
    async with service.channel() as channel:
        await refused(raw_call(channel, "IngestService/CreateIngest", b""), "NAME_INVALID", "model")
        with peak_growth() as growth:
            for what, data, reason, field in bombs.create_bombs():
                refusal = await refused(raw_call(channel, "IngestService/CreateIngest", data), reason, field)
                assert refusal.message, what
            states = bombs.filled(b"\x20\x01", 60_000)
            await refused(
                raw_call(channel, "IngestService/ListIngests", states), "ARGUMENT_INVALID", "states"
            )
            targets = bombs.filled(b"\x12\x00", 60_000)
            for method in ("IngestService/RetryIngest", "CatalogService/DeployModel"):
                await refused(raw_call(channel, method, targets), "ARGUMENT_INVALID", "targets")
            # Any other request is small; health as well, which anybody may ask.
            large = bombs.field(1, b"x" * 65_536)
            for method in ("IngestService/GetIngest", "CatalogService/VerifyModel"):
                await refused(raw_call(channel, method, large), "ARGUMENT_INVALID", "request")
            health = channel.unary_unary("/grpc.health.v1.Health/Check")(large)
            await refused(health, "ARGUMENT_INVALID", "request")
            # The same in an Upload's first message.
            start = bombs.field(1, bombs.field(2, bombs.filled(b"\x12\x00")))
            upload = channel.stream_unary("/model_ingest.v1.IngestService/Upload")(iter([start]))
            await refused(upload, "OPTION_UNSUPPORTED", "files")
    # One of them, decoded, would take 180 MiB.
    assert growth.peak_bytes < 100 * _MEBIBYTE


def test_the_largest_request_that_means_something_is_not_refused() -> None:
    options = CreateOptions(licenses=["x" * 1000] * 1024)
    options.parameters.update({f"p{number}": number for number in range(19)})
    options.parameters.update({"stop": [str(number) for number in range(64)]})
    for number in range(1024):
        options.messages.add(role="user", content=str(number))
    request = CreateIngestRequest(model="m", options=options, targets=["t"] * 1024, request_id="r")
    for number in range(1024):
        request.files.add(file_name=str(number), role=1, size_bytes=2**40, sha256="sha256:" + "0" * 64)
    check_counts(request.SerializeToString(), _CREATE)


@given(data=st.one_of(st.binary(max_size=60), st.lists(st.sampled_from(
    [b"\x12\x00", b"\x1a\x02\x2a\x00", b"\x22\x01a", b"\x28\x01", b"\x1b", b"\x1c", b"\x0d", b"\x80\x01"]
), max_size=20).map(b"".join)))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_what_protobuf_reads_is_passed_on(data: bytes) -> None:
    """What it does not read may pass as well: protobuf is asked next."""
    for message_type in (_CREATE, REQUEST_TYPES["/model_ingest.v1.IngestService/ListIngests"]):
        try:
            check_counts(data, message_type)
        except UndecodableMessage:
            with pytest.raises(DecodeError):
                CreateIngestRequest.FromString(data)
        except BadRequestError:
            pytest.fail("so few bytes cannot hold too much")


async def never(began: asyncio.Event) -> AsyncIterator[bytes]:
    """A client that sends nothing."""
    began.set()
    await asyncio.Event().wait()
    yield b""


async def sends(data: bytes) -> AsyncIterator[bytes]:
    """A client that sends at once."""
    yield data


async def test_clients_that_send_nothing_do_not_keep_others_out() -> None:
    gate = ReadingGate("test", slots=2, max_waiting=1, patience_seconds=0.01)
    began = [asyncio.Event(), asyncio.Event()]
    silent = [asyncio.create_task(gate.read(never(event))) for event in began]
    for event in began:
        await event.wait()
    assert await gate.read(sends(b"a")) == b"a"
    with pytest.raises(TooBusy):
        await silent[0]
    # Only the oldest had to go, and only because somebody waited.
    assert not silent[1].done()
    silent[1].cancel()
    await asyncio.gather(*silent, return_exceptions=True)


async def test_only_so_many_wait() -> None:
    gate = ReadingGate("test", slots=1, max_waiting=1, patience_seconds=60.0)
    began = asyncio.Event()
    calls = [asyncio.create_task(gate.read(never(began)))]
    await began.wait()
    calls.append(asyncio.create_task(gate.read(sends(b"a"))))
    await asyncio.sleep(0)
    with pytest.raises(TooBusy):
        await gate.read(sends(b"b"))
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)

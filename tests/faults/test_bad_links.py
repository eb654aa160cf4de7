"""A bad link in both directions: whatever it does, the upload ends whole or can be gone on with.

Breaks when: a chunk's crc is not looked at, a stalled stream is never ended, or what arrived before the cut
is not kept.
"""

from __future__ import annotations

import asyncio

import grpc
import pytest
from model_ingest._errors import ConnectionLostError

from tests.conftest import StartService
from tests.faults.children import OWN_CONNECTION, stub_of
from tests.faults.client import BEING_FINISHED, PENDING, STORED, UPLOADING, get, messages, reason_of, upload
from tests.support.files import MEBIBYTE, create_request, digest, gguf
from tests.support.proxy import Faults, Plan, TcpProxy
from tests.support.service import RunningService

DATA = gguf(4 * MEBIBYTE + 99)


async def new_file(service: RunningService) -> str:
    return (await service.ingests.CreateIngest(create_request(DATA))).files[0].name


async def until_left(service: RunningService) -> None:
    """Waits until the service has noticed that the client is gone."""
    async with asyncio.timeout(30):
        while service.service.uploads.active:
            await asyncio.sleep(0.01)


async def try_through(service: RunningService, name: str, plan: Plan, timeout: float = 30) -> str:
    """One Upload call through the proxy, from where the file stands; "" or how it ended."""
    file = (await get(service.ingests, name)).files[0]
    async with TcpProxy(service.address, lambda number: plan) as proxy:  # noqa: SIM117
        async with grpc.aio.insecure_channel(proxy.address, options=OWN_CONNECTION) as channel:
            try:
                await upload(
                    stub_of(channel), messages(name, DATA, start=file.committed_size), timeout=timeout
                )
            except grpc.aio.AioRpcError as error:
                return reason_of(error) or error.code().name
            except ConnectionLostError:
                return "LOST"
    return ""


async def ends_well(service: RunningService, name: str) -> None:
    await until_left(service)
    async with asyncio.timeout(30):
        # All bytes and `finish` may have arrived, and only the answer been lost.
        while (file := (await get(service.ingests, name)).files[0]).state in BEING_FINISHED:
            await asyncio.sleep(0.01)
    if file.state != STORED:
        assert file.state in {PENDING, UPLOADING}
        file = await upload(service.ingests, messages(name, DATA, start=file.committed_size))
    assert (file.state, file.sha256) == (STORED, digest(DATA))
    assert (service.settings.data_dir / "blobs" / digest(DATA).replace(":", "-")).read_bytes() == DATA


@pytest.mark.parametrize(
    "reset", [pytest.param(False, id="FIN", marks=pytest.mark.soak), pytest.param(True, id="RST")]
)
async def test_a_link_that_is_cut_every_mebibyte_still_gets_the_file_there(
    reset: bool, start_service: StartService
) -> None:
    service = await start_service()
    name = await new_file(service)
    committed = [0]
    for _ in range(20):
        # A link that brings all of it before the call is even opened would lose it all, every time.
        up = Faults(cut_after_bytes=MEBIBYTE + 70_000, reset=reset, bytes_per_second=4_000_000)
        ended = await try_through(service, name, Plan(up=up))
        await until_left(service)
        file = (await get(service.ingests, name)).files[0]
        if file.state == STORED:
            break
        assert ended
        assert file.committed_size >= committed[-1]
        committed.append(file.committed_size)
    assert file.state == STORED
    assert len(committed) > 3
    await ends_well(service, name)


@pytest.mark.extended_unless("60-False")
@pytest.mark.parametrize(("at", "reset"), [(60, False), (150, True), (300, False), (600, True)])
async def test_an_answer_that_is_cut_off_is_harmless(
    at: int, reset: bool, start_service: StartService
) -> None:
    service = await start_service()
    name = await new_file(service)
    # From HTTP/2's own first frames to the answer itself.
    await try_through(service, name, Plan(down=Faults(cut_after_bytes=at, reset=reset)))
    await ends_well(service, name)


@pytest.mark.extended_unless("up")
@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_half_open_link_ends_as_stalled_and_can_be_gone_on_with(
    direction: str, start_service: StartService
) -> None:
    service = await start_service(upload_idle_seconds=1)
    name = await new_file(service)
    limit = MEBIBYTE if direction == "up" else 100
    plan = Plan(**{direction: Faults(stall_after_bytes=limit)})
    file = (await get(service.ingests, name)).files[0]
    async with TcpProxy(service.address, lambda number: plan) as proxy:  # noqa: SIM117
        async with grpc.aio.insecure_channel(proxy.address, options=OWN_CONNECTION) as channel:
            call = asyncio.create_task(
                upload(stub_of(channel), messages(name, DATA, start=file.committed_size), timeout=50)
            )
            async with asyncio.timeout(30):
                while proxy.bytes_up == 0 or not service.service.uploads.active:
                    await asyncio.sleep(0.01)
            # The client still waits; the service no longer does.
            await until_left(service)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
    await ends_well(service, name)


@pytest.mark.extended
async def test_ten_bytes_a_second_are_ended_and_can_be_gone_on_with(start_service: StartService) -> None:
    service = await start_service(upload_idle_seconds=1)
    name = await new_file(service)
    ended = await try_through(service, name, Plan(up=Faults(bytes_per_second=10)), timeout=3)
    assert ended in {"UPLOAD_STALLED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "LOST"}
    await until_left(service)
    file = (await get(service.ingests, name)).files[0]
    assert file.state in {PENDING, UPLOADING}
    await ends_well(service, name)


@pytest.mark.parametrize(
    "at",
    [
        MEBIBYTE + 5,
        pytest.param(2 * MEBIBYTE + 70_001, marks=pytest.mark.soak),
        pytest.param(3 * MEBIBYTE + 13, marks=pytest.mark.soak),
    ],
)
async def test_a_flipped_byte_is_never_stored(at: int, start_service: StartService) -> None:
    service = await start_service()
    name = await new_file(service)
    ended = await try_through(service, name, Plan(up=Faults(flip_at_byte=at)), timeout=10)
    # In a chunk's bytes the crc finds it; in HTTP/2's own framing the transport does.
    assert ended
    assert ended != "DIGEST_MISMATCH"
    await ends_well(service, name)

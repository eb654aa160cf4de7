"""The proofs are looked at: a service without one safeguard is seen to break its promises, each in its way.

Breaks when: a proof of this directory could not fail. (The power cut's control is in test_power_cut.py.)
"""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from tests.conftest import StartService
from tests.faults.children import OWN_CONNECTION, Child, broken, stub_of
from tests.faults.client import Told, get, messages, reason_of, upload
from tests.faults.conftest import NewUrl
from tests.faults.invariants import check_promises_kept
from tests.faults.strace import require_strace
from tests.faults.test_every_syscall import Case
from tests.support.files import MEBIBYTE, create_request, gguf
from tests.support.proxy import Faults, Plan, TcpProxy
from tests.support.service import environment

DATA = gguf(4 * MEBIBYTE + 99)


@pytest.mark.extended
@pytest.mark.parametrize(
    "way", ["ignores failed syncs", pytest.param("repeats failed syncs", marks=pytest.mark.soak)]
)
async def test_a_sync_that_failed_and_was_passed_over_is_seen(
    way: str, tmp_path: Path, new_url: NewUrl
) -> None:
    require_strace()
    # On SQLite its own sync would be the first.
    case = Case(tmp_path, new_url("postgresql"), way)
    traced = await case.upload("error=EIO", "fdatasync", 1)
    assert traced.failed_syncs()
    assert case.told.stored
    with pytest.raises(AssertionError):
        case.check_syncs(traced)


@pytest.mark.extended
@pytest.mark.parametrize("error", ["EIO", pytest.param("ENOSPC", marks=pytest.mark.soak)])
async def test_a_write_that_failed_and_was_passed_over_is_seen(
    error: str, tmp_path: Path, sqlite_url: str, start_service: StartService
) -> None:
    require_strace()
    case = Case(tmp_path, sqlite_url, "ignores failed writes")
    traced = await case.upload(f"error={error}", "pwritev,pwritev2", 1)
    assert traced.injected
    assert case.told.stored
    service = await start_service(database_url=case.url, data_dir=case.data_dir)
    with pytest.raises(AssertionError):
        await case.check_promises(service)


async def until_killed(tmp_path: Path, variables: dict[str, str]) -> Told:
    """Half an upload, told to be committed by a service that has written none of it; then `kill -9`."""
    told = Told()
    child = broken("acknowledges before writing", variables, tmp_path / "log1")
    await child.start()
    try:
        async with child.channel() as channel:
            stub = stub_of(channel)
            told.file_name = (await stub.CreateIngest(create_request(DATA))).files[0].name
            call = stub.Upload(timeout=60)
            for message in messages(told.file_name, DATA[: 2 * MEBIBYTE], finish=False):
                await call.write(message)
            while told.most < 2 * MEBIBYTE:
                told.note((await get(stub, told.file_name)).files[0])
            await child.kill()
            call.cancel()
    finally:
        await child.kill()
    return told


@pytest.mark.extended
@pytest.mark.parametrize(
    "way",
    [pytest.param("", marks=pytest.mark.soak), "boots without the size check"],
    ids=["checked", "unchecked"],
)
async def test_bytes_that_were_acknowledged_and_not_written_are_seen(
    way: str, tmp_path: Path, sqlite_url: str
) -> None:
    variables = environment(tmp_path / "data", sqlite_url, checkpoint_bytes=MEBIBYTE, checkpoint_seconds=0.05)
    told = await until_killed(tmp_path, variables)
    log = tmp_path / "log2"
    async with broken(way, variables, log) if way else Child(variables, log) as child:
        async with child.channel() as channel:
            file = (await get(stub_of(channel), told.file_name)).files[0]
        with pytest.raises(AssertionError) as caught:
            check_promises_kept(file, told, DATA, tmp_path / "data")
    # With its size check the service says itself that they are gone; without, only the bytes tell.
    expected = "committed bytes are not the sent ones" if way else "STATE_FAILED"
    assert expected in str(caught.value)


@pytest.mark.extended
async def test_a_flipped_byte_that_no_crc_was_asked_about_is_seen(tmp_path: Path, sqlite_url: str) -> None:
    variables = environment(tmp_path / "data", sqlite_url)
    async with broken("looks at no crc", variables, tmp_path / "log") as child:
        plan = Plan(up=Faults(flip_at_byte=2 * MEBIBYTE + 70_001))
        async with TcpProxy(child.address, lambda number: plan) as proxy:  # noqa: SIM117
            async with grpc.aio.insecure_channel(proxy.address, options=OWN_CONNECTION) as channel:
                stub = stub_of(channel)
                name = (await stub.CreateIngest(create_request(DATA))).files[0].name
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await upload(stub, messages(name, DATA), timeout=60)
    # What test_bad_links.py calls wrong: it cost the whole file instead of one chunk.
    assert reason_of(caught.value) == "DIGEST_MISMATCH"

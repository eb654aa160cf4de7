"""One writer per file, across processes: stopped, publishing and several holders; a second server beside.

Breaks when: the lock is not waited for or not taken, the epoch is not re-read, the newcomer writes what the
holder still writes, a boot or a sweep touches a file that somebody holds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from model_ingest._truth import FirstStatus
from model_ingest.v1 import resources_pb2

from tests.faults.children import Child, stub_of
from tests.faults.client import STORED, UPLOADING, Told, get, messages, reason_of, resume, upload
from tests.faults.invariants import partials
from tests.support.files import MEBIBYTE, create_request, digest, gguf
from tests.support.service import environment
from tests.support.stubs import IngestStub

DATA = gguf(6 * MEBIBYTE + 17)
#: design.md: a newcomer waits at most 10 s for the lock; the rest is for a busy machine.
BOUND_SECONDS = 30


@asynccontextmanager
async def two_servers(tmp_path: Path, url: str) -> AsyncIterator[tuple[Child, Child]]:
    # No periodic work: a process that is stopped amid a transaction would hold SQLite for everybody.
    settings: dict[str, Any] = {"readiness_seconds": 300, "sweep_seconds": 3600, "checkpoint_bytes": MEBIBYTE}
    variables = environment(tmp_path / "data", url, checkpoint_seconds=0.05, **settings)
    servers = Child(variables, tmp_path / "log1"), Child(variables, tmp_path / "log2")
    try:
        for server in servers:
            await server.start()
        yield servers
    finally:
        for server in servers:
            await server.kill()


async def half_sent(stub: IngestStub, told: Told) -> Any:
    """An Upload call that stays open with half of DATA committed."""
    ingest = await stub.CreateIngest(create_request(DATA))
    told.file_name = ingest.files[0].name
    call = stub.Upload(timeout=120)
    for message in messages(told.file_name, DATA[: 3 * MEBIBYTE], finish=False):
        await call.write(message)
    async with asyncio.timeout(BOUND_SECONDS):
        while told.most < 3 * MEBIBYTE:
            told.note((await get(stub, told.file_name)).files[0])
    return call


def check_bytes(tmp_path: Path) -> None:
    assert (tmp_path / "data" / "blobs" / digest(DATA).replace(":", "-")).read_bytes() == DATA
    assert partials(tmp_path / "data") == []


async def refused_with(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return reason_of(caught.value)


@pytest.mark.extended_when("postgresql")
@pytest.mark.parametrize(
    "database_url", [pytest.param("sqlite", marks=pytest.mark.soak), "postgresql"], indirect=True
)
async def test_a_stopped_holder_makes_newcomers_wait_only_so_long_and_is_superseded_once_it_goes_on(
    tmp_path: Path, database_url: str
) -> None:
    async with two_servers(tmp_path, database_url) as (first, second):  # noqa: SIM117 (too long in one)
        async with first.channel() as near, second.channel() as far:
            told = Told()
            held = await half_sent(stub_of(near), told)
            first.stop_for_now()
            try:
                async with asyncio.timeout(BOUND_SECONDS):
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await resume(stub_of(far), told, DATA)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
                assert reason_of(caught.value) == "WRITER_BUSY"
            finally:
                first.go_on()
            assert await refused_with(held) == "WRITER_SUPERSEDED"
            async with asyncio.timeout(BOUND_SECONDS):
                assert (await resume(stub_of(far), told, DATA)).state == STORED
    check_bytes(tmp_path)


async def newcomer(stub: IngestStub, told: Told, last_word: asyncio.Event) -> resources_pb2.File | str:
    """An Upload call that holds its `finish` back until `last_word`: the file, or the reason of its end."""
    committed = (await get(stub, told.file_name)).files[0].committed_size
    *sent, finish = messages(told.file_name, DATA, start=committed)
    call = stub.Upload(timeout=120)
    first = FirstStatus(call)
    # Whatever a write says, the truth is in the call (peers.md P4).
    with contextlib.suppress(Exception):
        for message in sent:
            await call.write(message)
        while not (call.done() or last_word.is_set()):
            await asyncio.sleep(0.02)
        await call.write(finish)
        await call.done_writing()
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        return reason_of(first.truth(error))


@pytest.mark.extended
async def test_of_three_newcomers_at_once_exactly_one_goes_on_and_the_others_are_told(
    tmp_path: Path, database_url: str
) -> None:
    async with two_servers(tmp_path, database_url) as (first, second):  # noqa: SIM117 (too long in one)
        async with first.channel() as near, second.channel() as far, second.channel() as farther:
            told, last_word = Told(), asyncio.Event()
            held = await half_sent(stub_of(near), told)
            calls = {
                asyncio.create_task(newcomer(stub_of(channel), told, last_word))
                for channel in (near, far, farther)
            }
            async with asyncio.timeout(BOUND_SECONDS):
                going_on = calls
                # None of them can have finished the file: two are refused, or the wait has no end.
                while len(going_on) > 1:
                    _, going_on = await asyncio.wait(going_on, return_when=asyncio.FIRST_COMPLETED)
                assert await refused_with(held) == "WRITER_SUPERSEDED"
                last_word.set()
                ends = await asyncio.gather(*calls)
            refused = [end for end in ends if isinstance(end, str)]
            stored = [end for end in ends if not isinstance(end, str)]
            # Not WRITER_BUSY: their clients would come back and take the file from the last one.
            assert refused == ["WRITER_SUPERSEDED"] * 2
            assert [(file.state, file.sha256) for file in stored] == [(STORED, digest(DATA))]
    check_bytes(tmp_path)


@pytest.mark.extended
async def test_a_second_server_that_comes_and_goes_touches_no_live_upload(
    tmp_path: Path, database_url: str
) -> None:
    variables = environment(
        tmp_path / "data", database_url, checkpoint_bytes=MEBIBYTE, checkpoint_seconds=0.05, sweep_seconds=0.1
    )
    first = Child(variables, tmp_path / "log1")
    try:
        await first.start()
        async with first.channel() as near:
            told = Told()
            held = await half_sent(stub_of(near), told)
            # Also a file that has a row and no byte yet.
            silent = await stub_of(near).CreateIngest(create_request(DATA, "silent"))
            opened = stub_of(near).Upload(timeout=120)
            await opened.write(messages(silent.files[0].name, b"", finish=False)[0])
            for number in range(2):
                second = Child(variables, tmp_path / f"log2-{number}")
                async with second:
                    async with second.channel() as far:
                        assert (await get(stub_of(far), told.file_name)).files[0].state == UPLOADING
                    if number:
                        assert await second.kill(15) == 0
            for message in messages(told.file_name, DATA, start=3 * MEBIBYTE):
                await held.write(message) if message.WhichOneof("message") != "start" else None
            await held.done_writing()
            assert (await held).state == STORED
            for message in messages(silent.files[0].name, DATA)[1:]:
                await opened.write(message)
            await opened.done_writing()
            assert (await opened).state == STORED
    finally:
        await first.kill()
    check_bytes(tmp_path)


@pytest.mark.extended
async def test_the_same_bytes_by_two_clients_on_two_servers_end_well_and_are_kept_once(
    tmp_path: Path, database_url: str
) -> None:
    async with two_servers(tmp_path, database_url) as servers:

        async def one(server: Child, name: str) -> int:
            async with server.channel() as channel:
                stub = stub_of(channel)
                ingest = await stub.CreateIngest(create_request(DATA, name, sha256=digest(DATA)))
                return (await upload(stub, messages(ingest.files[0].name, DATA))).state

        assert (
            await asyncio.gather(*(one(server, f"m{n}") for n, server in enumerate(servers))) == [STORED] * 2
        )
    check_bytes(tmp_path)

"""A holder that stands still while it publishes: others wait, within bounds, and take nothing for lost.

Breaks when: a lock that cannot be had in time is taken for lost bytes (the file would fail for good), or a
boot beside it renames or removes what it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import grpc
import pytest
from model_ingest.v1 import resources_pb2

from tests.faults.children import Child, stub_of
from tests.faults.client import STORED, get, messages, upload
from tests.faults.invariants import blob_names, partials, quarantined
from tests.support.files import MEBIBYTE, create_request, digest, gguf
from tests.support.service import environment

DATA = gguf(2 * MEBIBYTE + 5)


@pytest.mark.extended
@pytest.mark.parametrize(
    ("step", "waits"),
    [
        ("rename", {}),
        # That it waits in vain is the point; how long is only told to the soak.
        ("dirsync", {"LOCK_WAIT_SECONDS": "1"}),
        pytest.param("dirsync", {}, marks=pytest.mark.soak),
    ],
    ids=["rename", "dirsync", "dirsync-10s"],
)
async def test_a_publisher_that_stands_still_loses_nothing_to_a_server_that_boots_beside_it(
    step: str, waits: dict[str, str], tmp_path: Path, sqlite_url: str
) -> None:
    data_dir = tmp_path / "data"
    variables = environment(data_dir, sqlite_url, sweep_seconds=3600, readiness_seconds=300)
    first = Child({**variables, "STOP_AT": step}, tmp_path / "log1", "-m", "tests.faults.stop_server")
    second = Child({**variables, **waits}, tmp_path / "log2", "-m", "tests.faults.stop_server")
    sending = None
    try:
        await first.start()
        async with first.channel() as near:
            ingest = await stub_of(near).CreateIngest(create_request(DATA))
            name = ingest.files[0].name
            sending = asyncio.create_task(upload(stub_of(near), messages(name, DATA), timeout=120))
            async with asyncio.timeout(30):
                while b"STOPPED" not in first.log.read_bytes():
                    await asyncio.sleep(0.02)
            # Its boot finds a row that says PUBLISHING, and waits for the lock no longer than it may.
            await second.start(timeout_seconds=60)
            async with second.channel() as far:
                seen = await get(stub_of(far), name)
                assert seen.files[0].state == resources_pb2.File.STATE_PUBLISHING, seen
                assert seen.state == resources_pb2.Ingest.STATE_UPLOADING
                first.go_on()
                assert (await sending).state == STORED
                after = await get(stub_of(far), name)
                assert after.state == resources_pb2.Ingest.STATE_STORED
    finally:
        first.go_on()
        await first.kill()
        await second.kill()
        if sending is not None:
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
                await sending
    assert blob_names(data_dir) == {digest(DATA).replace(":", "-")}
    assert (partials(data_dir), quarantined(data_dir)) == ([], [])

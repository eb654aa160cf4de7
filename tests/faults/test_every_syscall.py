"""A kill and an error at the Nth write, sync and rename of an upload, for N from 1 until it completes.

Breaks when: an acknowledgement is given before the bytes are durable and right, a failed sync is asked again,
or an error leaves something that a later push of the same file stumbles over.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest
from model_ingest._errors import ConnectionLostError
from model_ingest.v1 import errors_pb2

from tests.conftest import StartService
from tests.faults.children import Child, stub_of
from tests.faults.client import Told, get, messages, upload
from tests.faults.invariants import check_ends_well, check_promises_kept
from tests.faults.strace import Strace, require_strace
from tests.support.files import create_request, gguf
from tests.support.service import environment

DATA = gguf(256 * 1024)
KILL = "signal=KILL"
CALLS = ("write", "pwrite64", "pwritev,pwritev2", "fsync", "fdatasync", "rename")
BROKEN_CALLS = ("pwritev,pwritev2", "fdatasync", "fsync", "rename")
QUICK = [
    (KILL, "pwritev,pwritev2", 1), (KILL, "fdatasync", 3), (KILL, "fsync", 1), (KILL, "rename", 1),
    ("error=EIO", "pwritev,pwritev2", 1), ("error=EIO", "fdatasync", 1), ("error=EIO", "fsync", 1),
    ("error=EIO", "rename", 1), ("error=ENOSPC", "pwritev,pwritev2", 1), ("error=ENOSPC", "fdatasync", 1),
]  # fmt: skip
#: No upload of this size comes near it.
MOST = 200


async def one_case(fault: str, call: str, number: int, tmp_path: Path, start_service: StartService) -> int:
    """One upload with one fault; answers how many faults were really put in."""
    data_dir, told, request_id = tmp_path / "data", Told(), str(uuid.uuid4())
    url = f"sqlite+aiosqlite:///{tmp_path / 'ingest.db'}"
    # Nothing periodic, and few threads: what is counted is the upload.
    settings: dict[str, Any] = {"readiness_seconds": 300, "sweep_seconds": 3600, "file_threads": 2}
    child = Child(environment(data_dir, url, **settings), tmp_path / "log")
    await child.start()
    try:
        assert child.process is not None
        async with child.channel() as channel:
            stub = stub_of(channel)
            ingest = await stub.CreateIngest(create_request(DATA, request_id=request_id))
            told.file_name = ingest.files[0].name
            async with Strace(child.process.pid, call, fault, number, tmp_path / "strace") as traced:
                try:
                    told.note(await upload(stub, messages(told.file_name, DATA, chunk_bytes=65536)))
                except grpc.aio.AioRpcError as error:
                    assert error.code() is not grpc.StatusCode.UNKNOWN, error  # noqa: PT017
                except ConnectionLostError:
                    pass
            if fault != KILL or child.process.returncode is None:
                try:
                    told.note((await get(stub, told.file_name)).files[0])
                except grpc.aio.AioRpcError:
                    assert fault == KILL
    finally:
        await child.kill()
    assert traced.syncs_after_failure() == {}
    service = await start_service(database_url=url, data_dir=data_dir)
    ingest = await get(service.ingests, told.file_name)
    if ingest.failure.reason == errors_pb2.STORAGE_FULL:
        # Final by design: the same push begins anew.
        assert not told.stored
        told, request_id = Told(), str(uuid.uuid4())
    else:
        check_promises_kept(ingest.files[0], told, DATA, data_dir)
    await check_ends_well(service.ingests, told, DATA, data_dir, request_id=request_id)
    await service.service.stop(0.0)
    return traced.injected


@pytest.mark.parametrize(("fault", "call", "number"), QUICK)
async def test_a_fault_at_this_call_costs_no_acknowledged_byte(
    fault: str, call: str, number: int, tmp_path: Path, start_service: StartService
) -> None:
    require_strace()
    assert await one_case(fault, call, number, tmp_path, start_service) >= 1, "the fault was never put in"


@pytest.mark.soak
@pytest.mark.parametrize(
    ("fault", "call"),
    [(KILL, call) for call in CALLS]
    + [(fault, call) for fault in ("error=EIO", "error=ENOSPC") for call in BROKEN_CALLS],
)
async def test_a_fault_at_every_such_call_until_the_upload_completes(
    fault: str, call: str, tmp_path: Path, start_service: StartService
) -> None:
    require_strace()
    for number in range(1, MOST):
        here = tmp_path / str(number)
        here.mkdir()
        if not await one_case(fault, call, number, here, start_service):
            print(f"{fault} {call}: {number - 1} times")
            assert number > 1
            return
    pytest.fail("the upload never completed")

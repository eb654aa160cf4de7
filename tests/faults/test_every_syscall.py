"""A kill and an error at the Nth write, sync and rename of an upload, for N from 1 until it completes.

Breaks when: an acknowledgement is given before the bytes are durable and right, a failed sync is asked again,
or an error leaves something that a later push of the same file stumbles over.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from model_ingest._errors import ConnectionLostError
from model_ingest.v1 import errors_pb2

from tests.conftest import StartService
from tests.faults.children import Child, broken, stub_of
from tests.faults.client import Told, get, messages, upload
from tests.faults.conftest import NewUrl
from tests.faults.invariants import check_ends_well, check_promises_kept
from tests.faults.strace import Strace, require_strace
from tests.support.files import create_request, gguf
from tests.support.service import RunningService, environment
from tests.support.stubs import IngestStub

DATA = gguf(256 * 1024)
KILL = "signal=KILL"
CALLS = ("write", "pwrite64", "pwritev,pwritev2", "fsync", "fdatasync", "rename")
BROKEN_CALLS = ("pwritev,pwritev2", "fdatasync", "fsync", "rename")
#: Fault, call, number, database, and what the broken call was on. strace counts for each thread by itself,
#: and SQLite's own fdatasync is always the first: only without it is the partial's reached.
QUICK = [
    (KILL, "pwritev,pwritev2", 1, "sqlite", ".part"),
    ("error=EIO", "pwritev,pwritev2", 1, "sqlite", ".part"),
    ("error=EIO", "fdatasync", 1, "postgresql", ".part"),
    ("error=EIO", "fdatasync", 1, "sqlite", "ingest.db"),
    ("error=EIO", "fsync", 1, "sqlite", "uploads"), ("error=EIO", "rename", 1, "sqlite", ".part"),
]  # fmt: skip
#: Only SQLite writes with it.
NOT_IN_USE = {("postgresql", "pwrite64")}
#: No upload of this size comes near it.
MOST = 200


@dataclass
class Case:
    """One upload with one fault; nothing periodic and few threads, so that what is counted is the upload."""

    tmp_path: Path
    url: str
    #: One of broken_server.py's, for the controls.
    way: str = ""
    told: Told = field(default_factory=Told)
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def data_dir(self) -> Path:
        return self.tmp_path / "data"

    async def upload(self, fault: str, call: str, number: int) -> Strace:
        """Ends with the child's death; the promises that it made are in `told`."""
        settings: dict[str, Any] = {"readiness_seconds": 300, "sweep_seconds": 3600, "file_threads": 2}
        variables, log = environment(self.data_dir, self.url, **settings), self.tmp_path / "log"
        child = broken(self.way, variables, log) if self.way else Child(variables, log)
        await child.start()
        try:
            assert child.process is not None
            async with child.channel() as channel:
                stub = stub_of(channel)
                ingest = await stub.CreateIngest(create_request(DATA, request_id=self.request_id))
                self.told.file_name = ingest.files[0].name
                strace = Strace(child.process.pid, call, fault, number, self.tmp_path / "strace")
                async with strace as traced:
                    await self._send(stub)
                if fault != KILL or child.process.returncode is None:
                    try:
                        self.told.note((await get(stub, self.told.file_name)).files[0])
                    except grpc.aio.AioRpcError:
                        assert fault == KILL
        finally:
            await child.kill()
        return traced

    async def _send(self, stub: IngestStub) -> None:
        try:
            self.told.note(await upload(stub, messages(self.told.file_name, DATA, chunk_bytes=65536)))
        except grpc.aio.AioRpcError as error:
            assert error.code() is not grpc.StatusCode.UNKNOWN, error  # noqa: PT017
        except ConnectionLostError:
            pass

    def check_syncs(self, traced: Strace) -> None:
        """A failed sync is never asked again, and never passed over."""
        assert traced.syncs_after_failure() == {}
        assert not (traced.failed_syncs() and self.told.stored), "stored in spite of a failed sync"

    async def check_promises(self, service: RunningService) -> None:
        file = (await get(service.ingests, self.told.file_name)).files[0]
        check_promises_kept(file, self.told, DATA, self.data_dir)


def url_in(kind: str, tmp_path: Path, new_url: NewUrl) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'ingest.db'}" if kind == "sqlite" else new_url(kind)


async def one_case(fault: str, call: str, number: int, case: Case, start_service: StartService) -> Strace:
    """One upload with one fault, and the same push again; answers what was seen of the fault."""
    traced = await case.upload(fault, call, number)
    case.check_syncs(traced)
    service = await start_service(database_url=case.url, data_dir=case.data_dir)
    ingest = await get(service.ingests, case.told.file_name)
    told, request_id = case.told, case.request_id
    if ingest.failure.reason == errors_pb2.STORAGE_FULL:
        # Final by design: the same push begins anew.
        assert not told.stored
        told, request_id = Told(), str(uuid.uuid4())
    else:
        await case.check_promises(service)
    await check_ends_well(service.ingests, told, DATA, case.data_dir, request_id=request_id)
    await service.service.stop(0.0)
    return traced


@pytest.mark.extended_unless("signal=KILL-pwritev")
@pytest.mark.parametrize(("fault", "call", "number", "kind", "on"), QUICK)
async def test_a_fault_at_this_call_costs_no_acknowledged_byte(
    fault: str, call: str, number: int, kind: str, on: str, tmp_path: Path, new_url: NewUrl,
    start_service: StartService,
) -> None:  # fmt: skip
    require_strace()
    case = Case(tmp_path, url_in(kind, tmp_path, new_url))
    traced = await one_case(fault, call, number, case, start_service)
    assert any(on in line for line in traced.broken_calls()), "the fault was never put in there"


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize(
    ("fault", "call"),
    [(KILL, call) for call in CALLS]
    + [(fault, call) for fault in ("error=EIO", "error=ENOSPC") for call in BROKEN_CALLS],
)
async def test_a_fault_at_every_such_call_until_the_upload_completes(
    fault: str, call: str, kind: str, tmp_path: Path, new_url: NewUrl, start_service: StartService
) -> None:
    require_strace()
    for number in range(1, MOST):
        here = tmp_path / str(number)
        here.mkdir()
        case = Case(here, url_in(kind, here, new_url))
        if not (await one_case(fault, call, number, case, start_service)).injected:
            print(f"{fault} {call}: {number - 1} times")
            assert number > 1 or (kind, call) in NOT_IN_USE
            return
    pytest.fail("the upload never completed")

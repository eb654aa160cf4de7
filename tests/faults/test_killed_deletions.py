"""`kill -9` at every step of a DeleteModel, then a boot: the model is as it was, or it is gone whole.

Breaks when: the catalog forgets before the targets were asked, marks blobs in another transaction, removes
bytes before that is committed, or leaves what nothing finishes.
"""

from __future__ import annotations

import signal
from pathlib import Path

import grpc
import pytest
from model_ingest.v1.catalog_service_pb2 import DeleteModelRequest

from tests.conftest import StartService
from tests.faults.children import Child
from tests.faults.conftest import NewUrl
from tests.faults.invariants import quarantined
from tests.faults.killable_deletion import STEPS
from tests.ollama_emulator import OllamaEmulator
from tests.rpc.catalog import assert_gone, blobs, delete, digests, get_model, notices
from tests.support.files import gguf, push
from tests.support.service import environment
from tests.support.stubs import catalog_stub, ingest_stub

ONE, TWO, SHARED = gguf(2000, seed=1), gguf(3000, seed=2), gguf(4000, seed=3)
#: Up to here the transaction is not committed.
NOT_YET = {"turn", "target", "lock", "mark"}
#: Those around the commit always, on one kind of database each; all of them on both in `make soak`.
ALWAYS = {("target:after", "postgresql"), ("mark:after", "sqlite"), ("bytes:before", "postgresql")}
CASES = [
    pytest.param(point, kind, marks=() if (point, kind) in ALWAYS else pytest.mark.soak)
    for point in (f"{step}:{phase}" for step in STEPS for phase in ("before", "after"))
    for kind in ("sqlite", "postgresql")
]


@pytest.mark.extended
@pytest.mark.parametrize(("point", "kind"), CASES)
async def test_a_deletion_that_is_killed_is_done_whole_or_not_at_all(
    point: str,
    kind: str,
    new_url: NewUrl,
    tmp_path: Path,
    emulator: OllamaEmulator,
    start_service: StartService,
) -> None:
    url, data_dir, targets = new_url(kind), tmp_path / "data", f"default={emulator.url}"
    variables = environment(data_dir, url, targets, lease_seconds=1)
    child = Child(
        {**variables, "FAULT_POINT": point}, tmp_path / "log", "-m", "tests.faults.killable_deletion"
    )
    await child.start()
    try:
        async with child.channel() as channel:
            stub = ingest_stub(channel)
            await push(stub, SHARED, "kept")
            await push(stub, SHARED, "m", store_only=True)
            await push(stub, ONE, "m", store_only=True)
            newest = await push(stub, TWO, "m")
            with pytest.raises(grpc.aio.AioRpcError):
                await catalog_stub(channel).DeleteModel(
                    DeleteModelRequest(name="models/m", all_targets=True), timeout=60
                )
        assert await child.ended() == -signal.SIGKILL
    finally:
        await child.kill()
    assert f"KILLED AT {point}" in child.log.read_text(), "the point was never come by"
    running = await start_service(targets, database_url=url, data_dir=data_dir, lease_seconds=1)
    step = point.partition(":")[0]
    if step in NOT_YET:
        assert (await get_model(running)).ingest == newest.name
        assert blobs(running) == digests(ONE, TWO, SHARED)
        has_it = step == "turn" or point == "target:before"
        assert ("m" in emulator.models) == has_it
        assert (await delete(running, all_targets=True)).targets[0].removed == has_it
    else:
        assert await running.service.sweeper.run() is not None
    await assert_gone(running)
    assert blobs(running) == digests(SHARED)
    assert quarantined(data_dir) == []
    assert (await notices(running, newest.name))[-1].startswith("The model was deleted from the catalog.")
    assert list(emulator.models) == ["kept:latest"]
    known = await running.service.database.read(lambda tx: tx.blobs.some(sorted(digests(ONE, TWO, SHARED))))
    assert set(known) == digests(SHARED)

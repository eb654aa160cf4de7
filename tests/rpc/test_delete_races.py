"""DeleteModel against whatever else may happen at the same moment, in this process and in another one.

Breaks when: the turn is not taken, not renewed, or the model not looked at again once it is had; when bytes
go that somebody took a reference to meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import pytest
from model_ingest.v1 import resources_pb2
from sqlalchemy import text

from ingest_service.storage import LocalBlobStore
from tests.conftest import StartService
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.rpc.catalog import READY, assert_gone, blobs, delete, digests, done, get_model, notices
from tests.rpc.refusals import refused
from tests.support.files import create_request, digest, gguf, push, send, upload_messages
from tests.support.service import RunningService

pytestmark = pytest.mark.extended_when("postgresql")

ONE, TWO = gguf(2000, seed=1), gguf(3000, seed=2)


@pytest.fixture
async def running(start_service: StartService, emulator: OllamaEmulator, database_url: str) -> RunningService:
    service: RunningService = await start_service(
        f"default={emulator.url}", database_url=database_url, lease_seconds=1
    )
    return service


async def _owner_and_end(running: RunningService) -> tuple[str, int]:
    """Whose turn it is on the target, and how long."""
    async with running.service.database.engine.begin() as connection:
        row = (await connection.execute(text("SELECT lease_owner, lease_until_us FROM targets"))).one()
    return str(row[0]), int(row[1] or 0)


async def test_a_push_of_the_same_name_meanwhile_keeps_what_it_brought(
    running: RunningService, emulator: OllamaEmulator
) -> None:
    """Its create waits for the removal, however long that takes; the catalog then knows both."""
    await push(running.ingests, ONE, "m")
    stall = emulator.faults.add(Fault("stall", "delete"))
    deleting = asyncio.create_task(delete(running, all_targets=True))
    await stall.wait_stalled()
    second = await running.ingests.CreateIngest(create_request(TWO, "m"))
    await send(running.ingests, upload_messages(second.files[0].name, TWO))
    # The turn is renewed: held for longer than its length, by the database's clock.
    owner, began = await _owner_and_end(running)
    assert owner.startswith("delete/")
    async with asyncio.timeout(30):
        while (await _owner_and_end(running))[1] < began + 1_500_000:
            await asyncio.sleep(0.05)
    assert len(emulator.calls.named("create")) == 1
    stall.release()
    await refused(deleting, "MODEL_BUSY")
    assert (await done(running, second.name)).deployments[0].state == READY
    model = await get_model(running)
    assert (model.ingest, list(model.earlier_digests)) == (second.name, [digest(ONE)])
    assert "m" in emulator.models
    assert blobs(running) == digests(ONE, TWO)
    assert (await delete(running, all_targets=True)).targets[0].removed
    assert blobs(running) == set()


async def test_what_began_before_the_turn_was_had_is_found_once_it_is(
    running: RunningService, emulator: OllamaEmulator
) -> None:
    """Else the target would be asked to remove what the catalog has just told to be READY."""
    await push(running.ingests, ONE, "m")
    transact = running.service.database.transact
    assert await transact(lambda tx: tx.targets.take_turn("default", "another process", 60))
    deleting = asyncio.create_task(delete(running, all_targets=True))
    await _asked_for_the_turn(running)
    pushed = await push(running.ingests, TWO, "m", store_only=True)
    await transact(lambda tx: tx.targets.end_turn("default", "another process"))
    refusal = await refused(deleting, "MODEL_BUSY")
    assert refusal.metadata == {"ingest": pushed.name.removeprefix("ingests/")}
    assert emulator.calls.named("delete") == []
    assert (await get_model(running)).ingest == pushed.name


async def _asked_for_the_turn(running: RunningService) -> None:
    """Somebody has looked at the turn, and did not get it."""
    targets = running.service.removal._targets
    seen, real = asyncio.Event(), targets._database.transact

    async def transact(work: Callable[..., Awaitable[object]]) -> object:
        answer = await real(work)
        if answer is False:
            seen.set()
        return answer

    targets._database.transact = transact  # type: ignore[method-assign, assignment]
    try:
        async with asyncio.timeout(30):
            await seen.wait()
    finally:
        targets._database.transact = real  # type: ignore[method-assign]


@pytest.mark.extended_when("postgresql")
async def test_a_create_of_another_process_goes_first(
    running: RunningService, start_service: StartService, emulator: OllamaEmulator, database_url: str
) -> None:
    other = await start_service(f"default={emulator.url}", database_url=database_url, lease_seconds=1)
    await push(running.ingests, ONE, "m")
    stall = emulator.faults.add(Fault("stall", "create", after_line=1))
    creating = await other.ingests.CreateIngest(create_request(ONE, "other", sha256=digest(ONE)))
    await stall.wait_stalled()
    running.service.removal._targets._turn_seconds = 1.5
    refusal = await refused(delete(running, all_targets=True), "TARGET_UNREACHABLE")
    assert refusal.message.startswith("target default: A model is being created or removed there")
    assert emulator.calls.named("delete") == []
    assert (await get_model(running)).name == "models/m:latest"
    stall.release()
    await done(other, creating.name)
    assert (await delete(running, all_targets=True)).targets[0].removed
    assert list(emulator.models) == ["other:latest"]
    assert blobs(running) == digests(ONE)


async def test_two_at_once_are_one(running: RunningService, emulator: OllamaEmulator) -> None:
    ingest = await push(running.ingests, ONE, "m")
    outcomes = await asyncio.gather(
        *(delete(running, all_targets=True) for _ in range(4)), return_exceptions=True
    )
    for outcome in outcomes:
        if isinstance(outcome, grpc.aio.AioRpcError):
            await refused(_raising(outcome), "MODEL_NOT_FOUND")
    answers = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert sum(one.removed for answer in answers for one in answer.targets) == 1
    assert {answer.model.ingest for answer in answers} == {ingest.name}
    assert len([words for words in await notices(running, ingest.name) if "deleted" in words]) == 1
    await assert_gone(running)
    assert blobs(running) == set()
    assert list(emulator.models) == []


async def _raising(error: BaseException) -> None:
    raise error


async def test_the_same_bytes_pushed_between_the_catalog_and_the_store(
    running: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are asked for anew, and the removal, which comes late, leaves them."""
    await push(running.ingests, ONE, "m", store_only=True)
    reached, go_on, real = asyncio.Event(), asyncio.Event(), LocalBlobStore.remove_blob

    async def late(store: LocalBlobStore, sha256: str, unwanted: Callable[[], Awaitable[bool]]) -> bool:
        reached.set()
        await go_on.wait()
        return await real(store, sha256, unwanted)

    monkeypatch.setattr(LocalBlobStore, "remove_blob", late)
    deleting = asyncio.create_task(delete(running))
    await reached.wait()
    await assert_gone(running)
    again = await running.ingests.CreateIngest(
        create_request(ONE, "new", sha256=digest(ONE), store_only=True)
    )
    assert again.files[0].state == resources_pb2.File.STATE_PENDING
    file = await send(running.ingests, upload_messages(again.files[0].name, ONE))
    assert file.state == resources_pb2.File.STATE_STORED
    go_on.set()
    await deleting
    assert blobs(running) == digests(ONE)
    assert (await get_model(running, "new")).ingest == again.name


async def test_a_reference_taken_at_the_same_moment_has_its_bytes(running: RunningService) -> None:
    """Over and over: the new ingest is told "stored" and its bytes stay, or it is told to send them."""
    told = set()
    for number in range(5):
        await push(running.ingests, ONE, "m", store_only=True)
        created, _ = await asyncio.gather(
            running.ingests.CreateIngest(
                create_request(ONE, f"n{number}", sha256=digest(ONE), store_only=True)
            ),
            delete(running),
        )
        told.add(created.files[0].state)
        if created.files[0].state == resources_pb2.File.STATE_STORED:
            assert blobs(running) == digests(ONE), number
        else:
            assert blobs(running) == set(), number
            await send(running.ingests, upload_messages(created.files[0].name, ONE))
        await delete(running, f"n{number}")
        assert blobs(running) == set(), number
    print(f"told: {told}")

"""DeleteModel: from the targets, from the catalog, and the bytes that nobody else needs.

Breaks when: a busy model is deleted, the catalog forgets before a target was asked, a shared blob goes,
one that is not shared stays, or a deleted ingest comes to life again.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import (
    CancelIngestRequest,
    CreateIngestRequest,
    FileSpec,
    GetIngestRequest,
    ListIngestsRequest,
    RetryIngestRequest,
)
from sqlalchemy import text

from ingest_service.app import now
from tests.conftest import StartService
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.rpc.catalog import (
    READY,
    assert_gone,
    blobs,
    delete,
    digests,
    done,
    events,
    get_model,
    notices,
)
from tests.rpc.refusals import refused
from tests.support.files import create_request, digest, gguf, push, send, upload_messages
from tests.support.service import RunningService

pytestmark = pytest.mark.extended_when("postgresql")

ONE, TWO, THREE = gguf(2000, seed=1), gguf(3000, seed=2), gguf(4000, seed=3)


@pytest.fixture
async def running(start_service: StartService, emulator: OllamaEmulator, database_url: str) -> RunningService:
    """A service on each database."""
    service: RunningService = await start_service(f"default={emulator.url}", database_url=database_url)
    return service


@pytest.fixture
async def simple(start_service: StartService, emulator: OllamaEmulator) -> RunningService:
    """For what has nothing to do with the kind of database."""
    service: RunningService = await start_service(f"default={emulator.url}")
    return service


@pytest.mark.extended_unless("0.24.0")
@pytest.mark.parametrize("version", ["0.24.0", "0.33.0", "0.34.1", "0.40.0"])
async def test_from_the_target_the_catalog_and_the_store_in_every_era(
    version: str, start_service: StartService, tmp_path: Path
) -> None:
    async with OllamaEmulator(version=version, data_dir=tmp_path / "ollama") as emulator:
        running = await start_service(f"default={emulator.url}")
        await push(running.ingests, ONE, "Team/Foo:Big")
        assert "team/foo:big" in emulator.models
        before = await get_model(running, "team/foo:big")
        answer = await delete(running, "TEAM/foo:BIG", all_targets=True)
        assert answer.model == before
        assert [(one.target, one.removed) for one in answer.targets] == [("default", True)]
        assert list(emulator.models) == []
        assert blobs(running) == set()
        await assert_gone(running, "team/foo:big")
        await refused(delete(running, "team/foo:big"), "MODEL_NOT_FOUND")


async def test_its_ingests_stay_as_history_and_come_to_life_no_more(
    running: RunningService, emulator: OllamaEmulator
) -> None:
    request_id = "one-and-the-same"
    older = await push(running.ingests, ONE, "m", request_id=request_id)
    newer = await push(running.ingests, TWO, "M:Latest")
    last = (await events(running, newer.name))[-1].sequence
    assert [one.target for one in (await delete(running, targets=["default"])).targets] == ["default"]
    assert blobs(running) == set()
    for ingest in (older, newer):
        after = await running.ingests.GetIngest(GetIngestRequest(name=ingest.name))
        assert (after.state, after.done) == (ingest.state, True)
        # Older clients see the state as it was; whoever asks sees that the model is gone.
        assert not ingest.HasField("model_deleted_time")
        assert after.model_deleted_time == after.update_time
        assert (await notices(running, ingest.name))[-1] == (
            "The model was deleted from the catalog. It was removed from default."
        )
        await refused(running.ingests.RetryIngest(RetryIngestRequest(name=ingest.name)), "BYTES_MISSING")
        cancelled = await running.ingests.CancelIngest(CancelIngestRequest(name=ingest.name))
        assert cancelled == after
    told = (await events(running, newer.name))[last:]
    assert [one.WhichOneof("kind") for one in told] == ["notice", "deployment_state"]
    assert told[-1].deployment_state.state == resources_pb2.Deployment.STATE_LOST
    same = await running.ingests.CreateIngest(create_request(ONE, "m", request_id=request_id))
    assert same.name == older.name
    listed = await running.ingests.ListIngests(ListIngestsRequest(model="m"))
    assert [one.name for one in listed.ingests] == [newer.name, older.name]
    assert all(one.HasField("model_deleted_time") for one in listed.ingests)
    # Pushed again it begins anew.
    again = await push(running.ingests, ONE, "m")
    assert again.state == resources_pb2.Ingest.STATE_READY
    model = await get_model(running)
    assert (model.ingest, list(model.earlier_digests)) == (again.name, [])
    assert "m" in emulator.models
    assert blobs(running) == digests(ONE)


async def test_without_targets_none_is_asked(simple: RunningService, emulator: OllamaEmulator) -> None:
    ingest = await push(simple.ingests, ONE, "m")
    assert list((await delete(simple)).targets) == []
    assert emulator.calls.named("delete") == []
    assert "m" in emulator.models
    assert await notices(simple, ingest.name) == ["The model was deleted from the catalog."]


@pytest.mark.extended
async def test_a_target_that_has_no_such_model_is_no_error(
    simple: RunningService, emulator: OllamaEmulator
) -> None:
    await push(simple.ingests, ONE, "m")
    emulator.models.remove(emulator.models["m"].name)
    answer = await delete(simple, targets=["default"], all_targets=True)
    assert [(one.target, one.removed) for one in answer.targets] == [("default", False)]
    await assert_gone(simple)


async def test_one_on_its_way_to_a_target_is_busy(running: RunningService, emulator: OllamaEmulator) -> None:
    await push(running.ingests, ONE, "m")
    stall = emulator.faults.add(Fault("stall", "create", after_line=1))
    second = await running.ingests.CreateIngest(create_request(ONE, "M", sha256=digest(ONE)))
    await stall.wait_stalled()
    for fields in ({}, {"all_targets": True}, {"targets": ["default"]}):
        refusal = await refused(delete(running, **fields), "MODEL_BUSY")
        ingest_id = second.name.removeprefix("ingests/")
        assert refusal.metadata == {"ingest": ingest_id, "target": "default"}
        assert ingest_id in refusal.message
        assert "cancel" in refusal.message
    assert emulator.calls.named("delete") == []
    assert (await get_model(running)).ingest == second.name
    stall.release()
    await done(running, second.name)
    await delete(running, all_targets=True)
    await assert_gone(running)
    assert list(emulator.models) == []


async def test_targets_that_are_not_there(
    simple: RunningService, start_service: StartService, emulator: OllamaEmulator
) -> None:
    await push(simple.ingests, ONE, "m")
    await refused(delete(simple, targets=["default", "nowhere"]), "TARGET_UNKNOWN", "targets[1]")
    await refused(delete(simple, "none", targets=["nowhere"]), "TARGET_UNKNOWN", "targets[0]")
    await refused(delete(simple, "none"), "MODEL_NOT_FOUND")
    await refused(delete(simple, "?"), "NAME_INVALID", "name")
    await refused(delete(simple, targets=["default"] * 1025), "ARGUMENT_INVALID", "targets")
    await simple.service.stop(0.0)
    # It was deployed where nobody can ask any more: not passed over in silence.
    other = await start_service(f"new={emulator.url}")
    refusal = await refused(delete(other, all_targets=True), "TARGET_UNKNOWN", "all_targets")
    assert "default" in refusal.message
    assert (await delete(other)).model.name == "models/m:latest"


NO = {
    "an error of its own": Fault("respond", "delete", status=500, body='{"error":"disk says no"}'),
    "a proxy that lets nobody in": Fault("respond", "delete", status=403, body="no"),
    "a proxy that knows no such path": Fault("respond", "delete", status=404, body="404 page not found"),
    "no answer": Fault("hang_up", "delete"),
    "a reset": Fault("reset", "delete"),
    "done, and no answer": Fault("hang_up", "delete", takes_effect=True),
}


@pytest.mark.extended_unless("done")
@pytest.mark.parametrize("case", NO)
async def test_a_target_that_cannot_be_asked_leaves_the_catalog_as_it_was(
    case: str, start_service: StartService, emulator: OllamaEmulator, tmp_path: Path
) -> None:
    async with OllamaEmulator(version="0.24.0", data_dir=tmp_path / "other") as other:
        running = await start_service(f"good={emulator.url},bad={other.url}")
        ingest = await push(running.ingests, ONE, "m")
        before = await get_model(running)
        other.faults.add(NO[case])
        refusal = await refused(delete(running, all_targets=True), "TARGET_UNREACHABLE")
        assert refusal.message.startswith("target bad: ")
        assert "Nothing was removed from the catalog, but the model is gone from good: call again." in (
            refusal.message
        )
        assert refusal.metadata == {"target": "bad"}
        # What is gone is not called READY any more; the rest is as it was.
        _, bad = before.deployments
        after = await get_model(running)
        assert [one.state for one in after.deployments] == [resources_pb2.Deployment.STATE_LOST, READY]
        assert after.deployments[1] == bad
        assert after.deployments[0].failure.message == "DeleteModel removed the model from this target."
        assert (after.ingest, after.files) == (before.ingest, before.files)
        assert blobs(running) == digests(ONE)
        assert await notices(running, ingest.name) == ["It was removed from good."]
        answer = await delete(running, all_targets=True)
        had_it = "takes_effect" if case.startswith("done") else ""
        assert [(one.target, one.removed) for one in answer.targets] == [
            ("good", False),
            ("bad", not had_it),
        ]
        assert len(emulator.models) == len(other.models) == 0
        await assert_gone(running)


async def test_after_the_catalog_forgot_it_targets_that_have_it_still_can_be_named(
    running: RunningService, emulator: OllamaEmulator
) -> None:
    ingest = await push(running.ingests, ONE, "Team/M")
    await delete(running, "team/m")
    assert "team/m" in emulator.models
    await refused(delete(running, "team/m"), "MODEL_NOT_FOUND")
    emulator.faults.add(Fault("hang_up", "delete"))
    await refused(delete(running, "team/m", targets=["default"]), "TARGET_UNREACHABLE")
    answer = await delete(running, "team/m", targets=["default"])
    assert [(one.target, one.removed) for one in answer.targets] == [("default", True)]
    assert not answer.HasField("model")
    assert list(emulator.models) == []
    after = await running.ingests.GetIngest(GetIngestRequest(name=ingest.name))
    # Its state is that of its days; its deployment says that nothing is there.
    assert after.state == resources_pb2.Ingest.STATE_READY
    assert [one.state for one in after.deployments] == [resources_pb2.Deployment.STATE_LOST]
    # What comes under the name now is not ours.
    asked = len(emulator.calls.named("delete"))
    await refused(delete(running, "team/m", targets=["default"]), "MODEL_NOT_FOUND")
    await refused(delete(running, "team/m", all_targets=True), "MODEL_NOT_FOUND")
    assert len(emulator.calls.named("delete")) == asked


async def test_a_removal_is_believed_of_what_failed_there_too(
    running: RunningService, emulator: OllamaEmulator
) -> None:
    """It may have been created all the same, so it can be removed; once."""
    emulator.faults.add(Fault("respond", "create", status=400, body='{"error":"no"}'))
    failed = await push(running.ingests, ONE, "m")
    assert failed.deployments[0].state == resources_pb2.Deployment.STATE_FAILED
    await delete(running)
    answer = await delete(running, targets=["default"])
    assert [(one.target, one.removed) for one in answer.targets] == [("default", False)]
    # It never was there, so it was not lost: what is told of it stays true.
    after = await running.ingests.GetIngest(GetIngestRequest(name=failed.name))
    assert after.deployments == failed.deployments
    asked = len(emulator.calls.named("delete"))
    await refused(delete(running, targets=["default"]), "MODEL_NOT_FOUND")
    assert len(emulator.calls.named("delete")) == asked
    # What we bring there later is ours again.
    await push(running.ingests, ONE, "m")
    await delete(running)
    assert [one.removed for one in (await delete(running, targets=["default"])).targets] == [True]


async def test_what_others_put_on_a_target_is_not_removed(
    running: RunningService, emulator: OllamaEmulator
) -> None:
    await push(running.ingests, ONE, "m", store_only=True)
    refusal = await refused(delete(running, targets=["default"]), "TARGET_UNKNOWN", "targets[0]")
    assert "not ours" in refusal.message
    assert emulator.calls.named("delete") == []
    assert (await get_model(running)).name == "models/m:latest"
    await delete(running, all_targets=True)
    assert emulator.calls.named("delete") == []


@pytest.mark.extended
async def test_bytes_that_others_share_stay(running: RunningService) -> None:
    await push(running.ingests, ONE, "m", store_only=True)
    await push(running.ingests, TWO, "m", store_only=True)
    await push(running.ingests, THREE, "m", store_only=True)
    await push(running.ingests, TWO, "other", store_only=True)
    # Not finished yet: it refers to what it was told is there.
    projector = FileSpec(
        file_name="p.gguf", role=resources_pb2.File.ROLE_PROJECTOR, size_bytes=len(gguf(5000))
    )
    files = [FileSpec(file_name="model.gguf", size_bytes=len(ONE), sha256=digest(ONE)), projector]
    unfinished = await running.ingests.CreateIngest(
        CreateIngestRequest(model="m", files=files, store_only=True)
    )
    assert unfinished.files[0].state == resources_pb2.File.STATE_STORED
    await delete(running)
    assert blobs(running) == digests(ONE, TWO)
    await assert_gone(running)
    assert (await running.service.database.transact(lambda tx: tx.blobs.live(digest(ONE)))) is not None
    await delete(running, "other")
    assert blobs(running) == digests(ONE)


@pytest.mark.extended
async def test_a_damaged_blob_goes_with_its_model(simple: RunningService) -> None:
    await push(simple.ingests, ONE, "m", store_only=True)
    database = simple.service.database
    await database.transact(lambda tx: tx.blobs.mark_corrupt(digest(ONE)))
    await delete(simple)
    assert blobs(simple) == set()
    assert await database.read(lambda tx: tx.blobs.known([digest(TWO)])) == set()
    assert await database.read(lambda tx: tx.blobs.some([digest(ONE)])) == {}


async def test_one_accepted_before_and_stored_after_the_deletion_is_a_model_of_its_own(
    simple: RunningService, emulator: OllamaEmulator
) -> None:
    early = await simple.ingests.CreateIngest(create_request(ONE, "m"))
    await push(simple.ingests, TWO, "m", store_only=True)
    await delete(simple)
    await send(simple.ingests, upload_messages(early.files[0].name, ONE))
    ended = await done(simple, early.name)
    assert ended.deployments[0].state == READY
    assert "m" in emulator.models
    assert list((await get_model(simple)).earlier_digests) == []


async def test_a_sweep_takes_up_what_was_asked_for_in_spite_of_its_brake(
    running: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await push(running.ingests, ONE, "m", store_only=True)
    await push(running.ingests, TWO, "kept", store_only=True)
    await push(running.ingests, THREE, "nobodys", store_only=True)
    forget = text("UPDATE files SET state = 'FAILED' WHERE sha256 = :sha256")
    async with running.service.database.engine.begin() as connection:
        await connection.execute(forget, {"sha256": digest(THREE)})

    async def crash(_sha256: str) -> None:
        return

    monkeypatch.setattr(running.service.removal, "_remove", crash)
    await delete(running)
    assert blobs(running) == digests(ONE, TWO, THREE)
    report = await running.service.sweeper.run()
    assert report is not None
    assert (report.removed_blobs, report.stopped) == ([digest(ONE)], "")
    assert blobs(running) == digests(TWO, THREE)
    # What was found by the sweep itself goes on being held by the brake.
    monkeypatch.setattr(running.service.sweeper, "_clock", lambda: now() + timedelta(days=2))
    await delete(running, "kept")
    report = await running.service.sweeper.run()
    assert report is not None
    assert report.removed_blobs == [digest(TWO)]
    assert "1 blobs of 4000 bytes" in report.stopped
    assert blobs(running) == digests(THREE)


@pytest.mark.extended
async def test_it_goes_from_several_targets_at_once(start_service: StartService, tmp_path: Path) -> None:
    """One that takes its time holds up nobody."""
    async with AsyncExitStack() as stack:
        emulators = [
            await stack.enter_async_context(OllamaEmulator(version="0.24.0", data_dir=tmp_path / f"{number}"))
            for number in range(3)
        ]
        targets = ",".join(f"t{number}={one.url}" for number, one in enumerate(emulators))
        running = await start_service(targets)
        await push(running.ingests, ONE, "m", targets=["t0", "t2"])
        answer = await delete(running, targets=["t2"], all_targets=True)
        assert [(one.target, one.removed) for one in answer.targets] == [
            ("t0", True), ("t2", True),
        ]  # fmt: skip

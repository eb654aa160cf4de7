"""VerifyModel over the wire: what it tells, how it ends, and what becomes of rot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc
import pytest
from model_ingest.v1 import errors_pb2
from model_ingest.v1.catalog_service_pb2 import GetModelRequest, VerifyModelRequest, VerifyModelResponse
from model_ingest.v1.ingest_service_pb2 import (
    CancelIngestRequest,
    CreateIngestRequest,
    FileSpec,
    GetIngestRequest,
    RetryIngestRequest,
)
from model_ingest.v1.resources_pb2 import Deployment, File, Ingest, Model

from ingest_service import app
from ingest_service.forwarding import ForwardingSettings, breaker
from ingest_service.ingests import verify
from ingest_service.storage import local_scan
from ingest_service.vocabulary.errors import StorageFailed
from tests.blobs.parts import Steered, damage
from tests.conftest import StartService
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.rpc.refusals import Refusal, refused
from tests.rpc.scenes import GIVE_UP_SECONDS, Scene, until
from tests.support.files import MEBIBYTE, create_request, digest, gguf, push, send, upload_messages
from tests.support.models import PROJECTOR, model
from tests.support.service import RunningService

pytestmark = pytest.mark.extended_when("postgresql")

DATA = gguf(2 * MEBIBYTE, seed=8)
PIECE = 64 * 1024
READY = Deployment.STATE_READY


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_scan, "_PIECE_BYTES", PIECE)


@pytest.fixture
def every_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is told a hundred times a second."""
    monkeypatch.setattr(verify, "_EVERY_SECONDS", 0.01)


def steer(running: RunningService) -> Steered:
    """Puts itself between the service and its store."""
    rehasher = running.service.rehasher
    steered = rehasher._scanner = Steered(rehasher._scanner)
    return steered


def call(running: RunningService, name: str = "test") -> Any:
    return running.catalog.VerifyModel(VerifyModelRequest(name=f"models/{name}"), timeout=GIVE_UP_SECONDS)


async def responses(running: RunningService, name: str = "test") -> list[VerifyModelResponse]:
    return [response async for response in call(running, name)]


async def refused_after(
    running: RunningService, reason: str, name: str = "test"
) -> tuple[list[VerifyModelResponse], Refusal]:
    """What came before the refusal, and the refusal."""
    seen: list[VerifyModelResponse] = []

    async def reading() -> None:
        async for response in call(running, name):
            seen.append(response)  # noqa: PERF401 (kept also when the call then fails)

    return seen, await refused(reading(), reason)


def blob(running: RunningService, data: bytes = DATA) -> Any:
    return running.settings.data_dir / "blobs" / digest(data).replace(":", "-")


async def get_model(running: RunningService, name: str = "test") -> Model:
    return await running.catalog.GetModel(GetModelRequest(name=f"models/{name}"))


def verdicts(response: VerifyModelResponse) -> list[tuple[str, bool, str]]:
    return [(one.target, one.present, one.message) for one in response.targets]


@pytest.mark.extended
async def test_a_sound_model(scene: Scene) -> None:
    await push(scene.running.ingests, DATA)
    before = (await get_model(scene.running)).files[0].verify_time.ToDatetime()
    *progress, last = await responses(scene.running)
    assert {response.file_name for response in progress} == {"model.gguf"}
    assert {response.size_bytes for response in progress} == {len(DATA)}
    assert progress[-1].verified_bytes == len(DATA)
    assert verdicts(last) == [("default", True, "")]
    file = (await get_model(scene.running)).files[0]
    assert file.verify_time.ToDatetime() > before
    assert not file.corrupt


@pytest.mark.extended
async def test_progress_is_that_of_the_reading(scene: Scene, every_moment: None) -> None:
    await push(scene.running.ingests, DATA)
    steered = steer(scene.running)
    steered.may_read.clear()
    asked = aiter(call(scene.running))
    assert (await anext(asked)).verified_bytes == 0
    assert (await anext(asked)).verified_bytes == 0
    steered.may_read.set()
    told = [response.verified_bytes async for response in asked if response.file_name]
    assert told == sorted(told)
    assert told[-1] == len(DATA)


@pytest.fixture
async def late(emulator: OllamaEmulator) -> AsyncIterator[OllamaEmulator]:
    """Another target, which cannot be asked yet."""
    async with OllamaEmulator(version="0.24.0") as running:
        running.faults.add(Fault("reset", call="version", times=None))
        yield running


async def failed_as_corrupt(running: RunningService, name: str) -> Ingest:
    scene = Scene(running, None)  # type: ignore[arg-type]
    ingest = await scene.ended(name)
    (deployment,) = [one for one in ingest.deployments if one.target == "late"]
    assert deployment.state == Deployment.STATE_FAILED
    assert errors_pb2.Reason.Name(deployment.failure.reason) == "BLOB_CORRUPT"
    return ingest


async def test_rot_is_told_never_forwarded_and_healed(
    start_service: StartService,
    emulator: OllamaEmulator,
    late: OllamaEmulator,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quick = partial(ForwardingSettings, first_backoff_seconds=0.01, max_backoff_seconds=0.05)
    monkeypatch.setattr(app, "ForwardingSettings", quick)
    monkeypatch.setattr(breaker, "_FIRST_REST_SECONDS", 0.01)
    running: RunningService = await start_service(
        f"default={emulator.url},late={late.url}", database_url=database_url
    )
    ingest = await running.ingests.CreateIngest(create_request(DATA))
    await send(running.ingests, upload_messages(ingest.files[0].name, DATA))
    while (await running.ingests.GetIngest(GetIngestRequest(name=ingest.name))).deployments[0].state != READY:
        await asyncio.sleep(0.01)
    damage(blob(running), "flipped")

    seen, refusal = await refused_after(running, "BLOB_CORRUPT")
    assert refusal.metadata == {"files": "model.gguf", "count": "1"}
    assert "model.gguf" in refusal.message
    # All was read and everybody was asked, all the same.
    assert seen[-2].verified_bytes == len(DATA)
    assert [(one.target, one.present) for one in seen[-1].targets] == [("default", True), ("late", False)]
    assert (await get_model(running)).files[0].corrupt

    # The bytes do not count as stored any more.
    other = await running.ingests.CreateIngest(create_request(DATA, "other", sha256=digest(DATA)))
    assert (other.files[0].state, other.files[0].deduplicated) == (File.STATE_PENDING, False)
    await running.ingests.CancelIngest(CancelIngestRequest(name=other.name))

    # The deployment that waits for its target, and then a retry: nothing is sent.
    late.faults.clear()
    await failed_as_corrupt(running, ingest.name)
    await running.ingests.RetryIngest(RetryIngestRequest(name=ingest.name))
    await failed_as_corrupt(running, ingest.name)
    assert set(late.calls.names()) <= {"version", "show", "tags"}
    assert late.calls.body_bytes() == 0

    # The same bytes again heal it, for everybody.
    again = await push(running.ingests, DATA, "test")
    assert again.state == Ingest.STATE_READY
    assert not again.files[0].deduplicated
    assert late.blobs.read(digest(DATA)) == DATA
    assert blob(running).read_bytes() == DATA
    *_, last = await responses(running)
    assert [one.present for one in last.targets] == [True, True]
    assert not (await get_model(running)).files[0].corrupt
    third = await running.ingests.CreateIngest(create_request(DATA, "third", sha256=digest(DATA)))
    assert third.files[0].deduplicated


async def two_files(running: RunningService) -> tuple[bytes, bytes]:
    parts = gguf(200_000, seed=20), model(100_000, 21, PROJECTOR)
    specs = [
        FileSpec(file_name="model.gguf", size_bytes=len(parts[0])),
        FileSpec(file_name="mmproj.gguf", role=File.ROLE_PROJECTOR, size_bytes=len(parts[1])),
    ]
    ingest = await running.ingests.CreateIngest(
        CreateIngestRequest(model="test", files=specs, store_only=True)
    )
    for file, data in zip(ingest.files, parts, strict=True):
        await send(running.ingests, upload_messages(file.name, data))
    return parts


@pytest.mark.extended
@pytest.mark.parametrize("rotten", [0, 1])
async def test_of_several_files_all_are_read_and_the_rotten_one_is_named(scene: Scene, rotten: int) -> None:
    parts = await two_files(scene.running)
    damage(blob(scene.running, parts[rotten]), "missing" if rotten else "flipped")
    seen, refusal = await refused_after(scene.running, "BLOB_CORRUPT")
    assert refusal.metadata == {"files": ["model.gguf", "mmproj.gguf"][rotten], "count": "1"}
    ended = {response.file_name: response.verified_bytes for response in seen if response.file_name}
    assert ended["model.gguf"] == len(parts[0])
    assert ended["mmproj.gguf"] == (0 if rotten else len(parts[1]))
    assert [file.corrupt for file in (await get_model(scene.running)).files] == [rotten == 0, rotten == 1]


async def test_a_disk_that_cannot_be_read_ends_as_storage_failed(scene: Scene) -> None:
    parts = await two_files(scene.running)
    steered = steer(scene.running)

    async def fails() -> None:
        if steered.pieces[-1] == digest(parts[0]):
            raise StorageFailed("The stored bytes cannot be read.")

    steered.before_piece = fails
    seen, refusal = await refused_after(scene.running, "STORAGE_FAILED")
    assert refusal.metadata == {"files": "model.gguf", "count": "1"}
    assert seen[-2].file_name == "mmproj.gguf"
    assert len(seen[-1].targets) == 1
    assert not any(file.corrupt for file in (await get_model(scene.running)).files)


@pytest.mark.extended
async def test_a_target_that_lacks_the_model_is_no_error(scene: Scene) -> None:
    await push(scene.running.ingests, DATA)
    for name in scene.emulator.models.names():
        scene.emulator.models.remove(name)
    *_, last = await responses(scene.running)
    assert verdicts(last) == [("default", False, "")]


async def test_the_reading_ends_with_the_client_that_asked_for_it(scene: Scene, every_moment: None) -> None:
    await push(scene.running.ingests, DATA)
    steered = steer(scene.running)
    steered.may_read.clear()
    async with scene.running.channel():
        asked = call(scene.running)
        await asked.read()
        await until(lambda: steered.open_scans == 1)
        asked.cancel()
    await until(lambda: steered.open_scans == 0)
    await until(lambda: scene.running.service.verifications.active == 0)
    assert len(steered.pieces) == 1


@pytest.mark.extended
async def test_a_client_that_goes_does_not_end_the_reading_of_others(
    scene: Scene, every_moment: None
) -> None:
    await push(scene.running.ingests, DATA)
    steered = steer(scene.running)
    steered.may_read.clear()
    goes, stays = call(scene.running), aiter(call(scene.running))
    await goes.read()
    await anext(stays)
    goes.cancel()
    await until(lambda: scene.running.service.verifications.active == 1)
    steered.may_read.set()
    told = [response async for response in stays]
    assert verdicts(told[-1]) == [("default", True, "")]
    assert len(steered.pieces) == -(-len(DATA) // PIECE)


async def test_nothing_is_queued_for_a_slow_reader(scene: Scene, every_moment: None) -> None:
    await push(scene.running.ingests, DATA)
    steered = steer(scene.running)
    steered.may_read.clear()
    items = scene.running.service.verifications.verify("test")
    await anext(items)
    # It reads nothing for a while, in which the whole file is read and a hundred messages would be due.
    steered.may_read.set()
    await until(lambda: not scene.running.service.rehasher._readings)
    await asyncio.sleep(0.1)
    rest = [item async for item in items]
    assert rest[0] == verify.FileRead("model.gguf", len(DATA), len(DATA))
    assert isinstance(rest[1], verify.TargetsAsked)
    assert len(rest) == 2


async def test_a_drain_ends_it(scene: Scene, every_moment: None) -> None:
    await push(scene.running.ingests, DATA)
    steered = steer(scene.running)
    steered.may_read.clear()
    asked = call(scene.running)
    await asked.read()
    stopping = asyncio.create_task(scene.running.service.stop(grace_seconds=600))

    async def to_the_end() -> None:
        while await asked.read() is not grpc.aio.EOF:
            pass

    await refused(to_the_end(), "DRAINING")
    await asyncio.wait_for(stopping, GIVE_UP_SECONDS)


@pytest.mark.extended
async def test_a_drain_ends_it_while_targets_are_asked(scene: Scene) -> None:
    await push(scene.running.ingests, DATA)
    stalls = scene.emulator.faults.add(Fault("stall", call="show", times=None))
    asked = call(scene.running)
    while (await asked.read()).verified_bytes < len(DATA):
        pass
    await stalls.wait_stalled(GIVE_UP_SECONDS)
    stopping = asyncio.create_task(scene.running.service.stop(grace_seconds=600))
    await refused(asked.read(), "DRAINING")
    await asyncio.wait_for(stopping, GIVE_UP_SECONDS)


async def test_so_many_at_once_and_no_more(scene: Scene, every_moment: None) -> None:
    await push(scene.running.ingests, DATA)
    steered = steer(scene.running)
    steered.may_read.clear()
    asked = [call(scene.running) for _ in range(16)]
    for one in asked:
        await one.read()
    await refused(responses(scene.running), "TOO_MANY_WATCHES")
    asked[0].cancel()
    await until(lambda: scene.running.service.verifications.active == 15)
    steered.may_read.set()
    assert (await responses(scene.running))[-1].targets


@pytest.mark.parametrize(("name", "reason"), [("models/nix", "MODEL_NOT_FOUND"), ("test", "NAME_INVALID")])
async def test_what_is_no_model(scene: Scene, name: str, reason: str) -> None:
    await refused(scene.running.catalog.VerifyModel(VerifyModelRequest(name=name)).read(), reason)


async def test_a_service_that_is_told_to_verifies_by_itself(start_service: StartService) -> None:
    """The blob is older than the days that were set: it is read at the start, and a stop does not wait."""
    running: RunningService = await start_service()
    await push(running.ingests, DATA)
    await running.service.stop(0.0)
    damage(blob(running), "flipped")
    again: RunningService = await start_service(verify_days=0.000001)
    async with asyncio.timeout(GIVE_UP_SECONDS):
        while not (await get_model(again)).files[0].corrupt:
            await asyncio.sleep(0.01)
    await again.service.stop(0.0)


async def test_a_stop_does_not_wait_for_a_scheduled_reading(start_service: StartService) -> None:
    running: RunningService = await start_service()
    await push(running.ingests, DATA)
    await running.service.stop(0.0)
    # A piece a day.
    again: RunningService = await start_service(verify_days=0.000001, verify_bytes_per_second=1)
    await until(lambda: any(one.read_bytes for one in again.service.rehasher._readings.values()))
    await asyncio.wait_for(again.service.stop(0.0), GIVE_UP_SECONDS)
    assert not again.service.rehasher._tasks

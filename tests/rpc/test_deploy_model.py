"""DeployModel: a stored model on more targets without sending a byte.

Breaks when: bytes are asked for, options are lost, request_id is not held against the body, or damaged bytes
go on their way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from google.protobuf.json_format import ParseDict
from model_ingest.v1 import errors_pb2, resources_pb2
from model_ingest.v1.ingest_service_pb2 import RetryIngestRequest

from ingest_service.vocabulary.records import Inspection
from tests.conftest import StartService
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.rpc.catalog import READY, assert_gone, blobs, delete, deploy, done, get_model
from tests.rpc.refusals import refused
from tests.support.files import create_request, digest, gguf, push
from tests.support.service import RunningService

pytestmark = pytest.mark.extended_when("postgresql")

ONE, TWO = gguf(2000, seed=1), gguf(3000, seed=2)
VERSIONS = {"a": "0.24.0", "b": "0.33.0", "c": "0.34.1", "d": "0.40.0"}
Emulators = dict[str, OllamaEmulator]


@pytest.fixture
async def emulators(tmp_path: Path) -> AsyncIterator[Emulators]:
    """One of each era, by its letter."""
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(OllamaEmulator(version=version, data_dir=tmp_path / name))
            for name, version in VERSIONS.items()
        }


def targets(emulators: Emulators) -> str:
    return ",".join(f"{name}={one.url}" for name, one in emulators.items())


@pytest.fixture
async def running(start_service: StartService, emulators: Emulators) -> RunningService:
    """For what has nothing to do with the kind of database."""
    service: RunningService = await start_service(targets(emulators))
    return service


@pytest.fixture
async def on_both(start_service: StartService, emulators: Emulators, database_url: str) -> RunningService:
    service: RunningService = await start_service(targets(emulators), database_url=database_url)
    return service


@pytest.mark.extended
async def test_to_every_era_with_its_options_and_no_bytes(
    on_both: RunningService, emulators: Emulators
) -> None:
    options = resources_pb2.CreateOptions(system="be brief")
    first = await push(on_both.ingests, ONE, "Some/M", targets=["a"], options=options)
    ingest = await deploy(on_both, "some/m", targets=["b", "c", "d"])
    assert (ingest.model, ingest.options) == ("Some/M:latest", options)
    assert [file.file_name for file in ingest.files] == ["model.gguf"]
    assert ingest.files[0].state == resources_pb2.File.STATE_STORED
    assert ingest.files[0].deduplicated
    ended = await done(on_both, ingest.name)
    assert ended.state == resources_pb2.Ingest.STATE_READY
    assert all("some/m" in one.models for one in emulators.values())
    assert all(one.models["some/m"].of_kind("system") for one in emulators.values())
    model = await get_model(on_both, "some/m")
    # The newest word about each target, whichever ingest it is of.
    assert [(one.target, one.state) for one in model.deployments] == [(name, READY) for name in VERSIONS]
    assert (model.ingest, list(model.earlier_digests)) == (ingest.name, [])
    assert model.ingest != first.name
    # To all, if none is named; then it can be deleted from all.
    again = await deploy(on_both, "SOME/m")
    assert [one.target for one in again.deployments] == list(VERSIONS)
    await done(on_both, again.name)
    answer = await delete(on_both, "some/m", all_targets=True)
    assert [(one.target, one.removed) for one in answer.targets] == [(name, True) for name in VERSIONS]
    assert not any(len(one.models) for one in emulators.values())
    assert blobs(on_both) == set()


async def test_what_is_refused(running: RunningService) -> None:
    await refused(deploy(running), "MODEL_NOT_FOUND")
    await refused(deploy(running, "?"), "NAME_INVALID", "name")
    await push(running.ingests, ONE, "m", store_only=True)
    await refused(deploy(running, targets=["a", "nowhere"]), "TARGET_UNKNOWN", "targets[1]")
    await refused(deploy(running, targets=["a"] * 1025), "ARGUMENT_INVALID", "targets")
    await refused(deploy(running, request_id="x" * 129), "ARGUMENT_INVALID", "request_id")
    await delete(running)
    await refused(deploy(running, targets=["a"]), "MODEL_NOT_FOUND")


async def test_the_same_request_id_is_the_same_ingest_whatever_became_of_it(on_both: RunningService) -> None:
    created = await push(on_both.ingests, ONE, "m", targets=["a"], request_id="create")
    made = await asyncio.gather(*(deploy(on_both, targets=["b"], request_id="id") for _ in range(8)))
    assert len({one.name for one in made}) == 1
    assert made[0].name != created.name
    await done(on_both, made[0].name)
    for fields in ({"targets": ["c"]}, {}, {"model": "other", "targets": ["b"]}):
        await refused(deploy(on_both, request_id="id", **fields), "REQUEST_ID_REUSED", "request_id")
    # Neither call takes the other's.
    await refused(deploy(on_both, targets=["a"], request_id="create"), "REQUEST_ID_REUSED", "request_id")
    create = create_request(ONE, "m", targets=["b"], sha256=digest(ONE), request_id="id")
    await refused(on_both.ingests.CreateIngest(create), "REQUEST_ID_REUSED", "request_id")
    # A newer push, and the model's end, change nothing about what the id stands for.
    await push(on_both.ingests, TWO, "m", store_only=True)
    assert (await deploy(on_both, targets=["b"], request_id="id")).name == made[0].name
    await delete(on_both)
    assert (await deploy(on_both, targets=["b"], request_id="id")).name == made[0].name


async def test_bytes_that_are_not_as_they_were_are_not_sent(
    running: RunningService, emulators: Emulators
) -> None:
    await push(running.ingests, ONE, "m", store_only=True)
    path = running.settings.data_dir / "blobs" / digest(ONE).replace(":", "-")
    database = running.service.database
    path.write_bytes(ONE[:-1])
    refusal = await refused(deploy(running), "BLOB_CORRUPT")
    assert "model.gguf" in refusal.message
    path.unlink()
    await refused(deploy(running), "BLOB_CORRUPT")
    path.write_bytes(ONE)
    await database.transact(lambda tx: tx.blobs.mark_corrupt(digest(ONE)))
    await refused(deploy(running), "BLOB_CORRUPT")
    # Pushed again it is whole again.
    await push(running.ingests, ONE, "m", store_only=True)
    # Accepted by no rules of today: read again.
    await database.transact(lambda tx: tx.blobs.accept(digest(ONE), Inspection("gguf", 0, {})))
    path.chmod(0o644)
    path.write_bytes(b"GGUF" + bytes(len(ONE) - 4))
    refusal = await refused(deploy(running), "FORMAT_INVALID", "name")
    assert refusal.metadata["rule"]
    assert not any(one.calls.named("blob_post") for one in emulators.values())
    path.write_bytes(ONE)
    ended = await done(running, (await deploy(running, targets=["a"])).name)
    assert ended.state == resources_pb2.Ingest.STATE_READY


async def test_a_model_that_failed_on_its_target_goes_to_another(
    running: RunningService, emulators: Emulators
) -> None:
    emulators["a"].faults.add(Fault("respond", "create", status=400, body='{"error":"no"}', times=None))
    failed = await push(running.ingests, ONE, "m", targets=["a"])
    assert failed.state == resources_pb2.Ingest.STATE_FAILED
    ended = await done(running, (await deploy(running, targets=["b"])).name)
    assert ended.state == resources_pb2.Ingest.STATE_READY
    model = await get_model(running)
    assert [(one.target, one.state) for one in model.deployments] == [
        ("a", resources_pb2.Deployment.STATE_FAILED),
        ("b", READY),
    ]
    assert model.deployments[0].failure.reason == errors_pb2.TARGET_REFUSED


async def test_the_order_of_acceptance_holds(on_both: RunningService, emulators: Emulators) -> None:
    """It takes the place of what waits for the same target; a retry of that does not come before it."""
    await push(on_both.ingests, ONE, "m", store_only=True)
    fault = emulators["a"].faults.add(Fault("respond", "version", status=503, times=None))
    waiting = await deploy(on_both, targets=["a"])
    newer = await deploy(on_both, targets=["a"])
    ended = await done(on_both, waiting.name)
    assert ended.deployments[0].state == resources_pb2.Deployment.STATE_SUPERSEDED
    retried = await on_both.ingests.RetryIngest(RetryIngestRequest(name=waiting.name))
    assert retried.deployments[0].state == resources_pb2.Deployment.STATE_SUPERSEDED
    emulators["a"].faults.remove(fault)
    assert (await done(on_both, newer.name)).deployments[0].state == READY


async def test_an_option_that_is_no_longer_taken(start_service: StartService, emulators: Emulators) -> None:
    allowing = await start_service(targets(emulators), allow_from=True)
    await push(allowing.ingests, ONE, "base", targets=["a"])
    built = create_request(
        ONE, "m", targets=["a"], options=ParseDict({"from": "base"}, resources_pb2.CreateOptions())
    )
    del built.files[:]
    await done(allowing, (await allowing.ingests.CreateIngest(built)).name)
    assert (await done(allowing, (await deploy(allowing, targets=["a"])).name)).deployments[0].state == READY
    await allowing.service.stop(0.0)
    strict = await start_service(targets(emulators))
    await refused(deploy(strict, targets=["a"]), "OPTION_UNSUPPORTED", "options.from")


@pytest.mark.extended
async def test_a_deletion_comes_before_or_after_it(on_both: RunningService) -> None:
    """At once: whichever wins, no ingest that the catalog knows lacks its bytes."""
    for number in range(6):
        await push(on_both.ingests, ONE, "m", store_only=True)
        outcomes = await asyncio.gather(
            deploy(on_both, targets=["a"]), delete(on_both), return_exceptions=True
        )
        made = outcomes[0]
        if isinstance(made, resources_pb2.Ingest):
            assert (await done(on_both, made.name)).deployments[0].state == READY, number
            assert (await get_model(on_both)).ingest == made.name
            assert blobs(on_both) == {digest(ONE)}
            await delete(on_both, all_targets=True)
        else:
            await refused(_again(made), "MODEL_NOT_FOUND")
        await assert_gone(on_both)
        assert blobs(on_both) == set()


async def _again(error: object) -> None:
    assert isinstance(error, BaseException)
    raise error

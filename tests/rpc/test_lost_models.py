"""What VerifyModel learns from targets is written down: LOST, a failure of its own, and a way back."""

from __future__ import annotations

import pytest
from model_ingest.v1.catalog_service_pb2 import VerifyModelRequest, VerifyModelResponse
from model_ingest.v1.errors_pb2 import Reason
from model_ingest.v1.ingest_service_pb2 import GetIngestRequest, RetryIngestRequest
from model_ingest.v1.resources_pb2 import Deployment, Ingest

from tests.ollama_emulator import Fault
from tests.rpc.catalog import done, events, get_model
from tests.rpc.scenes import GIVE_UP_SECONDS, Scene
from tests.support.files import gguf, push

pytestmark = pytest.mark.extended_when("postgresql")

DATA = gguf(200_000, seed=8)


async def verdict(scene: Scene) -> VerifyModelResponse.TargetVerdict:
    request = VerifyModelRequest(name="models/test")
    call = scene.running.catalog.VerifyModel(request, timeout=GIVE_UP_SECONDS)
    (one,) = [one async for response in call for one in response.targets]
    return one


def forget(scene: Scene) -> None:
    for name in scene.emulator.models.names():
        scene.emulator.models.remove(name)


async def test_a_model_that_its_target_has_lost(scene: Scene) -> None:
    ingest = await push(scene.running.ingests, DATA)
    told = len(await events(scene.running, ingest.name))
    forget(scene)
    assert not (await verdict(scene)).present

    now = await scene.get(ingest.name)
    assert (now.state, now.done) == (Ingest.STATE_FAILED, True)
    (lost,) = now.deployments
    assert lost.state == Deployment.STATE_LOST
    for failure in (now.failure, lost.failure):
        assert Reason.Name(failure.reason) == "TARGET_LOST_MODEL"
        assert failure.metadata == {"target": "default"}
    # Whoever watches hears of it after the event that said done.
    of_target, of_ingest = (await events(scene.running, ingest.name))[told:]
    assert of_target.deployment_state.state == Deployment.STATE_LOST
    assert of_target.deployment_state.failure == lost.failure
    assert of_ingest.ingest_state.state == Ingest.STATE_FAILED
    assert of_ingest.ingest_state.done
    # The catalog still lists it, and says where it is not.
    assert [one.state for one in (await get_model(scene.running, "test")).deployments] == [lost.state]
    # Asked again, it is no news.
    await verdict(scene)
    assert (await scene.get(ingest.name)).last_sequence == told + 2

    await scene.running.ingests.RetryIngest(RetryIngestRequest(name=ingest.name))
    again = await done(scene.running, ingest.name)
    assert again.state == Ingest.STATE_READY
    assert not again.HasField("failure")
    assert not again.deployments[0].HasField("failure")
    assert (await verdict(scene)).present
    assert scene.emulator.models.names()


async def test_an_unanswered_question_loses_nothing(scene: Scene) -> None:
    ingest = await push(scene.running.ingests, DATA)
    for fault in (
        Fault("reset", call="show"),
        Fault("respond", call="show", status=503),
        # Something else answers in its place: Ollama says what it has not got as JSON.
        Fault("respond", call="show", status=404, body=b"404 page not found"),
    ):
        scene.emulator.faults.clear()
        scene.emulator.faults.add(fault)
        one = await verdict(scene)
        assert (one.present, one.unknown) == (False, True)
        now = await scene.running.ingests.GetIngest(GetIngestRequest(name=ingest.name))
        assert now.state == Ingest.STATE_READY
        assert now.last_sequence == ingest.last_sequence

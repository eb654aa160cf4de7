"""Ollama of each era: what is recorded of a success."""

from __future__ import annotations

import pytest

from ingest_service.forwarding.eras import rewrites_at_length
from ingest_service.vocabulary.states import DeploymentState
from tests.database import records
from tests.forwarding.world import World, calls
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.support.files import MEBIBYTE, digest, gguf

DATA = gguf(MEBIBYTE)


@pytest.mark.extended_unless("0.40.0", "0.33.0")
@pytest.mark.parametrize(
    "version", ["0.11.0", "0.24.0", "0.33.0", "0.34.1", "0.40.0", "0.0.0", "nonsense", ""]
)
async def test_what_the_target_made_is_recorded(world: World, emulator: OllamaEmulator, version: str) -> None:
    emulator.version = version
    ingest = await world.forwarded(DATA)
    deployment = ingest.deployments[0]
    assert deployment.state is DeploymentState.READY
    assert deployment.target_version == version
    assert calls(emulator) == "version head post show create show tags"
    listed = next(iter(emulator.state()["models"]))
    assert listed == "m:latest"
    layers = [text for text in await world.statuses(ingest.id) if " layer " in text]
    assert deployment.layer_digest == layers[0].split()[-1]
    rewritten = version == "0.33.0"
    assert (deployment.layer_digest != digest(DATA)) == rewritten
    assert len(deployment.manifest_digest) == 64


async def test_era_b_rewrites_in_silence_and_with_a_digest_of_zeros(
    world: World, emulator: OllamaEmulator
) -> None:
    emulator.version = "0.33.0"
    ingest = await world.forwarded(DATA)
    statuses = await world.statuses(ingest.id)
    assert statuses[:3] == ["parsing GGUF", "validating GGUF model", "verifying conversion"]
    assert any('"0000000000000000000"' in line for line in emulator.calls.named("create")[0].lines)
    deployment = ingest.deployments[0]
    assert deployment.layer_digest in emulator.blobs.digests()
    assert digest(DATA) in emulator.blobs.digests()


async def test_a_lost_answer_of_era_b_is_settled_with_the_layer_that_show_names(
    world: World, emulator: OllamaEmulator
) -> None:
    emulator.version = "0.33.0"
    emulator.faults.add(Fault("reset", "create", takes_effect=True))
    deployment = (await world.forwarded(DATA)).deployments[0]
    assert deployment.state is DeploymentState.READY
    assert deployment.layer_digest not in {"", digest(DATA)}
    assert deployment.layer_digest in emulator.blobs.digests()


@pytest.mark.extended_unless("null")
@pytest.mark.parametrize(
    ("body", "recorded"),
    [
        ('{"version":null}', ""),
        ('{"version":5}', ""),
        ('{"version":["x"]}', ""),
        ("{}", ""),
        ('{"version":"a\\u0000\\u202eb"}', "a b"),
        (f'{{"version":"{"v" * 500}"}}', "v" * 61 + "…"),
    ],
)
async def test_a_version_that_is_no_version_does_no_harm(
    world: World, emulator: OllamaEmulator, body: str, recorded: str
) -> None:
    emulator.faults.add(Fault("respond", "version", status=200, body=body, content_type="application/json"))
    deployment = (await world.forwarded(DATA)).deployments[0]
    assert deployment.state is DeploymentState.READY
    assert deployment.target_version == recorded


@pytest.mark.extended_unless("null,5")
@pytest.mark.parametrize(
    "body",
    [
        '{"models":null}',
        '{"models":[null,5,{"name":7},{"name":"m:latest","digest":9}]}',
        "[]",
        "{",
        '{"models":{}}',
    ],
)
async def test_a_list_that_makes_no_sense_takes_nothing_from_success(
    world: World, emulator: OllamaEmulator, body: str
) -> None:
    emulator.faults.add(Fault("respond", "tags", status=200, body=body, content_type="application/json"))
    deployment = (await world.forwarded(DATA)).deployments[0]
    assert deployment.state is DeploymentState.READY
    assert deployment.manifest_digest == ""


@pytest.mark.extended_unless("nowhere")
@pytest.mark.parametrize("body", ['{"modified_at":7,"modelfile":["FROM x"]}', '{"modelfile":"FROM nowhere"}'])
async def test_a_show_that_makes_no_sense_is_still_there(
    world: World, emulator: OllamaEmulator, body: str
) -> None:
    emulator.faults.add(
        Fault("respond", "show", after=1, status=200, body=body, content_type="application/json")
    )
    deployment = (await world.forwarded(DATA)).deployments[0]
    assert deployment.state is DeploymentState.READY
    assert deployment.layer_digest == digest(DATA)


def test_a_rewrite_is_told_of_a_large_model_only() -> None:
    """People are told to expect minutes of silence."""
    large, small = (records.ingest(records.file(size_bytes=size)) for size in (1 << 30, (1 << 30) - 1))
    assert rewrites_at_length("0.33.0", large)
    assert not rewrites_at_length("0.33.0", small)
    assert not rewrites_at_length("0.24.0", large)

"""What a version of Ollama cannot do is refused by name, before a byte is pushed to that target."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from ingest_service.database import Database
from ingest_service.vocabulary.states import DeploymentState, FileRole, IngestState
from tests.forwarding.world import World, calls, open_world
from tests.ollama_emulator import Fault, OllamaEmulator, sample_gguf
from tests.support.files import digest
from tests.support.models import CONFIG_JSON

PLAIN = [("m.gguf", FileRole.MODEL, sample_gguf())]
LORA = [*PLAIN, ("l.gguf", FileRole.ADAPTER, sample_gguf({"general.type": "adapter"}))]
SHARDS = [
    (f"m-0000{n + 1}-of-00002.gguf", FileRole.SHARD, sample_gguf({"split.no": n, "split.count": 2}))
    for n in (0, 1)
]
SAFE = [
    ("m.safetensors", FileRole.MODEL, struct.pack("<Q", 2) + b"{}"),
    ("config.json", FileRole.MODEL, CONFIG_JSON),
    ("tokenizer.json", FileRole.MODEL, b'{"a":1}'),
]
DRAFT = [*PLAIN, ("d.gguf", FileRole.DRAFT, sample_gguf({"general.name": "draft"}))]
TYPICAL = {"parameters": {"typical_p": 0.5}}

Files = list[tuple[str, FileRole, bytes]]


@pytest.mark.extended_unless(
    "files1-", "files4-", "files5-", "files9-", "files12-", "files15-", "files16-", "files18-"
)
@pytest.mark.parametrize(
    ("version", "files", "options", "named"),
    [
        ("0.5.4", PLAIN, {}, "`files`"),
        ("0.24.0", SHARDS, {}, "role SHARD"),
        ("0.24.0", PLAIN, {"quantize": "int4"}, "`options.quantize` to int4"),
        ("0.33.0", PLAIN, {"quantize": "int4"}, "`options.quantize` to int4"),
        ("0.33.0", SAFE, {"quantize": "mxfp4"}, "`options.quantize` to mxfp4"),
        ("0.34.1", LORA, {}, "role ADAPTER"),
        ("0.40.0", LORA, {}, "role ADAPTER"),
        ("0.0.0", LORA, {}, "role ADAPTER"),
        ("", LORA, {}, "role ADAPTER"),
        ("0.34.1", PLAIN, TYPICAL, "`options.parameters.typical_p`"),
        ("0.40.0", PLAIN, {"quantize": "Q4_K_M"}, "`options.quantize` of a GGUF"),
        ("0.34.1", PLAIN, {"quantize": "int4"}, "`options.quantize` of a GGUF"),
        ("0.34.1", SAFE, {"quantize": "Q4_K_M"}, "`options.quantize` to Q4_K_M"),
        ("0.11.11", PLAIN, {"renderer": "x"}, "`options.renderer`"),
        ("0.11.11", PLAIN, {"parser": "x"}, "`options.parser`"),
        ("0.13.5", PLAIN, {"requires": "0.13.0"}, "`options.requires`"),
        ("0.24.0", DRAFT, {}, "role DRAFT"),
        ("0.24.0", PLAIN, {"parameters": {"draft_num_predict": 4}}, "`options.parameters.draft_num_predict`"),
        ("0.34.1", DRAFT, {"draft_quantize": "Q8_0"}, "`options.draft_quantize`"),
        ("0.34.1", [*SAFE, DRAFT[1]], {}, "role DRAFT beside safetensors"),
    ],
)
async def test_it_is_refused_before_anything_is_pushed(
    world: World, emulator: OllamaEmulator, version: str, files: Files, options: dict[str, Any], named: str
) -> None:
    emulator.version = version
    ingest_id = await world.stored_set(files, options=options)
    world.worker()
    ingest = await world.done(ingest_id)
    deployment = ingest.deployments[0]
    assert (ingest.state, deployment.state) == (IngestState.FAILED, DeploymentState.FAILED)
    assert deployment.failure is not None
    assert deployment.failure.reason == "OPTION_UNSUPPORTED"
    assert named in deployment.failure.message
    assert f"Ollama {version or 'of unknown version'}" in deployment.failure.message
    assert deployment.target_version == version
    assert calls(emulator) == "version"
    assert await world.states(ingest_id) == "FAILED"


@pytest.mark.extended_unless("0.34.0")
@pytest.mark.parametrize("options", [TYPICAL, {"quantize": "Q8_0"}])
@pytest.mark.parametrize("version", ["0.24.0", "0.34.0"])
async def test_the_last_versions_that_can_still_do_it(
    world: World, emulator: OllamaEmulator, version: str, options: dict[str, Any]
) -> None:
    emulator.version = version
    weights = sample_gguf({"general.file_type": 1}, [("token_embd.weight", (32, 2), 1, None)])
    ingest_id = await world.stored_set([("m.gguf", FileRole.MODEL, weights), *LORA[1:]], options=options)
    world.worker()
    deployment = (await world.done(ingest_id)).deployments[0]
    assert deployment.state is DeploymentState.READY, deployment.failure


async def test_one_targets_refusal_leaves_the_others_alone(sqlite_database: Database, tmp_path: Path) -> None:
    async with (
        OllamaEmulator(version="0.24.0", data_dir=tmp_path / "a") as able,
        OllamaEmulator(version="0.40.0", data_dir=tmp_path / "b") as unable,
        open_world(sqlite_database, tmp_path / "data", able, unable) as world,
    ):
        ingest_id = await world.stored_set(LORA)
        world.worker()
        ingest = await world.done(ingest_id)
        assert [d.state for d in ingest.deployments] == [DeploymentState.READY, DeploymentState.FAILED]
        assert calls(unable) == "version"
        assert ingest.failure is not None
        assert ingest.failure.reason == "OPTION_UNSUPPORTED"


@pytest.mark.extended_unless("0.33.0-files0", "0.34.1")
@pytest.mark.parametrize(
    ("version", "files", "expected"),
    [("0.33.0", PLAIN, 1), ("0.33.0", SHARDS, 1), ("0.24.0", PLAIN, 0), ("0.34.1", PLAIN, 0)],
)
async def test_a_target_that_will_rewrite_the_file_is_told_of_once(
    world: World,
    emulator: OllamaEmulator,
    version: str,
    files: Files,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ingest_service.forwarding.eras._SLOW_REWRITE_BYTES", 1)
    emulator.version = version
    # The first attempt fails: the second one does not say it again.
    emulator.faults.add(Fault("respond", "blob_head", status=503))
    ingest_id = await world.stored_set(files)
    world.worker()
    ingest = await world.done(ingest_id)
    deployment = ingest.deployments[0]
    assert deployment.state is DeploymentState.READY
    assert deployment.attempts > 1
    events = await world.events(ingest_id)
    told = [e.body["message"] for e in events if e.kind == "notice" and "three times" in e.body["message"]]
    assert len(told) == expected
    # It is READY whatever the layer's digest is there.
    assert (deployment.layer_digest == digest(files[0][2])) == (expected == 0)
    if told:
        assert f"Ollama {version} on a " in told[0]

"""The exact JSON of a create, as a target got it, and that Ollama of that era makes the model of it."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from ingest_service.vocabulary.states import DeploymentState, FileRole
from tests.forwarding.world import World, calls
from tests.ollama_emulator import Fault, OllamaEmulator, sample_gguf
from tests.ollama_emulator.names import parse
from tests.support.files import digest
from tests.support.models import CONFIG_JSON

MODEL, PROJECTOR, ADAPTER, SHARD = FileRole.MODEL, FileRole.PROJECTOR, FileRole.ADAPTER, FileRole.SHARD
DRAFT = FileRole.DRAFT
WEIGHTS = sample_gguf({"general.file_type": 1}, [("token_embd.weight", (32, 2), 1, None)])
MMPROJ = sample_gguf({"general.type": "mmproj"})
LORA = sample_gguf({"general.type": "adapter"})
SHARDS = [sample_gguf({"split.no": number, "split.count": 2}) for number in (0, 1)]
SAFE = struct.pack("<Q", 2) + b"{}"
SAFE_SET = [
    ("model.safetensors", MODEL, SAFE),
    ("config.json", MODEL, CONFIG_JSON),
    ("tokenizer.json", MODEL, b'{"model":{}}'),
    ("chat_template.jinja", MODEL, b"{{ messages }}"),
]
#: Out of the order that Ollama sorts by, under names that are not to reach it.
TOGETHER = [("zzz.gguf", ADAPTER, LORA), ("aaa.gguf", PROJECTOR, MMPROJ), ("mmm.bin", MODEL, WEIGHTS)]
TOGETHER_FILES = {"projector.gguf": digest(MMPROJ), "model.gguf": digest(WEIGHTS)}
OPTIONS: dict[str, Any] = {
    "template": "{{ .Prompt }}",
    "system": "Be brief.",
    "licenses": ["MIT", "and more"],
    "parameters": {"num_ctx": 4096.0, "temperature": 0.5, "seed": 7.0, "use_mmap": True, "stop": ["a", "b"]},
    "messages": [{"role": "user", "content": "hi"}, {"role": "assistant"}],
    "renderer": "qwen3-coder",
    "parser": "qwen3",
    "requires": "v0.14.0",
}
OPTIONS_BODY: dict[str, Any] = {
    "template": "{{ .Prompt }}",
    "system": "Be brief.",
    "license": ["MIT", "and more"],
    "parameters": {"num_ctx": 4096, "temperature": 0.5, "seed": 7, "use_mmap": True, "stop": ["a", "b"]},
    "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": ""}],
    "renderer": "qwen3-coder",
    "parser": "qwen3",
    "requires": "0.14.0",
}
Files = list[tuple[str, FileRole, bytes]]


async def created(world: World, emulator: OllamaEmulator, files: Files, **request: Any) -> dict[str, Any]:
    """The body that the target got for it; the deployment is READY."""
    ingest_id = await world.stored_set(files, **request)
    world.worker()
    ingest = await world.done(ingest_id)
    deployment = ingest.deployments[0]
    assert deployment.state is DeploymentState.READY, deployment.failure
    (call,) = emulator.calls.named("create")
    body = dict(call.json)
    assert body.pop("model") == "m:latest"
    assert body.pop("stream") is True
    # The digest that is recorded is that of the model's layer, not of another one's.
    manifest = emulator.models.load(parse("m"))
    assert manifest is not None
    assert deployment.layer_digest == next(one.digest for one in manifest.layers if one.kind == "model")
    return body


@pytest.mark.extended_unless("0.40.0")
@pytest.mark.parametrize("version", ["0.24.0", "0.33.0", "0.40.0"])
async def test_every_option_under_its_name_at_ollama(
    world: World, emulator: OllamaEmulator, version: str
) -> None:
    emulator.version = version
    body = await created(world, emulator, [("x.gguf", MODEL, WEIGHTS)], options=OPTIONS)
    assert body == {"files": {"model.gguf": digest(WEIGHTS)}, **OPTIONS_BODY}
    # Whole numbers are written as such.
    raw = emulator.calls.named("create")[0].json["parameters"]
    assert [type(raw[name]) for name in ("num_ctx", "seed", "temperature")] == [int, int, float]


@pytest.mark.extended_unless("0.24.0")
@pytest.mark.parametrize("version", ["0.11.0", "0.24.0", "0.33.0"])
async def test_a_model_with_projector_and_adapter(
    world: World, emulator: OllamaEmulator, version: str
) -> None:
    emulator.version = version
    body = await created(world, emulator, TOGETHER)
    assert body == {"files": TOGETHER_FILES, "adapters": {"adapter.gguf": digest(LORA)}}


@pytest.mark.extended_unless("0.34.1")
@pytest.mark.parametrize("version", ["0.34.1", "0.40.0", "0.0.0"])
async def test_a_model_with_projector_where_adapters_are_refused(
    world: World, emulator: OllamaEmulator, version: str
) -> None:
    emulator.version = version
    assert await created(world, emulator, TOGETHER[1:]) == {"files": TOGETHER_FILES}


@pytest.mark.extended_unless("0.34.1")
@pytest.mark.parametrize("version", ["0.30.0", "0.34.1"])
async def test_a_draft_beside_the_model(world: World, emulator: OllamaEmulator, version: str) -> None:
    emulator.version = version
    small = sample_gguf({"general.name": "draft", "general.file_type": 1})
    body = await created(world, emulator, [("a.gguf", DRAFT, small), ("b.gguf", MODEL, WEIGHTS)])
    assert body == {"files": {"model.gguf": digest(WEIGHTS)}, "draft_files": {"draft.gguf": digest(small)}}
    manifest = emulator.models.load(parse("m"))
    assert manifest is not None
    assert [layer.digest for layer in manifest.layers if layer.kind == "draft"] == [digest(small)]


async def test_a_draft_is_quantized_and_the_model_is_not(world: World, emulator: OllamaEmulator) -> None:
    emulator.version = "0.30.0"
    small = sample_gguf({"general.name": "draft", "general.file_type": 1})
    files = [("a.gguf", DRAFT, small), ("b.gguf", MODEL, WEIGHTS)]
    body = await created(world, emulator, files, options={"draft_quantize": "q8_0"})
    assert (body["draft_quantize"], "quantize" in body) == ("q8_0", False)
    manifest = emulator.models.load(parse("m"))
    assert manifest is not None
    assert digest(small) not in [layer.digest for layer in manifest.layers]


@pytest.mark.extended_unless("0.40.0")
@pytest.mark.parametrize("version", ["0.30.0", "0.33.0", "0.34.1", "0.40.0"])
async def test_shards_keep_their_numbers_and_come_before_a_projector(
    world: World, emulator: OllamaEmulator, version: str
) -> None:
    emulator.version = version
    names = ["zed-00002-of-00002.GGUF", "zed-00001-of-00002.gguf"]
    body = await created(world, emulator, [(names[0], SHARD, SHARDS[1]), (names[1], SHARD, SHARDS[0])])
    # Ollama sorts them, and names the first one's layer first.
    ours = ["model-00002-of-00002.gguf", "model-00001-of-00002.gguf"]
    assert body == {"files": {ours[0]: digest(SHARDS[1]), ours[1]: digest(SHARDS[0])}}
    assert max(ours) < "projector.gguf"


@pytest.mark.extended_unless("options0")
@pytest.mark.parametrize("version", ["0.24.0", "0.33.0"])
@pytest.mark.parametrize("options", [{}, {"quantize": "Q4_K_M"}])
async def test_a_set_of_safetensors_keeps_its_names(
    world: World, emulator: OllamaEmulator, version: str, options: dict[str, Any]
) -> None:
    emulator.version = version
    body = await created(world, emulator, SAFE_SET, options=options)
    assert body == {"files": {name: digest(data) for name, _, data in SAFE_SET}, **options}


@pytest.mark.extended_unless("0.33.0")
@pytest.mark.parametrize("version", ["0.24.0", "0.33.0"])
async def test_quantize(world: World, emulator: OllamaEmulator, version: str) -> None:
    emulator.version = version
    body = await created(world, emulator, [("x.gguf", MODEL, WEIGHTS)], options={"quantize": "q4_k_m"})
    assert body == {"files": {"model.gguf": digest(WEIGHTS)}, "quantize": "q4_k_m"}


@pytest.mark.extended_unless("0.33.0")
@pytest.mark.parametrize("version", ["0.24.0", "0.33.0"])
@pytest.mark.parametrize("lora", [True, False])
async def test_from_a_model_that_is_there(
    world: World, emulator: OllamaEmulator, version: str, *, lora: bool
) -> None:
    emulator.version = version
    base = await world.stored(WEIGHTS, "base")
    world.worker()
    await world.done(base)
    emulator.calls.clear()
    files = [("l.gguf", ADAPTER, LORA)] if lora else []
    body = await created(world, emulator, files, options={"from": "base", "system": "x"})
    adapters = {"adapters": {"adapter.gguf": digest(LORA)}} if lora else {}
    assert body == {"from": "base", "system": "x"} | adapters


async def test_from_a_model_that_is_not_there_is_never_sent(world: World, emulator: OllamaEmulator) -> None:
    ingest_id = await world.stored_set([("l.gguf", ADAPTER, LORA)], options={"from": "base"})
    world.worker()
    deployment = (await world.done(ingest_id)).deployments[0]
    assert deployment.state is DeploymentState.FAILED
    assert deployment.failure is not None
    assert deployment.failure.reason == "TARGET_REFUSED"
    assert "no model base" in deployment.failure.message
    # Nothing was pushed, and above all nothing created: Ollama would have gone to a registry.
    assert calls(emulator) == "version show"


async def test_from_a_model_that_goes_while_the_adapter_is_pushed(
    world: World, emulator: OllamaEmulator
) -> None:
    base = await world.stored(WEIGHTS, "base")
    world.worker()
    await world.done(base)
    emulator.calls.clear()
    # The first look finds it, the second does not.
    gone = '{"error":"model \'base\' not found"}'
    emulator.faults.add(Fault("respond", "show", after=1, status=404, body=gone))
    ingest_id = await world.stored_set([("l.gguf", ADAPTER, LORA)], options={"from": "base"})
    deployment = (await world.done(ingest_id)).deployments[0]
    assert deployment.state is DeploymentState.FAILED
    assert calls(emulator) == "version show head post show"


@pytest.mark.extended_unless("options0")
@pytest.mark.parametrize(("options", "creates"), [({"quantize": "Q4_K_M"}, 2), ({"system": "x"}, 1)])
async def test_a_lost_answer_to_quantize_is_not_settled_by_the_bytes_as_they_were(
    world: World, emulator: OllamaEmulator, options: dict[str, Any], creates: int
) -> None:
    """A model with the uploaded digest is just what was not asked for; without `quantize` it is."""
    emulator.faults.add(Fault("reset", "create"))
    plain = {"modified_at": "2026-01-01T00:00:00Z", "modelfile": f"FROM /b/sha256-{digest(WEIGHTS)[7:]}"}
    emulator.faults.add(Fault("respond", "show", after=1, status=200, body=json.dumps(plain)))
    ingest_id = await world.stored_set([("x.gguf", MODEL, WEIGHTS)], options=options)
    world.worker()
    deployment = (await world.done(ingest_id)).deployments[0]
    assert deployment.state is DeploymentState.READY
    assert len(emulator.calls.named("create")) == creates
    assert (deployment.layer_digest == digest(WEIGHTS)) == (creates == 1)


@pytest.mark.extended
async def test_as_many_words_as_are_taken_are_also_shown(world: World, emulator: OllamaEmulator) -> None:
    words = {"licenses": ["l" * 1_000_000, "\n" * 1_000_000], "system": "s" * 1_000_000}
    ingest_id = await world.stored_set([("m.gguf", FileRole.MODEL, sample_gguf())], options=words)
    world.worker(retry_seconds=0)
    ingest = await world.done(ingest_id)
    assert ingest.deployments[0].state is DeploymentState.READY, ingest.failure
    assert calls(emulator).split().count("create") == 1

"""What CreateIngest refuses before a byte is sent: code, reason and field, and no ingest comes of it."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import CreateIngestRequest, FileSpec

from tests.rpc.refusals import refused
from tests.rpc.scenes import Scene
from tests.support.files import create_request

pytestmark = pytest.mark.asyncio(loop_scope="module")

_BIDI = ("\u202e", "\u2066", "\u200f")


async def assert_refused(
    scene: Scene, request: CreateIngestRequest, reason: str, field: str
) -> dict[str, str]:
    """Refused with that reason and field; answers the reason's metadata."""
    before = len(await scene.all_ingests())
    refusal = await refused(scene.running.ingests.CreateIngest(request), reason, field)
    # The words of the request are repeated only with everything unprintable taken out, and cut.
    assert refusal.message.isprintable()
    assert len(refusal.message) < 400
    assert len(await scene.all_ingests()) == before
    await scene.assert_nothing_came_of_it()
    return dict(refusal.metadata)


@pytest.mark.extended_unless("evil", "m:t:u")
@pytest.mark.parametrize(
    "name",
    [
        "", " ", "../evil", "a/../b", "..", "a..b", "%2e%2e/x", "/etc/passwd", "a/", "/a", "a//b", ".hidden",
        "registry.example/ns/model", "ns/model/extra", "registry.example/model", "localhost:5000/model",
        "https://h/m", "m:t:u", "m:", ":t", "model@sha256:" + "0" * 64, "a\nb", "a\x00b", "a\x1b[31mb",
        "a\tb", "a\\b", "a b", "ä", "e\u0301", "🦙", "m" * 81, "m:" + "t" * 81, "n" * 81 + "/m", "m" * 10_000,
        *(f"a{mark}b" for mark in _BIDI),
    ],
)  # fmt: skip
async def test_a_model_name_that_ollama_or_a_path_could_misread(shared: Scene, name: str) -> None:
    await assert_refused(shared, create_request(1, name), "NAME_INVALID", "model")


@pytest.mark.extended_unless("x-cloud")
@pytest.mark.parametrize("tag", ["cloud", "local", "x-cloud", "Cloud", "LOCAL", "7b-Cloud", "-cloud"])
async def test_a_tag_that_ollama_keeps_for_itself(shared: Scene, tag: str) -> None:
    await assert_refused(shared, create_request(1, f"m:{tag}"), "NAME_INVALID", "model")


@pytest.mark.extended_unless("../a", "a/b", ".gguf")
@pytest.mark.parametrize(
    "name",
    [
        "", "a/b", "/a", "../a", "a/..", ".", "..", ".gguf", "-rf", "a\\b", "a\x00b", "a\n", "a\r\nb", "a b",
        "a:b", "a%2fb", "ä", "n" * 256, *(f"a{mark}b" for mark in _BIDI),
    ],
)  # fmt: skip
async def test_a_file_name_that_could_become_a_path(shared: Scene, name: str) -> None:
    await assert_refused(shared, create_request(1, file_name=name), "FILE_NAME_INVALID", "files[0].file_name")


@pytest.mark.parametrize("size_bytes", [0, -1, -(2**63), 1024**4 + 1, 2**63 - 1])
async def test_a_size_that_no_file_has_or_that_is_over_the_limit(shared: Scene, size_bytes: int) -> None:
    metadata = await assert_refused(shared, create_request(size_bytes), "SIZE_LIMIT", "files[0].size_bytes")
    assert metadata == {"limit_bytes": str(1024**4)}


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"template": "x" * (2**20 + 1)}, "options.template"),
        ({"system": "x" * (2**20 + 1)}, "options.system"),
        ({"licenses": ["x" * (2**20 + 1)]}, "options.licenses[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "options.messages[0].role"),
        ({"quantize": "Q5_K_M"}, "options.quantize"),
        ({"from": "llama"}, "options.from"),
        ({"renderer": "a\x00b"}, "options.renderer"),
        ({"parser": "x" * 2**20}, "options.parser"),
        ({"requires": "1.0.0\x1b[31m"}, "options.requires"),
        ({"draft_quantize": "Q8_0"}, "options.draft_quantize"),
        ({"parameters": {"temperature": "hot"}}, "options.parameters.temperature"),
        ({"parameters": {"num_ctx": 0.5}}, "options.parameters.num_ctx"),
        ({"parameters": {"num_ctx": None}}, "options.parameters.num_ctx"),
        ({"parameters": {"remote_host": "http://h"}}, "options.parameters.remote_host"),
        ({"parameters": {"temperature": float("nan")}}, "options.parameters"),
        ({"parameters": {"temperature": float("inf")}}, "options.parameters"),
    ],
)
async def test_a_create_option_that_is_not_taken(shared: Scene, options: dict[str, Any], field: str) -> None:
    message = resources_pb2.CreateOptions()
    for name, value in options.items():
        if name == "parameters":
            parameters = Struct()
            parameters.update(value)
            message.parameters.CopyFrom(parameters)
        elif name == "messages":
            message.messages.add(**value[0])
        elif name == "licenses":
            message.licenses.extend(value)
        else:
            setattr(message, name, value)
    await assert_refused(shared, create_request(1, options=message), "OPTION_UNSUPPORTED", field)


@pytest.mark.parametrize(
    ("role", "reason", "field"),
    [
        ("ROLE_PROJECTOR", "OPTION_UNSUPPORTED", "files"),
        ("ROLE_ADAPTER", "OPTION_UNSUPPORTED", "files"),
        ("ROLE_DRAFT", "OPTION_UNSUPPORTED", "files"),
        ("ROLE_SHARD", "FILE_NAME_INVALID", "files[0].file_name"),
        (99, "OPTION_UNSUPPORTED", "files[0].role"),
    ],
)
async def test_a_role_that_makes_no_model_alone(
    shared: Scene, role: str | int, reason: str, field: str
) -> None:
    value: Any = resources_pb2.File.Role.Value(role) if isinstance(role, str) else role
    request = create_request(1)
    request.files[0].role = value
    await assert_refused(shared, request, reason, field)


async def test_safetensors_unless_they_are_switched_on(shared: Scene) -> None:
    names = ("model.safetensors", "config.json", "tokenizer.json")
    request = CreateIngestRequest(model="m", files=[FileSpec(file_name=n, size_bytes=9) for n in names])
    await assert_refused(shared, request, "OPTION_UNSUPPORTED", "files")


@pytest.mark.parametrize("count", [0, 2, 1025])
async def test_a_number_of_models_that_is_not_one(shared: Scene, count: int) -> None:
    files = [FileSpec(file_name=f"{number}.gguf", size_bytes=1) for number in range(count)]
    request = CreateIngestRequest(model="m", files=files)
    await assert_refused(shared, request, "OPTION_UNSUPPORTED", "files")


@pytest.mark.parametrize("target", ["nowhere", "", "Default", "default\n", "http://127.0.0.1:1"])
async def test_a_target_that_is_not_configured(shared: Scene, target: str) -> None:
    request = create_request(1, targets=["default", target])
    metadata = await assert_refused(shared, request, "TARGET_UNKNOWN", "targets[1]")
    assert metadata == {"known": "default"}


async def test_targets_together_with_store_only(shared: Scene) -> None:
    request = create_request(1, targets=["default"], store_only=True)
    await assert_refused(shared, request, "ARGUMENT_INVALID", "store_only")


@pytest.mark.parametrize("request_id", ["x" * 129, "a\nb", "a\x00b", "\u202e"])
async def test_a_request_id_that_is_none(shared: Scene, request_id: str) -> None:
    await assert_refused(shared, create_request(1, request_id=request_id), "ARGUMENT_INVALID", "request_id")


async def test_a_file_for_which_there_is_no_room(shared: Scene) -> None:
    before = await shared.all_ingests()
    refusal = await refused(shared.running.ingests.CreateIngest(create_request(1024**4)), "STORAGE_FULL")
    assert refusal.fields is None
    assert await shared.all_ingests() == before

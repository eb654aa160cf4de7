"""POST /api/create: sequences, statuses and lines (contract section 3)."""

from __future__ import annotations

import httpx
import pytest

from tests.emulator.helpers import (
    ABSENT,
    DIGEST,
    ERAS,
    MODEL,
    TENSOR,
    create,
    lines,
    push,
    statuses,
)
from tests.ollama_emulator import OllamaEmulator, sample_gguf

# It is a tool of the tests: what they need of it fails there, and contract/ holds it to be like Ollama.
pytestmark = pytest.mark.extended

ADAPTER = sample_gguf({"general.type": "adapter"}, [TENSOR])
F32 = sample_gguf({"general.file_type": 0}, [("t", (32,), 0, None)])


@pytest.mark.parametrize("version", [ERAS["A"], ERAS["C"], "0.0.0", "0.40.0", "nightly"])
async def test_in_place(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    await push(client)
    response = await create(client, system="hi <you>", parameters={"top_k": 3})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.headers["transfer-encoding"] == "chunked"
    found = statuses(response)
    assert found[:2] == ["parsing GGUF", f"using existing layer {DIGEST}"]
    assert [status.partition(" sha256")[0] for status in found[2:]] == [
        "creating new layer",
        "creating new layer",
        "writing manifest",
        "success",
    ]
    model = emulator.models["m"]
    assert [layer.kind for layer in model.layers] == ["model", "system", "params"]
    assert model.layers[0].digest == DIGEST
    assert emulator.calls[-1].json["files"] == {"m.gguf": DIGEST}
    assert len(emulator.calls[-1].lines) == 6


@pytest.mark.parametrize("version", [ERAS["B"], "0.33.0-rc2"])
async def test_era_b_rewrites(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    await push(client)
    found = lines(await create(client))
    size = len(MODEL)
    zeros = "0" * 19
    assert found[0] == {"status": "parsing GGUF"}
    assert found[1] == {"status": "validating GGUF model", "digest": zeros, "total": size}
    assert "completed" not in found[1]
    assert found[3]["completed"] == size
    assert found[4] == {"status": "verifying conversion"}
    assert found[5]["status"].startswith("creating new layer sha256:")
    stored = emulator.models["m"].layers[0].digest
    assert found[5]["status"].endswith(stored)
    assert stored != DIGEST
    assert DIGEST in emulator.blobs, "the upload is left behind"
    assert emulator.blobs.sha256(stored) == stored
    again = await create(client, "n")
    assert f"using existing layer {stored}" in statuses(again)
    shown = (await client.post("/api/show", json={"model": "m"})).json()
    assert f"FROM {emulator.blobs.path(stored)}\n" in shown["modelfile"]


async def test_era_b_may_be_silent() -> None:
    async with (
        OllamaEmulator(ERAS["B"], rewrite_progress=False) as emulator,
        httpx.AsyncClient(base_url=emulator.url, trust_env=False) as client,
    ):
        await push(client)
        assert statuses(await create(client))[:2] == ["parsing GGUF", "verifying conversion"]


@pytest.mark.parametrize("version", [ERAS["B"]])
async def test_era_b_leaves_embedded_vision_alone(client: httpx.AsyncClient) -> None:
    digest = await push(client, sample_gguf({}, [("v.patch", (32,), 1, None)]))
    found = statuses(await create(client, files={"m.gguf": digest}))
    assert f"using existing layer {digest}" in found


@pytest.mark.parametrize("version", [ERAS["B"]])
async def test_era_b_refuses_unknown_architectures(client: httpx.AsyncClient) -> None:
    digest = await push(client, sample_gguf({"general.architecture": "novel"}))
    found = statuses(await create(client, files={"m.gguf": digest}))
    assert found[-1].startswith("error: failed to validate GGUF with llama-quantize")


@pytest.mark.parametrize("version", ERAS.values())
async def test_stream_false(client: httpx.AsyncClient) -> None:
    await push(client)
    response = await create(client, stream=False)
    assert response.json() == {"status": "success"}
    assert response.headers["content-type"] == "application/json"


@pytest.mark.extended_when("False")
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"files": None}, "neither 'from' or 'files' was specified"),
        ({"files": {}}, "unknown type"),
        ({"files": {"model": ABSENT}}, "unknown type"),
        ({"files": {"/abs.gguf": DIGEST}}, "file path must be relative"),
        ({"files": {"../up.gguf": DIGEST}}, "file path must be relative"),
        ({"files": {"m.gguf": ""}}, "invalid digest format"),
        ({"model": "a b"}, "invalid model name"),
        ({"model": ""}, "invalid model name"),
        ({"model": "a/b/c/d:"}, "invalid model name"),
        ({"model": "x" * 81}, "invalid model name"),
        ({"from": "bad name"}, "invalid model name"),
    ],
)
async def test_early_refusals_are_400(
    emulator: OllamaEmulator,
    client: httpx.AsyncClient,
    fields: dict[str, object],
    error: str,
    stream: bool,
) -> None:
    await push(client)
    response = await create(client, **{"stream": stream, **fields})  # type: ignore[arg-type]
    assert (response.status_code, response.json()) == (400, {"error": error})
    assert len(emulator.models) == 0


@pytest.mark.parametrize("version", ERAS.values())
async def test_a_draft_to_quantize_that_is_not_there(client: httpx.AsyncClient) -> None:
    await push(client)
    response = await create(client, draft_quantize="Q8_0")
    if (await client.get("/api/version")).json()["version"] == ERAS["A"]:
        # It came before the field, and skips what it does not know.
        assert response.status_code == 200
    else:
        assert (response.status_code, response.json()) == (
            400,
            {"error": "--draft-quantize requires a DRAFT model"},
        )


TRUNCATED = f'tensor "{TENSOR[0]}" offset+size ({len(MODEL)}) exceeds file size ({len(MODEL) - 1})'
Q3 = "unsupported quantization type Q3 - supported types are F32, F16, Q4_K_S, Q4_K_M, Q8_0"
LATE = [
    ({"files": {"m.gguf": "sha256:12"}}, "invalid digest format", 500),
    ({"template": "{{ if }}"}, "template error: template: :1: unexpected EOF", 400),
    ({"info": {"model_family": 3}}, 'info field "model_family" must be a string', 400),
    ({"quantize": "q3"}, Q3, 500),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "error", "status"), LATE)
async def test_late_refusals_are_lines(
    client: httpx.AsyncClient, fields: dict[str, object], error: str, status: int
) -> None:
    await push(client)
    streamed = await create(client, **fields)  # type: ignore[arg-type]
    assert streamed.status_code == 200
    assert statuses(streamed) == ["parsing GGUF", f"error: {error}"]
    waited = await create(client, stream=False, **fields)  # type: ignore[arg-type]
    assert (waited.status_code, waited.json()) == (status, {"error": error})
    assert waited.headers["content-type"] == "application/json"


@pytest.mark.parametrize("version", ERAS.values())
async def test_missing_blob_is_a_line(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    path = emulator.blobs.path(ABSENT)
    text = f"open {path}: no such file or directory"
    response = await create(client, files={"m.gguf": ABSENT})
    assert response.status_code == 200
    assert statuses(response) == ["parsing GGUF", f"error: {text}"]
    waited = await create(client, files={"m.gguf": ABSENT}, stream=False)
    assert (waited.status_code, waited.json()) == (500, {"error": text})


@pytest.mark.extended_unless("html", "GGUF-EOF")
@pytest.mark.parametrize(
    ("data", "error", "status"),
    [
        (b"<html>not a model</html>", "supplied file was not in GGUF format", 400),
        (b"", "supplied file was not in GGUF format", 400),
        (b"GGUF", "EOF", 500),
        (b"GGUF\3\0\0\0\0", "unexpected EOF", 500),
        (MODEL[:-1], TRUNCATED, 500),
        (sample_gguf({}, [("t", (2, 2, 2, 2, 2), 0, None)]),
         'tensor "t" dimensions 5 exceeds maximum 4', 500),
        (sample_gguf({"general.alignment": 0}), "invalid GGUF alignment: 0", 500),
        (sample_gguf({}, [("t", (32,), 99, b"")]), 'tensor "t" size overflow', 500),
    ],
)  # fmt: skip
async def test_gguf_faults(client: httpx.AsyncClient, data: bytes, error: str, status: int) -> None:
    digest = await push(client, data)
    streamed = await create(client, files={"m.gguf": digest})
    assert statuses(streamed) == ["parsing GGUF", f"error: {error}"]
    waited = await create(client, files={"m.gguf": digest}, stream=False)
    assert (waited.status_code, waited.json()["error"]) == (status, error)


async def test_no_suffix_is_sniffed(client: httpx.AsyncClient) -> None:
    await push(client)
    assert statuses(await create(client, files={"model": DIGEST}))[-1] == "success"


@pytest.mark.parametrize("version", ["0.12.5"])
async def test_before_0_12_6_the_first_error_is_a_line(client: httpx.AsyncClient) -> None:
    response = await create(client, files=None)
    assert response.status_code == 200
    error = "neither 'from' or 'files' was specified"
    assert lines(response) == [{"error": error, "status": 400}]


@pytest.mark.parametrize("version", [ERAS["A"], ERAS["B"]])
async def test_adapter(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    await push(client)
    adapter = await push(client, ADAPTER)
    found = statuses(await create(client, adapters={"a.gguf": adapter}))
    assert found.count("parsing GGUF") == 2
    assert found[-1] == "success"
    assert [layer.kind for layer in emulator.models["m"].layers] == ["model", "adapter"]
    two = {"a.gguf": adapter, "b.gguf": adapter}
    refused = statuses(await create(client, adapters=two))
    assert refused[-1] == "error: only one adapter is currently supported"
    local = await create(client, files=None, adapters=two, **{"from": "m"})
    assert local.status_code == 400


@pytest.mark.extended_unless("LoRA", "503-MLX", "too many")
@pytest.mark.parametrize("version", [ERAS["C"]])
@pytest.mark.parametrize(
    ("fields", "status", "error"),
    [
        ({"adapters": {"a.gguf": DIGEST}}, 400, "LoRA adapters are no longer supported"),
        ({"quantize": "Q4_K_M"}, 400, "create-time quantization is only supported for safetensors"),
        ({"files": {"m.safetensors": DIGEST}}, 503, "MLX"),
        ({"files": {"m.safetensors": DIGEST}, "quantize": "q9"}, 400, "unsupported quantize type"),
        ({"files": {"m.safetensors": DIGEST, "m.gguf": DIGEST}}, 400, "mixed model file types: "),
        ({"files": {"m.gguf": "sha256:1"}}, 400, "invalid digest format"),
        ({"files": {"m": ABSENT}}, 400, "blob not found for "),
        ({"files": {"c:m.gguf": DIGEST}}, 400, "file path must be relative"),
        ({"parameters": {"typical_p": 1}}, 400, "parameter typical_p"),
        ({"files": {f"{n}.gguf": DIGEST for n in range(1025)}}, 400, "too many files"),
    ],
)
async def test_era_c_refuses(
    client: httpx.AsyncClient, fields: dict[str, object], status: int, error: str
) -> None:
    await push(client)
    response = await create(client, **fields)  # type: ignore[arg-type]
    assert response.status_code == status
    assert response.json()["error"].startswith(error)


@pytest.mark.parametrize("version", [ERAS["A"], ERAS["B"]])
async def test_quantize(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    await push(client)
    found = lines(await create(client, quantize="q4_k_m"))
    assert found[1] == {
        "status": "quantizing F16 model to Q4_K_M",
        "digest": "0" * 19,
        "total": len(MODEL),
    }
    assert found[-1] == {"status": "success"}
    shown = (await client.post("/api/show", json={"model": "m"})).json()
    assert shown["details"]["quantization_level"] == "Q4_K_M"
    f32 = await push(client, F32)
    refused = statuses(await create(client, files={"m.gguf": f32}, quantize="Q8_0"))
    assert refused[-1] == "error: quantization is only supported for F16, BF16 and F32 models"


async def test_from_wins_over_files(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    await push(client)
    await create(client, "base", system="one")
    response = await create(client, "copy", **{"from": "base", "system": "two"})
    assert statuses(response)[0] == f"using existing layer {DIGEST}"
    layers = emulator.models["copy"].layers
    assert [layer.kind for layer in layers] == ["model", "system"]
    assert emulator.blobs.read(layers[1].digest) == b"two"


async def test_from_of_an_absent_model_pulls(client: httpx.AsyncClient) -> None:
    response = await create(client, files=None, **{"from": "absent"})
    assert statuses(response)[0] == "pulling manifest"
    assert "error" in lines(response)[-1]


async def test_overwrite_deletes_old_layers(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    await push(client)
    await create(client, system="old")
    old = emulator.models["m"].of_kind("system")[0].digest
    await create(client, system="new")
    assert old not in emulator.blobs
    assert DIGEST in emulator.blobs, "used by the new manifest too"
    other = await push(client, sample_gguf({"general.name": "other"}))
    await create(client, files={"m.gguf": other})
    assert DIGEST not in emulator.blobs


async def test_no_prune_keeps_old_layers() -> None:
    async with (
        OllamaEmulator(no_prune=True) as emulator,
        httpx.AsyncClient(base_url=emulator.url, trust_env=False) as client,
    ):
        await push(client)
        await create(client)
        other = await push(client, sample_gguf({"general.name": "other"}))
        await create(client, files={"m.gguf": other})
        assert DIGEST in emulator.blobs


@pytest.mark.parametrize("version", [ERAS["B"]])
async def test_split_gguf(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    shards = {}
    for number in range(2):
        keys = {"split.no": number, "split.count": 2, "split.tensors.count": 2}
        data = sample_gguf(keys, [(f"blk.{number}", (32,), 1, bytes([number]) * 64)])
        shards[f"m-{number + 1:05d}-of-00002.gguf"] = await push(client, data)
    assert statuses(await create(client, files=shards))[-1] == "success"
    stored = emulator.blobs.read(emulator.models["m"].layers[0].digest)
    assert stored.endswith(b"\0" * 64 + b"\1" * 64)
    assert b"split.count" not in stored
    renamed = {"a.gguf": shards["m-00001-of-00002.gguf"]}
    assert "split filename pattern" in statuses(await create(client, files=renamed))[-1]
    one = {"m-00001-of-00002.gguf": shards["m-00001-of-00002.gguf"]}
    assert statuses(await create(client, files=one))[-1].endswith("has 1 shards, expected 2")


async def test_template_autodetection(client: httpx.AsyncClient) -> None:
    chat = "{% for m in messages %}<|im_start|>{{ m.role }}{% endfor %}"
    digest = await push(client, sample_gguf({"tokenizer.chat_template": chat}))
    found = statuses(await create(client, files={"m.gguf": digest}))
    assert found[2] == "using autodetected template chatml"
    assert found[3].startswith("creating new layer")

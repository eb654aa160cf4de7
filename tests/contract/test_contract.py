"""What Ollama answers (ollama-contract.md), asked of the emulator in every era and, on demand, of a real one.

The same assertions hold for both: where the real one differs, the emulator or the contract is wrong.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from typing import Any

import httpx
import pytest

from tests.ollama_emulator import sample_gguf

pytestmark = pytest.mark.extended_when("0.33.0", "0.34.1", "0.40.0")

_ABSENT = "sha256:" + "0" * 64


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def put(ollama: httpx.AsyncClient, data: bytes, sha256: str = "") -> httpx.Response:
    return await ollama.post(f"/api/blobs/{sha256 or digest(data)}", content=data)


async def has(ollama: httpx.AsyncClient, sha256: str) -> int:
    return (await ollama.head(f"/api/blobs/{sha256}")).status_code


async def create(ollama: httpx.AsyncClient, **body: Any) -> tuple[int, list[dict[str, Any]]]:
    response = await ollama.post("/api/create", json=body)
    return response.status_code, [json.loads(line) for line in response.text.splitlines() if line.strip()]


async def ensure(ollama: httpx.AsyncClient, data: bytes) -> str:
    """The blob is there, without posting to one that exists: that may reset (section 2)."""
    if await has(ollama, digest(data)) != 200:
        assert (await put(ollama, data)).status_code == 201
    return digest(data)


async def test_version_is_three_numbers(ollama: httpx.AsyncClient) -> None:
    response = await ollama.get("/api/version")
    assert response.status_code == 200
    assert re.match(r"\d+\.\d+\.\d+", response.json()["version"])


async def test_a_blob_is_absent_then_there_and_taken_once(ollama: httpx.AsyncClient) -> None:
    data = b"contract " + os.urandom(64)
    assert await has(ollama, digest(data)) == 404
    first = await put(ollama, data)
    assert (first.status_code, first.content) == (201, b"")
    assert await has(ollama, digest(data)) == 200
    again = await put(ollama, data)
    assert (again.status_code, again.content) == (200, b"")


async def test_a_malformed_digest_is_400(ollama: httpx.AsyncClient) -> None:
    for wrong in ("sha256:abc", "md5:" + "0" * 32):
        assert await has(ollama, wrong) == 400
        assert (await put(ollama, b"x", wrong)).status_code == 400


async def test_the_bytes_of_a_mismatch_are_kept_under_their_true_name(ollama: httpx.AsyncClient) -> None:
    data = b"mismatch " + os.urandom(64)
    refused = await put(ollama, data, _ABSENT)
    assert refused.status_code == 400
    assert "digest mismatch" in refused.json()["error"]
    assert await has(ollama, _ABSENT) == 404
    # This is why the last MiB of a cut-through push is withheld.
    assert await has(ollama, digest(data)) == 200


async def test_a_body_that_ends_early_leaves_nothing(ollama: httpx.AsyncClient) -> None:
    data = os.urandom(1000)

    class Short(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            yield data[:500]
            raise ConnectionAbortedError

    with contextlib.suppress(httpx.HTTPError, OSError):
        await ollama.post(
            f"/api/blobs/{digest(data)}", content=Short(), headers={"content-length": str(len(data))}
        )
    assert await has(ollama, digest(data)) == 404
    assert await has(ollama, digest(data[:500])) == 404


async def test_create_show_list_delete(ollama: httpx.AsyncClient, name: str, weights: bytes) -> None:
    sha256 = await ensure(ollama, weights)
    status, lines = await create(ollama, model=name, files={"model.gguf": sha256}, stream=True)
    assert status == 200, lines
    said = [line["status"] for line in lines]
    assert said[0] == "parsing GGUF"
    assert said[-2:] == ["writing manifest", "success"]
    layers = [text for text in said if text.startswith(("using existing layer ", "creating new layer "))]
    assert layers
    shown = await ollama.post("/api/show", json={"model": name})
    assert shown.status_code == 200
    assert shown.json()["modified_at"]
    # The first layer line names the model's layer, and so does the modelfile.
    model_layer = layers[0].rpartition(" ")[2]
    assert model_layer.replace(":", "-") in shown.json()["modelfile"]
    listed = {model["name"]: model for model in (await ollama.get("/api/tags")).json()["models"]}
    assert re.fullmatch(r"[0-9a-f]{64}", listed[f"{name}:latest"]["digest"])
    assert (await ollama.request("DELETE", "/api/delete", json={"model": name})).status_code == 200
    gone = await ollama.post("/api/show", json={"model": name})
    assert gone.status_code == 404
    assert "not found" in gone.json()["error"]


async def test_the_same_create_again_ends_the_same(
    ollama: httpx.AsyncClient, name: str, weights: bytes
) -> None:
    sha256 = await ensure(ollama, weights)
    digests = set()
    for _ in range(2):
        _, lines = await create(ollama, model=name, files={"model.gguf": sha256}, stream=True)
        assert lines[-1] == {"status": "success"}
        listed = {model["name"]: model for model in (await ollama.get("/api/tags")).json()["models"]}
        digests.add(listed[f"{name}:latest"]["digest"])
    assert len(digests) == 1


async def test_options_are_kept(ollama: httpx.AsyncClient, name: str, weights: bytes) -> None:
    sha256 = await ensure(ollama, weights)
    _, lines = await create(
        ollama,
        model=name,
        files={"model.gguf": sha256},
        system="You are terse.",
        template="{{ .Prompt }}",
        license=["one", "two"],
        parameters={"temperature": 0.5, "stop": ["a", "b"]},
        messages=[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}],
        stream=True,
    )
    assert lines[-1] == {"status": "success"}
    shown = (await ollama.post("/api/show", json={"model": name})).json()
    assert shown["system"] == "You are terse."
    assert shown["template"] == "{{ .Prompt }}"
    assert "one" in shown["license"]
    assert "two" in shown["license"]
    assert re.search(r"temperature\s+0\.5", shown["parameters"])
    assert len(re.findall(r"^stop\s", shown["parameters"], re.MULTILINE)) == 2


async def test_renderer_parser_and_requires_are_kept_whatever_they_say(
    ollama: httpx.AsyncClient, name: str, weights: bytes
) -> None:
    """No version looks at the names, or compares `requires` with its own."""
    sha256 = await ensure(ollama, weights)
    words = {"renderer": "no-such-renderer", "parser": "no-such-parser", "requires": "99.0.0"}
    _, lines = await create(ollama, model=name, files={"model.gguf": sha256}, **words)
    assert lines[-1] == {"status": "success"}
    shown = (await ollama.post("/api/show", json={"model": name})).json()
    modelfile = shown["modelfile"].splitlines()
    assert "RENDERER no-such-renderer" in modelfile
    assert "PARSER no-such-parser" in modelfile
    assert not [line for line in modelfile if line.startswith("REQUIRES")]
    assert shown["requires"] == "99.0.0"


async def knows_drafts(ollama: httpx.AsyncClient) -> bool:
    version = (await ollama.get("/api/version")).json()["version"]
    return tuple(int(part) for part in version.partition("-")[0].split(".")) >= (0, 30, 0)


async def test_a_draft_is_a_layer_of_its_own_or_ignored(
    ollama: httpx.AsyncClient, name: str, weights: bytes
) -> None:
    sha256, small = await ensure(ollama, weights), await ensure(ollama, sample_gguf({"general.name": name}))
    _, lines = await create(
        ollama, model=name, files={"model.gguf": sha256}, draft_files={"draft.gguf": small}
    )
    assert lines[-1] == {"status": "success"}
    modelfile = (await ollama.post("/api/show", json={"model": name})).json()["modelfile"].splitlines()
    drafts = [line for line in modelfile if line.startswith("DRAFT ")]
    parsed = [line for line in lines if line["status"] == "parsing GGUF"]
    if await knows_drafts(ollama):
        assert [line.endswith(small.replace(":", "-")) for line in drafts] == [True]
        assert len(parsed) == 2
        assert {"status": f"using existing layer {small}"} in lines
        # It is not rewritten, and the model's layer is still the first that is named.
        layers = [line["status"] for line in lines if " layer sha256:" in line["status"]]
        assert layers.index(f"using existing layer {small}") > 0
    else:
        assert (drafts, len(parsed)) == ([], 1)


async def test_a_draft_that_cannot_be_is_refused_or_ignored(
    ollama: httpx.AsyncClient, name: str, weights: bytes
) -> None:
    sha256, text = await ensure(ollama, weights), await ensure(ollama, b"no draft " + os.urandom(16))
    whole = {"model": name, "files": {"model.gguf": sha256}}
    bodies: tuple[dict[str, Any], ...] = (
        {"draft_quantize": "Q8_0"},
        {"draft_files": {}},
        {"draft_files": {"../draft.gguf": sha256}},
        {"draft_files": {"draft.gguf": text}},
        {"draft_files": {"draft.gguf": _ABSENT}},
    )
    for body in bodies:
        _, lines = await create(ollama, **whole, **body)
        assert ("error" in lines[-1]) == await knows_drafts(ollama), (body, lines[-1])


async def test_a_create_whose_blob_is_not_there_fails(ollama: httpx.AsyncClient, name: str) -> None:
    status, lines = await create(ollama, model=name, files={"model.gguf": _ABSENT}, stream=True)
    assert status in {200, 400}
    assert "error" in lines[-1]
    assert (await ollama.post("/api/show", json={"model": name})).status_code == 404


async def test_what_is_no_gguf_is_refused(ollama: httpx.AsyncClient, name: str) -> None:
    sha256 = await ensure(ollama, b"this is no model " + os.urandom(16))
    _, lines = await create(ollama, model=name, files={"model.gguf": sha256}, stream=True)
    assert "error" in lines[-1]
    assert (await ollama.post("/api/show", json={"model": name})).status_code == 404


async def test_a_create_of_nothing_is_400(ollama: httpx.AsyncClient, name: str) -> None:
    for body in (
        {"model": name},
        {"model": name, "files": {}},
        {"model": "a b", "files": {"m.gguf": _ABSENT}},
    ):
        status, lines = await create(ollama, **body)
        assert (status, "error" in lines[-1]) == (400, True), body


async def test_paths_and_methods(ollama: httpx.AsyncClient) -> None:
    assert (await ollama.get("/api/nothing")).status_code == 404
    assert (await ollama.get(f"/api/blobs/{_ABSENT}")).status_code == 405
    root = await ollama.get("/")
    assert (root.status_code, root.text) == (200, "Ollama is running")
    for call, path in (("POST", "/api/show"), ("DELETE", "/api/delete")):
        assert (await ollama.request(call, path, json={"model": "model-ingest-none"})).status_code == 404

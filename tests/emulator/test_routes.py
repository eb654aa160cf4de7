"""The other routes, plain-text refusals, Origin and Host checks (contract sections 1 and 5)."""

from __future__ import annotations

import hashlib
import re

import httpx
import pytest

from tests.emulator.helpers import ABSENT, DIGEST, ERAS, create, push, raw
from tests.ollama_emulator import OllamaEmulator

# It is a tool of the tests: what they need of it fails there, and contract/ holds it to be like Ollama.
pytestmark = pytest.mark.extended

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")


@pytest.mark.extended_unless("404", "405")
@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/", 200, "Ollama is running"),
        ("HEAD", "/", 200, ""),
        ("GET", "/api/version", 200, '{"version":"0.24.0"}'),
        ("HEAD", "/api/version", 200, ""),
        ("GET", "/api/tags", 200, '{"models":[]}'),
        ("HEAD", "/api/tags", 200, ""),
        ("GET", "/api/ps", 200, '{"models":[]}'),
        ("GET", "/nothing", 404, "404 page not found"),
        ("GET", "/api/blobs/a/b", 404, "404 page not found"),
        ("GET", f"/api/blobs/{ABSENT}", 405, "405 method not allowed"),
        ("GET", "/api/create", 405, "405 method not allowed"),
        ("HEAD", "/api/ps", 405, ""),
        ("POST", "/api/delete", 405, "405 method not allowed"),
    ],
)
async def test_answers(client: httpx.AsyncClient, method: str, path: str, status: int, body: str) -> None:
    response = await client.request(method, path)
    assert (response.status_code, response.text) == (status, body)
    if status >= 400:
        assert response.headers["content-type"] == "text/plain"
    elif path != "/":
        assert response.headers["content-type"] == "application/json; charset=utf-8"


@pytest.mark.extended_unless("show", "delete", "copy")
@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error"),
    [
        ("POST", "/api/create", "", 400, "missing request body"),
        ("POST", "/api/create", "{", 400, "unexpected EOF"),
        ("POST", "/api/create", "[]", 400,
         "json: cannot unmarshal array into Go value of type api.CreateRequest"),
        ("POST", "/api/create", '{"model":3}', 400,
         "json: cannot unmarshal number into Go struct field CreateRequest.model of type string"),
        ("POST", "/api/show", "", 400, "missing request body"),
        ("POST", "/api/show", "{}", 400, "model is required"),
        ("POST", "/api/show", '{"model":"a b"}', 400, "invalid model name"),
        ("POST", "/api/show", '{"name":"x"}', 404, "model 'x' not found"),
        ("POST", "/api/show", '{"model":"u/x:y"}', 404, "model 'u/x:y' not found"),
        ("POST", "/api/show", '{"model":"x:cloud"}', 403, None),
        ("DELETE", "/api/delete", "", 400, "missing request body"),
        ("DELETE", "/api/delete", '{"model":"a b"}', 400, 'name "a b" is invalid'),
        ("DELETE", "/api/delete", '{"model":"x"}', 404, "model 'x' not found"),
        ("POST", "/api/copy", '{"source":"a b"}', 400, 'source "a b" is invalid'),
        ("POST", "/api/copy", '{"source":"a"}', 400, 'destination "" is invalid'),
        ("POST", "/api/copy", '{"source":"a","destination":"b"}', 404, 'model "a" not found'),
        ("POST", "/api/pull", "", 400, "missing request body"),
        ("POST", "/api/generate", "{}", 501, None),
    ],
)  # fmt: skip
async def test_refusals(
    client: httpx.AsyncClient, method: str, path: str, body: str, status: int, error: str | None
) -> None:
    response = await client.request(method, path, content=body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    if error is not None:
        assert response.json() == {"error": error}


async def test_show_and_tags(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    await push(client)
    await create(client, "Foo", system='say "hi"\nnow', license=["one", "two"], parameters={"top_k": 2})
    shown = (await client.post("/api/show", json={"model": "foo:LATEST"})).json()
    assert shown["details"]["format"] == "gguf"
    assert shown["details"]["family"] == "llama"
    assert shown["details"]["quantization_level"] == "F16"
    assert shown["model_info"]["general.parameter_count"] == 128
    assert shown["license"] == "one\ntwo"
    assert f"\nFROM {emulator.blobs.path(DIGEST)}\n" in shown["modelfile"]
    assert 'SYSTEM """say "hi"\nnow"""' in shown["modelfile"]
    assert STAMP.fullmatch(shown["modified_at"])
    assert shown["capabilities"] == ["completion"]
    (entry,) = (await client.get("/api/tags")).json()["models"]
    assert entry["name"] == entry["model"] == "Foo:latest"
    manifest = (emulator.data_dir / "manifests/registry.ollama.ai/library/Foo/latest").read_bytes()
    assert entry["digest"] == hashlib.sha256(manifest).hexdigest()
    assert entry["modified_at"] == shown["modified_at"]
    assert entry["size"] == emulator.models["foo"].size


async def test_verbose_show_lists_tensors(client: httpx.AsyncClient) -> None:
    await push(client)
    await create(client)
    shown = (await client.post("/api/show", json={"model": "m", "verbose": True})).json()
    assert shown["tensors"][0]["shape"] == [32, 4]


async def test_show_of_a_model_without_its_blob(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    await push(client)
    await create(client)
    emulator.blobs.remove(DIGEST)
    assert (await client.post("/api/show", json={"model": "m"})).status_code == 404


async def test_modified_at_may_have_an_offset() -> None:
    async with (
        OllamaEmulator(utc_offset_minutes=-450) as emulator,
        httpx.AsyncClient(base_url=emulator.url, trust_env=False) as client,
    ):
        await push(client)
        await create(client)
        (entry,) = (await client.get("/api/tags")).json()["models"]
        assert STAMP.fullmatch(entry["modified_at"])
        assert entry["modified_at"].endswith("-07:30")


async def test_copy_and_delete(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    await push(client)
    await create(client, "a")
    copied = await client.post("/api/copy", json={"source": "A", "destination": "b:v1"})
    assert (copied.status_code, copied.content) == (200, b"")
    assert sorted(emulator.models) == ["a:latest", "b:v1"]
    for name, kept in (("a", True), ("B:V1", False)):
        deleted = await client.request("DELETE", "/api/delete", json={"model": name})
        assert (deleted.status_code, deleted.content) == (200, b"")
        assert deleted.headers["content-length"] == "0"
        assert (DIGEST in emulator.blobs) == kept
    assert emulator.blobs.digests() == set()
    assert list((emulator.data_dir / "manifests").iterdir()) == []


@pytest.mark.parametrize("given", ["foo", "FOO:latest", "library/Foo", "Foo:LATEST"])
async def test_names_fold_case(emulator: OllamaEmulator, client: httpx.AsyncClient, given: str) -> None:
    await push(client)
    await create(client, "Foo")
    await create(client, given)
    assert list(emulator.models) == ["Foo:latest"]


async def test_pull_answers_an_error_line(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/pull", json={"model": "x"})
    assert response.status_code == 200
    assert response.text.splitlines() == [
        '{"status":"pulling manifest"}',
        '{"error":"pull model manifest: file does not exist"}',
    ]


@pytest.mark.extended_unless("headers1-", "headers2-")
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Authorization": "Bearer x"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Origin": "app://x"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost:11434"}, 200),
        ({"Host": "ollama.internal"}, 200),
        ({"Host": "192.168.1.5:80"}, 200),
        ({"Host": "[::1]:80"}, 200),
        ({"Host": "8.8.8.8"}, 403),
    ],
)
async def test_origin_and_host(client: httpx.AsyncClient, headers: dict[str, str], status: int) -> None:
    response = await client.get("/api/version", headers=headers)
    assert response.status_code == status
    if status == 403:
        assert response.content == b""


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"nonsense\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (b"GET / HTTP/1.1\r\n\r\n", b"missing required Host header"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b"Ollama is running"),
        (b"GET / HTTP/1.0\r\n\r\n", b"Ollama is running"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2, b"Ollama is running"),
    ],
)
async def test_raw_requests(emulator: OllamaEmulator, request_: bytes, answer: bytes) -> None:
    received = await raw(emulator.url, request_, end=True)
    assert received.count(answer) == request_.count(b"GET / HTTP/1.1\r\nHost") or answer in received


@pytest.mark.parametrize("version", [ERAS["C"]])
async def test_version_can_change(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    emulator.version = "0.24.0"
    assert (await client.get("/api/version")).json() == {"version": "0.24.0"}
    assert emulator.era.value == "A"

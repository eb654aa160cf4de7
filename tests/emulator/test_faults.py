"""Scripted faults on whole calls (contract section 9)."""

from __future__ import annotations

import asyncio
import gzip
import os
import time

import httpx
import pytest

from tests.emulator.helpers import DIGEST, ERAS, MODEL, create, digest_of, push, raw, statuses
from tests.ollama_emulator import Fault, OllamaEmulator

# It is a tool of the tests: what they need of it fails there, and contract/ holds it to be like Ollama.
pytestmark = pytest.mark.extended

BROKEN = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
BIG = os.urandom(8 << 20)
BIG_DIGEST = digest_of(BIG)


async def test_reset_at_byte(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    armed = emulator.faults.add(Fault("reset", "blob_post", at_bytes=1 << 20))
    with pytest.raises(BROKEN):
        await client.post(f"/api/blobs/{BIG_DIGEST}", content=BIG)
    call = emulator.calls[0]
    assert (call.body_bytes, call.status, call.outcome) == (1 << 20, None, "reset")
    assert armed.fired == 1
    await push(client, BIG)
    assert emulator.blobs.temps() == []


@pytest.mark.parametrize("kind", ["reset", "hang_up"])
@pytest.mark.parametrize("takes_effect", [False, True])
async def test_lost_answer(
    emulator: OllamaEmulator, client: httpx.AsyncClient, kind: str, takes_effect: bool
) -> None:
    emulator.faults.add(Fault(kind, "blob_post", takes_effect=takes_effect))
    with pytest.raises(BROKEN):
        await client.post(f"/api/blobs/{DIGEST}", content=MODEL)
    head = await client.head(f"/api/blobs/{DIGEST}")
    assert head.status_code == (200 if takes_effect else 404)
    assert emulator.calls[0].body_bytes == len(MODEL)
    assert emulator.calls[0].outcome == {"reset": "reset", "hang_up": "hung_up"}[kind]


async def test_rst_is_an_rst_and_fin_is_a_fin(emulator: OllamaEmulator) -> None:
    request = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n"
    emulator.faults.add(Fault("reset", "version"))
    with pytest.raises(ConnectionResetError):
        await raw(emulator.url, request)
    emulator.faults.add(Fault("hang_up", "version"))
    assert await raw(emulator.url, request) == b""


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        ("version", {"status": 502, "body": "<html>Bad Gateway</html>", "content_type": "text/html"}),
        ("version", {"status": 403}),
        ("version", {"status": 500, "body": '{"error":"x"}', "content_type": "application/json"}),
        ("version", {"status": 307, "headers": {"Location": "http://elsewhere.invalid/"}}),
        ("version", {"status": 200, "body": b'{"version":"\xff\xfe"}'}),
        ("create", {"status": 413, "body": "<html>", "content_type": "text/html"}),
        ("blob_head", {"status": 405}),
    ],
)
async def test_scripted_answers(
    emulator: OllamaEmulator, client: httpx.AsyncClient, call: str, fault: dict[str, object]
) -> None:
    emulator.faults.add(Fault("respond", call, times=2, **fault))  # type: ignore[arg-type]
    for _ in range(2):
        if call == "create":
            response = await create(client)
        elif call == "blob_head":
            response = await client.head(f"/api/blobs/{DIGEST}")
        else:
            response = await client.get("/api/version")
        assert response.status_code == fault["status"]
        body = fault.get("body", b"")
        assert response.content == (body.encode() if isinstance(body, str) else body)
        assert response.headers.get("content-type") == fault.get("content_type")
        if "headers" in fault:
            assert response.is_redirect
    assert (await client.get("/api/version")).json() == {"version": "0.24.0"}
    assert len(emulator.models) == 0


async def test_413_of_a_small_and_of_a_large_body(
    emulator: OllamaEmulator, client: httpx.AsyncClient
) -> None:
    fault = Fault("respond", "blob_post", times=2, status=413, body="too large", at_bytes=0)
    emulator.faults.add(fault)
    small = await client.post(f"/api/blobs/{DIGEST}", content=MODEL)
    assert (small.status_code, small.text) == (413, "too large")
    with pytest.raises(BROKEN):
        await client.post(f"/api/blobs/{BIG_DIGEST}", content=BIG * 2)
    assert emulator.calls.body_bytes() == 0
    assert [call.status for call in emulator.calls] == [413, 413]


@pytest.mark.parametrize("at_bytes", [0, 100, None])
async def test_no_space(emulator: OllamaEmulator, client: httpx.AsyncClient, at_bytes: int | None) -> None:
    emulator.faults.add(Fault("no_space", "blob_post", at_bytes=at_bytes))
    response = await client.post(f"/api/blobs/{DIGEST}", content=MODEL)
    assert response.status_code == 500
    assert response.json()["error"].startswith(f"write {emulator.blobs.folder}/sha256-")
    assert response.json()["error"].endswith(": no space left on device")
    assert emulator.calls.body_bytes() == (len(MODEL) if at_bytes is None else at_bytes)
    assert emulator.blobs.digests() == set()


async def test_gateway_timeout_while_the_model_appears(
    emulator: OllamaEmulator, client: httpx.AsyncClient
) -> None:
    await push(client)
    emulator.faults.add(Fault("respond", "create", status=504, takes_effect=True))
    assert (await create(client)).status_code == 504
    assert "m" in emulator.models


@pytest.mark.parametrize("call", ["create", "blob_head"])
async def test_vanishing_blob(emulator: OllamaEmulator, client: httpx.AsyncClient, call: str) -> None:
    await push(client)
    emulator.faults.add(Fault("vanish_blob", call))
    assert (await client.head(f"/api/blobs/{DIGEST}")).status_code == 200
    assert statuses(await create(client))[-1].endswith("no such file or directory")
    await push(client)
    assert statuses(await create(client))[-1] == "success"


async def test_truncated_upload(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    emulator.faults.add(Fault("truncate_blob", "blob_post", size=len(MODEL) - 5))
    await push(client)
    assert (await client.head(f"/api/blobs/{DIGEST}")).status_code == 200
    assert "exceeds file size" in statuses(await create(client))[-1]
    assert emulator.blobs.sha256(DIGEST) != DIGEST


async def test_corrupt_upload(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    emulator.faults.add(Fault("corrupt_upload", "blob_post", at_bytes=5 << 20))
    response = await client.post(f"/api/blobs/{BIG_DIGEST}", content=BIG)
    assert response.status_code == 400
    assert response.json()["error"].startswith(f'digest mismatch, expected "{BIG_DIGEST}"')
    changed = bytearray(BIG)
    changed[5 << 20] ^= 0xFF
    assert emulator.blobs.digests() == {digest_of(bytes(changed))}


@pytest.mark.parametrize("call", ["version", "blob_post"])
async def test_stall_until_released(emulator: OllamaEmulator, client: httpx.AsyncClient, call: str) -> None:
    armed = emulator.faults.add(Fault("stall", call))
    async with asyncio.TaskGroup() as tasks:
        if call == "version":
            task = tasks.create_task(client.get("/api/version"))
        else:
            task = tasks.create_task(client.post(f"/api/blobs/{DIGEST}", content=MODEL))
        await armed.wait_stalled()
        await asyncio.sleep(0.05)
        assert not task.done()
        armed.release()
    assert task.result().status_code in (200, 201)


async def test_stall_in_mid_upload(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    armed = emulator.faults.add(Fault("stall", "blob_post", at_bytes=1 << 20))
    upload = asyncio.create_task(push(client, BIG))
    await armed.wait_stalled()
    assert emulator.calls[0].body_bytes == 1 << 20
    assert len(emulator.blobs.temps()) == 1
    emulator.faults.release()
    assert await upload == BIG_DIGEST


async def test_a_stalled_client_that_leaves_is_noticed(
    emulator: OllamaEmulator, client: httpx.AsyncClient
) -> None:
    emulator.faults.add(Fault("stall", "version"))
    with pytest.raises(httpx.ReadTimeout):
        await client.get("/api/version", timeout=0.1)
    async with asyncio.timeout(60):
        while emulator.calls[0].outcome != "client_gone":
            await asyncio.sleep(0.01)


@pytest.mark.extended
async def test_slow_reader_pushes_back(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    rate = 4 << 20
    emulator.faults.add(Fault("slow_read", "blob_post", bytes_per_second=rate))
    start = time.monotonic()
    upload = asyncio.create_task(push(client, BIG))
    await asyncio.sleep(0.5)
    assert emulator.calls.body_bytes() < rate
    assert not upload.done()
    await upload
    assert time.monotonic() - start > len(BIG) / rate * 0.8


async def test_refused_connections(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    url = emulator.url
    await client.get("/api/version")
    await emulator.stop_listening()
    for _ in range(2):
        with pytest.raises(httpx.ConnectError):
            await client.get("/api/version")
    assert not emulator.listening
    await emulator.start_listening()
    assert emulator.url == url
    assert (await client.get("/api/version")).status_code == 200


async def test_refuse_fault(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    emulator.faults.add(Fault("refuse", "blob_post", at_bytes=1 << 20, seconds=0.2))
    with pytest.raises(BROKEN):
        await client.post(f"/api/blobs/{BIG_DIGEST}", content=BIG)
    async with asyncio.timeout(60):
        while True:
            try:
                await push(client, BIG)
                break
            except httpx.TransportError:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("version", "prune", "age", "gone"),
    [
        ("0.24.0", "none", 9999, False),
        ("0.24.0", "grace", 0, False),
        ("0.24.0", "grace", 3700, True),
        ("0.20.0", "grace", 0, True),
        ("0.24.0", "all", 0, True),
    ],
)
async def test_restart(
    emulator: OllamaEmulator, client: httpx.AsyncClient, prune: str, age: int, gone: bool
) -> None:
    await push(client)
    await create(client)
    orphan = await push(client, b"orphan")
    emulator.blobs.touch(orphan, age)
    emulator.blobs.touch(DIGEST, 9999)
    removed = await emulator.restart(prune)
    assert removed == ([orphan] if gone else [])
    assert DIGEST in emulator.blobs, "referenced blobs stay at any age"
    assert "m" in emulator.models
    assert len(emulator.calls) == 3, "the record survives too"
    assert (await client.head(f"/api/blobs/{DIGEST}")).status_code == 200


async def test_upgrade_by_restart(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", emulator.port)
    await asyncio.sleep(0.05)
    await emulator.restart(version="0.34.1")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    assert (await client.get("/api/version")).json() == {"version": "0.34.1"}


async def test_restart_fault(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    await push(client)
    emulator.faults.add(Fault("restart", "create", prune="all", version="0.40.0"))
    with pytest.raises(BROKEN):
        await create(client)
    async with asyncio.timeout(60):
        while emulator.version != "0.40.0" or not emulator.listening:
            await asyncio.sleep(0.01)
    assert (await client.head(f"/api/blobs/{DIGEST}")).status_code == 404


async def test_gzip(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    await push(client)
    emulator.faults.add(Fault("gzip", "version"))
    emulator.faults.add(Fault("gzip", "create"))
    response = await client.get("/api/version")
    assert response.headers["content-encoding"] == "gzip"
    assert response.json() == {"version": "0.24.0"}
    created = await create(client)
    assert created.headers["content-encoding"] == "gzip"
    assert statuses(created)[-1] == "success"
    request = b"GET /api/version HTTP/1.0\r\n\r\n"
    emulator.faults.add(Fault("gzip", "version"))
    body = (await raw(emulator.url, request)).partition(b"\r\n\r\n")[2]
    assert gzip.decompress(body) == b'{"version":"0.24.0"}'


@pytest.mark.parametrize("reset", [False, True])
async def test_plain_answer_cut_in_half(
    emulator: OllamaEmulator, client: httpx.AsyncClient, reset: bool
) -> None:
    emulator.faults.add(Fault("cut", "tags", reset=reset))
    with pytest.raises(BROKEN):
        await client.get("/api/tags")
    assert emulator.calls[0].outcome == "cut"


@pytest.mark.parametrize("version", [ERAS["B"]])
async def test_bad_safetensors_kill_the_server(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    config = await push(client, b'{"architectures":["LlamaForCausalLM"]}')
    weights = await push(client, b"\xff" * 64)
    files = {"config.json": config, "model.safetensors": weights}
    with pytest.raises(BROKEN):
        await create(client, files=files)
    async with asyncio.timeout(60):
        while not emulator.listening:
            await asyncio.sleep(0.01)
    good = await push(client, (2).to_bytes(8, "little") + b"{}")
    found = statuses(await create(client, files={**files, "model.safetensors": good}))
    assert (found[0], found[-1]) == ("converting model", "success")

"""Faults inside an NDJSON answer, and clients that leave (contract sections 3.2 to 3.4, 9)."""

from __future__ import annotations

import asyncio
import json
import time

import httpx
import pytest

from tests.emulator.helpers import DIGEST, ERAS, create, lines, push, statuses
from tests.ollama_emulator import Fault, OllamaEmulator

# It is a tool of the tests: what they need of it fails there, and contract/ holds it to be like Ollama.
pytestmark = pytest.mark.extended

MANIFEST = "writing manifest"


@pytest.mark.extended_unless("parsing GGUF-True-True", "None-False-False")
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("takes_effect", [False, True])
@pytest.mark.parametrize("after_line", [MANIFEST, "parsing GGUF", 1, None])
async def test_cut(
    emulator: OllamaEmulator,
    client: httpx.AsyncClient,
    after_line: str | int | None,
    takes_effect: bool,
    reset: bool,
) -> None:
    await push(client)
    fault = Fault("cut", "create", after_line=after_line, takes_effect=takes_effect, reset=reset)
    emulator.faults.add(fault)
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        await create(client)
    assert emulator.calls[-1].outcome == "cut"
    shown = await client.post("/api/show", json={"model": "m"})
    assert shown.status_code == (200 if takes_effect else 404)
    assert emulator.wedged == 0


@pytest.mark.extended_unless("parsing-False", "None-True")
@pytest.mark.parametrize("takes_effect", [False, True])
@pytest.mark.parametrize("after_line", ["parsing", MANIFEST, None])
async def test_clean_end_without_success(
    emulator: OllamaEmulator,
    client: httpx.AsyncClient,
    after_line: str | None,
    takes_effect: bool,
) -> None:
    await push(client)
    fault = Fault("end_early", "create", after_line=after_line, takes_effect=takes_effect)
    emulator.faults.add(fault)
    response = await create(client)
    assert response.status_code == 200
    assert "success" not in response.text
    assert len(statuses(response)) == {"parsing": 1, MANIFEST: 3, None: 0}[after_line]
    assert ("m" in emulator.models) == takes_effect


@pytest.mark.parametrize("takes_effect", [False, True])
async def test_error_line(emulator: OllamaEmulator, client: httpx.AsyncClient, takes_effect: bool) -> None:
    await push(client)
    fault = Fault("error_line", "create", after_line=MANIFEST, body="boom", takes_effect=takes_effect)
    emulator.faults.add(fault)
    response = await create(client)
    assert response.status_code == 200
    assert statuses(response)[-2:] == [MANIFEST, "error: boom"]
    assert ("m" in emulator.models) == takes_effect


@pytest.mark.extended_unless("garbage-0", "9437184")
@pytest.mark.parametrize(
    ("line", "size"), [(b"garbage", 0), (b"\xff\xfe\x00", 0), (b"", 9 << 20), (b"\r", 0), (b"[]", 0)]
)
async def test_raw_lines(emulator: OllamaEmulator, client: httpx.AsyncClient, line: bytes, size: int) -> None:
    await push(client)
    emulator.faults.add(Fault("raw_line", "create", after_line=1, body=line, size=size))
    found = (await create(client)).content.split(b"\n")
    if size:
        assert len(json.loads(found[1])["status"]) == size
    else:
        assert found[1] == line
    assert found[-2] == b'{"status":"success"}'


async def stream_pieces(emulator: OllamaEmulator) -> list[bytes]:
    """The payloads as TCP delivers them, one read at a time."""
    body = json.dumps({"model": "m", "files": {"m.gguf": DIGEST}}).encode()
    head = f"POST /api/create HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", emulator.port)
    pieces: list[bytes] = []
    try:
        writer.write(head.encode() + body)
        await reader.readuntil(b"\r\n\r\n")
        while True:
            size = int(await reader.readline(), 16)
            piece = (await reader.readexactly(size + 2))[:-2]
            if size == 0:
                return pieces
            pieces.append(piece)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_one_flush_per_line(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    await push(client)
    pieces = await stream_pieces(emulator)
    assert len(pieces) == 4
    assert all(piece.count(b"\n") == 1 for piece in pieces)


async def test_split_lines(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    await push(client)
    emulator.faults.add(Fault("split_lines", "create", at_bytes=5))
    pieces = await stream_pieces(emulator)
    assert pieces[0] == b'{"sta'
    assert len(pieces) == 8
    assert b"".join(pieces).endswith(b'{"status":"success"}\n')


async def test_joined_lines(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    await push(client)
    emulator.faults.add(Fault("join_lines", "create"))
    pieces = await stream_pieces(emulator)
    assert [piece.count(b"\n") for piece in pieces] == [2, 2]


async def test_lines_come_one_by_one(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    await push(client)
    armed = emulator.faults.add(Fault("stall", "create", after_line=MANIFEST))
    body = {"model": "m", "files": {"m.gguf": DIGEST}}
    seen = []
    async with client.stream("POST", "/api/create", json=body) as response:
        async for line in response.aiter_lines():
            seen.append(json.loads(line)["status"])
            if seen[-1] == MANIFEST:
                assert armed.stalled == 1 or not armed.fired
                assert "m" not in emulator.models
                armed.release()
    assert seen[-1] == "success"


@pytest.mark.parametrize(("kind", "extra"), [("stall", {"after_line": "parsing"}), ("line_delay", {})])
async def test_silence_between_lines(
    emulator: OllamaEmulator, client: httpx.AsyncClient, kind: str, extra: dict[str, object]
) -> None:
    await push(client)
    emulator.faults.add(Fault(kind, "create", seconds=0.2, **extra))  # type: ignore[arg-type]
    start = time.monotonic()
    assert statuses(await create(client))[-1] == "success"
    assert time.monotonic() - start >= (0.2 if kind == "stall" else 0.8)


async def leave(client: httpx.AsyncClient, emulator: OllamaEmulator, *, stream: bool) -> None:
    """Starts a create and leaves it in the middle."""
    with pytest.raises(httpx.ReadTimeout):
        await create(client, stream=stream)


@pytest.mark.extended
@pytest.mark.parametrize(
    ("version", "stream", "after_line", "exists", "wedged"),
    [
        (ERAS["A"], True, "parsing GGUF", False, 1),
        (ERAS["B"], True, "validating", False, 1),
        (ERAS["B"], True, MANIFEST, True, 1),
        (ERAS["C"], True, "parsing GGUF", False, 0),
        (ERAS["C"], True, MANIFEST, False, 0),
        (ERAS["C"], False, "parsing GGUF", False, 0),
    ],
)
async def test_client_that_leaves(
    emulator: OllamaEmulator, stream: bool, after_line: str, exists: bool, wedged: int
) -> None:
    async with httpx.AsyncClient(base_url=emulator.url, trust_env=False, timeout=0.3) as client:
        await push(client)
        emulator.faults.add(Fault("stall", "create", after_line=after_line))
        await leave(client, emulator, stream=stream)
        async with asyncio.timeout(60):
            while emulator.calls[-1].outcome == "open":
                await asyncio.sleep(0.01)
    assert emulator.calls[-1].outcome == "client_gone"
    assert ("m" in emulator.models) == exists
    assert emulator.wedged == wedged
    if after_line == "validating":
        assert [path.name[:4] for path in emulator.blobs.temps()] == ["COPY"], "a leaked temporary"


@pytest.mark.extended
@pytest.mark.parametrize("version", [ERAS["A"], ERAS["B"]])
async def test_unwatched_create_runs_on(emulator: OllamaEmulator) -> None:
    """`stream:false` in eras A and B: the waiter ignores that the client left."""
    async with httpx.AsyncClient(base_url=emulator.url, trust_env=False, timeout=0.3) as client:
        await push(client)
        emulator.faults.add(Fault("line_delay", "create", seconds=0.15))
        await leave(client, emulator, stream=False)
        assert "m" not in emulator.models
        async with asyncio.timeout(60):
            while "m" not in emulator.models:
                await asyncio.sleep(0.01)
    assert emulator.wedged == 0


async def test_faults_can_be_combined_and_matched(
    emulator: OllamaEmulator, client: httpx.AsyncClient
) -> None:
    await push(client)
    emulator.faults.add(Fault("error_line", "create", after_line=1, body="no", match='"beta"'))
    emulator.faults.add(Fault("raw_line", "create", after_line=1, body="{}", times=None))
    assert lines(await create(client, "alpha"))[1] == {}
    assert statuses(await create(client, "beta"))[-1] == "error: no"
    assert emulator.calls[-1].faults == ["error_line", "raw_line"]

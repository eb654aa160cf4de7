"""HEAD and POST /api/blobs/:digest (contract sections 1 and 2)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.emulator.helpers import ABSENT, DIGEST, MODEL, digest_of, push, raw
from tests.ollama_emulator import OllamaEmulator

# It is a tool of the tests: what they need of it fails there, and contract/ holds it to be like Ollama.
pytestmark = pytest.mark.extended

MIB = 1 << 20
DASHED = DIGEST.replace(":", "-")


async def pieces(data: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.mark.parametrize("chunked", [False, True])
async def test_post_stores_and_head_finds(
    emulator: OllamaEmulator, client: httpx.AsyncClient, chunked: bool
) -> None:
    data = os.urandom(3 * MIB + 17)
    digest = digest_of(data)
    assert (await client.head(f"/api/blobs/{digest}")).status_code == 404
    content = pieces(data) if chunked else data
    response = await client.post(f"/api/blobs/{digest}", content=content)
    assert (response.status_code, response.content) == (201, b"")
    assert response.headers["content-length"] == "0"
    assert "content-type" not in response.headers
    head = await client.head(f"/api/blobs/{digest}")
    assert head.status_code == 200
    assert "content-length" not in head.headers
    assert emulator.blobs.sha256(digest) == digest
    assert emulator.blobs.temps() == []
    assert emulator.blobs.path(digest).stat().st_mode & 0o777 == 0o644
    assert [call.body_bytes for call in emulator.calls] == [0, len(data), 0]


async def test_empty_body_is_a_blob(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    await push(client, b"")
    assert emulator.blobs.size(digest_of(b"")) == 0


@pytest.mark.extended_unless("200", "gggg")
@pytest.mark.parametrize(
    ("digest", "status"),
    [
        (ABSENT, 404),
        ("sha256:" + "0" * 63, 400),
        ("sha256:" + "0" * 65, 400),
        ("sha256:" + "g" * 64, 400),
        ("sha512:" + "0" * 64, 400),
        ("SHA256:" + "0" * 64, 400),
        ("0" * 64, 400),
        (DIGEST, 200),
        (DASHED, 200),
        (DIGEST.replace("sha256:", "sha256%3A"), 200),
        (DIGEST.upper().replace("SHA", "sha"), 404),  # looked for under exactly that name
    ],
)
async def test_head_digest_grammar(client: httpx.AsyncClient, digest: str, status: int) -> None:
    await push(client)
    response = await client.head(f"/api/blobs/{digest}")
    assert response.status_code == status
    assert response.content == b""
    if status != 200:
        assert response.headers["content-type"] == "application/json; charset=utf-8"


async def test_post_of_a_bad_digest(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/blobs/sha256:12", content=b"x")
    assert response.status_code == 400
    assert response.json() == {"error": "invalid digest format"}


@pytest.mark.parametrize("given", [ABSENT, DASHED, "sha256:" + DIGEST[7:].upper()])
async def test_mismatch_is_refused_but_stored(
    emulator: OllamaEmulator, client: httpx.AsyncClient, given: str
) -> None:
    response = await client.post(f"/api/blobs/{given}", content=MODEL)
    assert response.status_code == 400
    assert response.json() == {"error": f'digest mismatch, expected "{given}", got "{DIGEST}"'}
    assert (await client.head(f"/api/blobs/{DIGEST}")).status_code == 200
    assert emulator.blobs.digests() == {DIGEST}


@pytest.mark.parametrize("size", [100, MIB])
async def test_existing_blob_is_answered_unread(
    emulator: OllamaEmulator, client: httpx.AsyncClient, size: int
) -> None:
    digest = await push(client, b"x" * size)
    response = await client.post(f"/api/blobs/{digest}", content=b"x" * size)
    assert (response.status_code, response.content) == (200, b"")
    assert emulator.calls[-1].body_bytes == 0
    # Go drains up to 256 KiB to keep the connection; above that it closes it.
    assert ("connection" in response.headers) == (size > 256 << 10)


@pytest.mark.parametrize("generator", [False, True])
async def test_httpx_loses_the_200_of_a_large_body(
    emulator: OllamaEmulator, client: httpx.AsyncClient, generator: bool
) -> None:
    data = bytes(16 * MIB)
    digest = emulator.blobs.add(data)
    with pytest.raises(httpx.ReadError):
        await client.post(f"/api/blobs/{digest}", content=pieces(data, MIB) if generator else data)
    call = emulator.calls[0]
    assert (call.status, call.body_bytes) == (200, 0)
    assert (await client.head(f"/api/blobs/{digest}")).status_code == 200


async def test_expect_100_continue(emulator: OllamaEmulator) -> None:
    def request(digest: str) -> bytes:
        head = f"POST /api/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        return f"{head}Content-Length: {len(MODEL)}\r\nExpect: 100-continue\r\n\r\n".encode()

    fresh = await raw(emulator.url, request(DIGEST) + MODEL)
    assert fresh.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\n")
    known = await raw(emulator.url, request(DIGEST) + MODEL)
    assert known.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 100\r\n\r\nshort",
        b"Transfer-Encoding: chunked\r\n\r\n64\r\nshort",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
    ],
)
async def test_short_body(emulator: OllamaEmulator, body: bytes) -> None:
    head = f"POST /api/blobs/{ABSENT} HTTP/1.1\r\nHost: localhost\r\n".encode()
    answer = await raw(emulator.url, head + body, end=True)
    assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert answer.endswith(b'{"error":"unexpected EOF"}')
    while emulator.blobs.temps():  # removed by a thread
        await asyncio.sleep(0.01)
    assert emulator.blobs.digests() == set()


async def test_concurrent_uploads_both_get_201(emulator: OllamaEmulator) -> None:
    data = os.urandom(2 * MIB)

    async def one() -> int:
        async with httpx.AsyncClient(base_url=emulator.url, trust_env=False) as client:
            content = pieces(data, 4096)
            return (await client.post(f"/api/blobs/{digest_of(data)}", content=content)).status_code

    assert list(await asyncio.gather(one(), one())) == [201, 201]
    assert emulator.blobs.digests() == {digest_of(data)}
    assert emulator.blobs.temps() == []


async def test_truncated_blob_counts_as_present(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    await push(client)
    emulator.blobs.truncate(DIGEST, 10)
    assert (await client.head(f"/api/blobs/{DIGEST}")).status_code == 200
    assert (await client.post(f"/api/blobs/{DIGEST}", content=MODEL)).status_code == 200
    assert emulator.blobs.size(DIGEST) == 10


async def test_many_requests_on_one_connection(emulator: OllamaEmulator, client: httpx.AsyncClient) -> None:
    for size in range(5):
        await push(client, b"y" * size)
    assert {call.connection for call in emulator.calls} == {1}

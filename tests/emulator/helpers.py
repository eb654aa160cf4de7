"""What the emulator's tests share: a sample model, the calls a client makes, a raw socket."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from typing import Any

import httpx

from tests.ollama_emulator import sample_gguf

TENSOR = ("blk.0.attn_q.weight", (32, 4), 1, None)
MODEL = sample_gguf({"general.file_type": 1}, [TENSOR])
ERAS = {"A": "0.24.0", "B": "0.34.0", "C": "0.34.1"}


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


DIGEST = digest_of(MODEL)
ABSENT = "sha256:" + "0" * 64


async def push(client: httpx.AsyncClient, data: bytes = MODEL) -> str:
    response = await client.post(f"/api/blobs/{digest_of(data)}", content=data)
    assert response.status_code == 201, response.text
    return digest_of(data)


async def create(client: httpx.AsyncClient, model: str = "m", **fields: Any) -> httpx.Response:
    body = {"model": model, "files": {"m.gguf": DIGEST}, **fields}
    return await client.post("/api/create", json={k: v for k, v in body.items() if v is not None})


def lines(response: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in response.text.splitlines()]


def statuses(response: httpx.Response) -> list[str]:
    return [line.get("status", f"error: {line.get('error')}") for line in lines(response)]


async def raw(url: str, data: bytes, *, end: bool = False) -> bytes:
    """Sends bytes as they are and reads until the server closes."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        await writer.drain()
        if end:
            writer.write_eof()
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

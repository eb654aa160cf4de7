"""Reading what a target answers. All of it is hostile: capped, never decompressed, never believed blindly."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx

from ingest_service.forwarding.target import BlobMissing, NoSpace, Refused, TargetError, Unreachable

#: security.md R8.
_MAX_BODY_BYTES = 4 * 1024 * 1024
_MAX_ERROR_BYTES = 64 * 1024
_MAX_LINE_BYTES = 1024 * 1024
_TRY_AGAIN = frozenset({408, 429})
_BLOB_MISSING = ("no such file or directory", "blob not found", "blob does not exist")


async def read_body(response: httpx.Response, limit_bytes: int = _MAX_BODY_BYTES) -> bytes:
    """The body, raw; at most `limit_bytes` of it.

    Raises Unreachable for a compressed body: it was not asked for, and unpacking it could fill the memory.
    """
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise Unreachable("The answer is compressed although that was not asked for.")
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) >= limit_bytes:
            return bytes(body[:limit_bytes])
    return bytes(body)


async def read_json(response: httpx.Response) -> dict[str, Any]:
    """The body as a JSON object. Raises Unreachable if it is none."""
    try:
        data = json.loads(await read_body(response))
    except (ValueError, RecursionError):
        raise Unreachable(f"HTTP {response.status_code} with a body that is no JSON.") from None
    if not isinstance(data, dict):
        raise Unreachable(f"HTTP {response.status_code} with JSON that is no object.")
    return data


async def read_error(response: httpx.Response) -> tuple[str, bool]:
    """What an error answer says, and whether Ollama itself said it (and not a proxy in front of it)."""
    body = await read_body(response, _MAX_ERROR_BYTES)
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    if isinstance(data, dict) and isinstance(data.get("error"), str):
        return data["error"], True
    text = body[:512].decode("utf-8", "replace").strip()
    return f"HTTP {response.status_code}" + (f": {text}" if text else ""), False


async def error_of(response: httpx.Response) -> TargetError:
    """The error for an answer that is not a success: 5xx, 408 and 429 are worth another try."""
    words, _ = await read_error(response)
    if response.is_redirect:
        return Refused(f"HTTP {response.status_code}: redirects are not followed; correct the target's URL.")
    if response.status_code >= 500 or response.status_code in _TRY_AGAIN:
        return NoSpace(words) if is_no_space(words) else Unreachable(words)
    if response.status_code in {401, 403}:
        return Refused(f"{words}: the target, or a proxy before it, does not let this service in.")
    return Refused(words)


def error_from_create(words: str) -> TargetError:
    """The error for what create said: final, but for a missing blob and a full disk (design.md section 5)."""
    if is_no_space(words):
        return NoSpace(words)
    if any(text in words.lower() for text in _BLOB_MISSING):
        return BlobMissing(words)
    return Refused(words)


def is_no_space(words: str) -> bool:
    """The target's disk is full."""
    return "no space left" in words.lower() or "disk full" in words.lower()


async def lines(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """NDJSON lines however TCP cut them; the last one may lack its newline.

    Raises Refused for a line over 1 MiB, Unreachable for a compressed body.
    """
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise Unreachable("The answer is compressed although that was not asked for.")
    rest = bytearray()
    async for part in response.aiter_raw():
        rest += part
        while (end := rest.find(b"\n")) >= 0:
            line = bytes(rest[:end]).strip()
            del rest[: end + 1]
            if line:
                yield line
        if len(rest) > _MAX_LINE_BYTES:
            raise Refused(f"The target sent a line of more than {_MAX_LINE_BYTES} bytes.")
    if rest.strip():
        yield bytes(rest).strip()

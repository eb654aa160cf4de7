"""Reading what a target answers. All of it is hostile: capped, never decompressed, never believed blindly."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Collection
from typing import Any, cast

import httpx

from ingest_service.forwarding.json_picker import JsonPicker, Path
from ingest_service.forwarding.metered import AnswerBudget
from ingest_service.forwarding.target import BlobMissing, NoSpace, Refused, TargetError, Unreachable

#: A body that is decoded as a whole: a version, an error.
_MAX_BODY_BYTES = 64 * 1024
#: Half of a longer one says nothing worth an interruption: it is passed over.
_MAX_LINE_BYTES = 256 * 1024
#: Of one create; Ollama says some hundreds.
_MAX_LINES = 100_000
_MAX_LINES_BYTES = 64 * 1024 * 1024
#: What is kept of a text in a large body.
_MAX_TEXT_BYTES = 64 * 1024
#: What answers may cost, by what they are. What `show` says holds each of our options' texts twice, and
#: Ollama writes `<`, `>` and `&` as six characters each: 3 MiB of options may become 36.
SMALL = AnswerBudget(_MAX_BODY_BYTES, 0.5)
SHOWN = AnswerBudget(40 * 1024 * 1024, 5.0)
LISTED = AnswerBudget(4 * 1024 * 1024, 5.0)
CREATED = AnswerBudget(_MAX_LINES_BYTES, 30.0)
_COMPRESSED = "The answer is compressed although that was not asked for."
_WHOSE = "this is not Ollama, or something before it answers; check the target's URL."
_TRY_AGAIN = frozenset({408, 429})
_BLOB_MISSING = ("no such file or directory", "blob not found", "blob does not exist")


async def read_body(response: httpx.Response, limit_bytes: int = _MAX_BODY_BYTES) -> bytes:
    """The body, raw; at most `limit_bytes` of it.

    Raises Unreachable for a compressed body: it was not asked for, and unpacking it could fill the memory.
    """
    if _is_compressed(response):
        raise Unreachable(_COMPRESSED)
    body = bytearray()
    async with _raw(response) as parts:
        async for part in parts:
            body += part
            if len(body) >= limit_bytes:
                break
    return bytes(body[:limit_bytes])


async def pick_texts(
    response: httpx.Response,
    wanted: Collection[Path],
    on_text: Callable[[Path, int, str], None],
    budget: AnswerBudget,
) -> None:
    """Texts out of a large JSON object, as it comes (JsonPicker). Raises Unreachable if it is none."""
    if _is_compressed(response):
        raise Unreachable(_COMPRESSED)
    picker, size_bytes = JsonPicker(wanted, on_text, _MAX_TEXT_BYTES), 0
    try:
        async with _raw(response) as parts:
            async for part in parts:
                size_bytes += len(part)
                if size_bytes > budget.body_bytes:
                    raise Unreachable(f"The target answered with more than {budget.body_bytes} bytes.")
                picker.feed(part)
        picker.end()
    except ValueError:
        raise Unreachable(
            f"HTTP {response.status_code} with a body that is no JSON object: {_WHOSE}"
        ) from None


async def read_json(response: httpx.Response) -> dict[str, Any]:
    """The body, a small one, as a JSON object. Raises Unreachable if it is none."""
    try:
        data = json.loads(await read_body(response))
    except (ValueError, RecursionError):
        raise Unreachable(f"HTTP {response.status_code} with a body that is no JSON: {_WHOSE}") from None
    if not isinstance(data, dict):
        raise Unreachable(f"HTTP {response.status_code} with JSON that is no object: {_WHOSE}")
    return data


async def read_error(response: httpx.Response) -> tuple[str, bool]:
    """What an error answer says, and whether Ollama itself said it (and not a proxy in front of it)."""
    # A body that cannot be read must not hide the status, which says more.
    body = b"" if _is_compressed(response) else await read_body(response)
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
    if is_worth_another_try(response):
        return NoSpace(words) if is_no_space(words) else Unreachable(words)
    if response.status_code in {401, 403}:
        return Refused(f"{words}: the target, or a proxy before it, does not let this service in.")
    return Refused(words)


def is_worth_another_try(response: httpx.Response) -> bool:
    """Its status says that the same request may succeed later."""
    return response.status_code >= 500 or response.status_code in _TRY_AGAIN


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

    Reads to the end, because leaving early wedges Ollama (contract 3.4): a line over 256 KiB is passed over
    and not kept. Raises Unreachable for a compressed body, at its end, and for a body without end.
    """
    is_compressed = _is_compressed(response)
    line, is_too_long, total_bytes, count = bytearray(), False, 0, 0
    async with _raw(response) as parts:
        async for part in parts:
            total_bytes += len(part)
            if total_bytes > _MAX_LINES_BYTES:
                raise Unreachable(f"The answer did not end within {_MAX_LINES_BYTES} bytes.")
            count += part.count(b"\n")
            if count > _MAX_LINES:
                raise Unreachable(f"The answer did not end within {_MAX_LINES} lines.")
            for index, piece in enumerate(() if is_compressed else part.split(b"\n")):
                if index:  # a newline stood before it
                    if line.strip():
                        yield bytes(line).strip()
                    line.clear()
                    is_too_long = False
                is_too_long = is_too_long or len(line) + len(piece) > _MAX_LINE_BYTES
                if is_too_long:
                    line.clear()
                else:
                    line += piece
    if is_compressed:
        raise Unreachable(_COMPRESSED)
    if line.strip():
        yield bytes(line).strip()


def _is_compressed(response: httpx.Response) -> bool:
    return bool(response.headers.get("content-encoding", "identity").lower() != "identity")


def _raw(response: httpx.Response) -> contextlib.aclosing[AsyncGenerator[bytes, None]]:
    """The body's parts as they come, never decompressed; closed when it is left, not when it is collected."""
    return contextlib.aclosing(cast("AsyncGenerator[bytes, None]", response.aiter_raw()))

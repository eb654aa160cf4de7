"""Ollama's HTTP API as far as it is needed, by the recipe of ollama-contract.md section 8."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from ingest_service.forwarding.answers import error_from_create, error_of, lines, read_error, read_json
from ingest_service.forwarding.target import OutcomeUnknown, Refused, Target, TargetError, Unreachable
from ingest_service.storage import BlobReader
from ingest_service.vocabulary.text import clean

_QUICK = httpx.Timeout(10.0)
_SHOW = httpx.Timeout(30.0, connect=10.0)
#: The server hashes what it got before it answers: the wait after the last byte may be long.
_PUSH = httpx.Timeout(60.0, connect=10.0, read=300.0)
_CREATE = httpx.Timeout(60.0, connect=10.0, read=None)
_PUSH_CHUNK_BYTES = 2 * 1024 * 1024
_ALIVE_CHECK_SECONDS = 30.0
_DEAD_CHECKS = 3


@dataclass(frozen=True, slots=True)
class Shown:
    """What `show` says of a model that is there."""

    modified_at: str


@dataclass(frozen=True, slots=True)
class CreateLine:
    """One line of create's answer. `status` is Ollama's free text, cleaned."""

    status: str
    digest: str
    completed_bytes: int
    total_bytes: int


class OllamaClient:
    """One target. Raises TargetError and its kin, nothing of httpx."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._client = httpx.AsyncClient(
            base_url=target.url,
            headers={**target.headers, "accept-encoding": "identity"},
            # A backend client uses no proxy of its environment, follows nobody elsewhere (R9) and keeps few
            # connections: Ollama closes idle ones on a restart.
            trust_env=False,
            follow_redirects=False,
            verify=ssl.create_default_context() if target.url.startswith("https:") else False,
            limits=httpx.Limits(max_connections=8, max_keepalive_connections=2, keepalive_expiry=15.0),
        )

    async def close(self) -> None:
        """Closes its connections."""
        await self._client.aclose()

    async def version(self) -> str:
        """Ollama's version."""
        async with self._request("GET", "/api/version", timeout=_QUICK) as response:
            if response.status_code != 200:
                raise await error_of(response)
            return clean(str((await read_json(response)).get("version", "")), 64)

    async def has_blob(self, sha256: str) -> bool:
        """It says it has the blob. A hint, not a proof: Ollama only looks for the file's name."""
        async with self._request("HEAD", f"/api/blobs/{sha256}", timeout=_QUICK) as response:
            if response.status_code == 200:
                return True
            if response.status_code == 404:
                return False
            raise await error_of(response)

    async def push_blob(self, sha256: str, blob: BlobReader, on_progress: Callable[[int], None]) -> None:
        """Sends the bytes. After any error the outcome is unknown to the caller: ask `has_blob`."""

        async def body() -> AsyncIterator[bytes]:
            offset = 0
            while offset < blob.size_bytes:
                data = await blob.read(offset, _PUSH_CHUNK_BYTES)
                if not data:
                    return
                offset += len(data)
                yield data
                on_progress(offset)

        headers = {"content-length": str(blob.size_bytes), "content-type": "application/octet-stream"}
        path = f"/api/blobs/{sha256}"
        async with self._request("POST", path, content=body(), headers=headers, timeout=_PUSH) as response:
            if response.status_code not in {200, 201}:
                raise await error_of(response)

    async def show(self, model: str) -> Shown | None:
        """The model as it is there; None if it is not."""
        async with self._request("POST", "/api/show", json={"model": model}, timeout=_SHOW) as response:
            if response.status_code == 404:
                return None
            if response.status_code != 200:
                raise await error_of(response)
            return Shown(clean(str((await read_json(response)).get("modified_at", "")), 64))

    async def manifest_digest(self, model: str) -> str:
        """The sha256 of the model's manifest; "" if the target does not list it."""
        async with self._request("GET", "/api/tags", timeout=_SHOW) as response:
            if response.status_code != 200:
                raise await error_of(response)
            models = (await read_json(response)).get("models")
        for entry in models if isinstance(models, list) else []:
            if isinstance(entry, dict) and str(entry.get("name", "")).lower() == model.lower():
                return clean(str(entry.get("digest", "")), 80)
        return ""

    async def create(
        self, body: Mapping[str, Any], on_line: Callable[[CreateLine], None], silence_seconds: float
    ) -> None:
        """Creates a model; returns only after a line whose status is `success`.

        Silence is allowed for `silence_seconds` while the target still answers `version`. Raises Refused,
        BlobMissing or NoSpace by what create said, OutcomeUnknown if its answer was cut off or never ended.
        """
        try:
            async with self._request("POST", "/api/create", json=body, timeout=_CREATE) as response:
                if response.status_code != 200:
                    raise await self._create_refused(response)
                await self._read_create(response, on_line, silence_seconds)
        except Unreachable as error:
            # The request may have arrived: only `show` knows what became of it.
            raise OutcomeUnknown(error.words) from error

    @staticmethod
    async def _create_refused(response: httpx.Response) -> TargetError:
        if response.is_redirect or response.status_code in {401, 403}:
            return await error_of(response)
        words, said_by_ollama = await read_error(response)
        if response.status_code >= 500 and not said_by_ollama:
            return OutcomeUnknown(words)
        return error_from_create(words)

    async def _read_create(
        self, response: httpx.Response, on_line: Callable[[CreateLine], None], silence_seconds: float
    ) -> None:
        answer = _CreateAnswer()
        async with contextlib.aclosing(lines(response)) as stream:
            # Read on to the end whatever comes: leaving early wedges Ollama (contract 3.4).
            while (line := await self._next_line(stream, silence_seconds)) is not None:
                taken = answer.take(line)
                if taken is not None:
                    on_line(taken)
        answer.judge()

    async def _next_line(self, stream: AsyncIterator[bytes], silence_seconds: float) -> bytes | None:
        """The next line; None at the end. Asks `version` during silence, and gives up as documented."""
        loop = asyncio.get_running_loop()
        silent_since, dead_checks = loop.time(), 0
        reading = asyncio.ensure_future(anext(stream, None))
        try:
            while True:
                done, _ = await asyncio.wait({reading}, timeout=_ALIVE_CHECK_SECONDS)
                if done:
                    return reading.result()
                if loop.time() - silent_since > silence_seconds:
                    raise OutcomeUnknown(f"Create said nothing for {silence_seconds:.0f} s.")
                try:
                    await self.version()
                    dead_checks = 0
                except TargetError as error:
                    dead_checks += 1
                    if dead_checks >= _DEAD_CHECKS:
                        raise OutcomeUnknown("The target died while it was creating.") from error
        finally:
            if not reading.done():
                reading.cancel()
                await asyncio.wait({reading})

    @contextlib.asynccontextmanager
    async def _request(self, method: str, path: str, **options: Any) -> AsyncIterator[httpx.Response]:
        try:
            async with self._client.stream(method, path, **options) as response:
                yield response
        except httpx.UnsupportedProtocol as error:
            raise Refused(f"The target's URL cannot be used: {error}") from error
        except (httpx.HTTPError, httpx.StreamError, ssl.SSLError) as error:
            raise Unreachable(f"{type(error).__name__}: {error}") from error


class _CreateAnswer:
    """What the lines of one create add up to."""

    def __init__(self) -> None:
        self._succeeded = False
        self._manifest_written = False
        self._error: str | None = None

    def take(self, line: bytes) -> CreateLine | None:
        """Reads a line; None if it is no status. What is no JSON object is passed over."""
        try:
            data = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(data, dict):
            return None
        if "error" in data:
            self._error = str(data["error"])
            return None
        status = clean(str(data.get("status", "")))
        self._succeeded = self._succeeded or status == "success"
        self._manifest_written = self._manifest_written or status == "writing manifest"
        digest = clean(str(data.get("digest", "")), 80)
        return CreateLine(status, digest, _count(data.get("completed")), _count(data.get("total")))

    def judge(self) -> None:
        """Raises unless it was a success."""
        if self._succeeded:
            return
        if self._error is None:
            raise OutcomeUnknown("The answer to create ended without success.")
        if self._manifest_written:
            # The clean-up of old layers failed; the model is there all the same (contract 3.2).
            raise OutcomeUnknown(self._error, otherwise=error_from_create(self._error))
        raise error_from_create(self._error)


def _count(value: object) -> int:
    return min(max(value, 0), 2**62) if isinstance(value, int) and not isinstance(value, bool) else 0

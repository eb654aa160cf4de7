"""Ollama's HTTP API as far as it is needed, by the recipe of ollama-contract.md section 8."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import httpx

from ingest_service.forwarding.answers import (
    CREATED,
    LISTED,
    SHOWN,
    SMALL,
    error_from_create,
    error_of,
    is_worth_another_try,
    lines,
    pick_texts,
    read_error,
    read_json,
)
from ingest_service.forwarding.create_answer import CreateAnswer, CreateLine, text_of
from ingest_service.forwarding.metered import AnswerBudget
from ingest_service.forwarding.target import (
    OutcomeUnknown,
    Refused,
    Target,
    TargetError,
    Unreachable,
    without,
)
from ingest_service.forwarding.transport import BUDGET, Transport
from ingest_service.storage import BlobReader
from ingest_service.telemetry import descriptors
from ingest_service.telemetry.descriptors import SHORTAGE
from ingest_service.vocabulary.errors import BlobCorrupt
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.text import clean

_log = logging.getLogger(__name__)

#: A wait for one packet, and for the whole answer: one that drips must not hold a deployment for ever.
_QUICK: Mapping[str, Any] = {"timeout": httpx.Timeout(10.0), "within_seconds": 30.0}
_SHOW: Mapping[str, Any] = {"timeout": httpx.Timeout(30.0, connect=10.0), "within_seconds": 90.0}
#: Unlinking tens of gigabytes takes a moment; whoever asked waits for the answer.
_DELETE: Mapping[str, Any] = {"timeout": httpx.Timeout(15.0, connect=5.0), "within_seconds": 15.0}
#: The server hashes what it got before it answers: the wait after the last byte may be long.
_PUSH = httpx.Timeout(60.0, connect=10.0, read=300.0)
#: From the last byte on, however often it says "wait" (1xx).
_PUSH_ANSWER_SECONDS = 900.0
_CREATE = httpx.Timeout(60.0, connect=10.0, read=None)
_PUSH_CHUNK_BYTES = 2 * 1024 * 1024
_ALIVE_CHECK_SECONDS = 30.0
_DEAD_CHECKS = 3
#: After `success` Ollama closes its answer at once; one that goes on talking is not listened to.
_AFTER_SUCCESS_SECONDS = 1.0
_BAD_URL = "The target's URL, or one that it redirects to, cannot be used: correct the setting."
#: The first that fits counts.
_WORDS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (httpx.ConnectTimeout, "The target did not answer the attempt to connect."),
    (httpx.ConnectError, "The target accepts no connection."),
    ((httpx.TimeoutException, TimeoutError), "The target did not answer in time."),
    (httpx.NetworkError, "The connection to the target broke."),
    (httpx.RemoteProtocolError, "The target broke off in mid-answer, or does not speak HTTP."),
)
_ANY_WORDS = "The target could not be talked to."
#: The model layer in a modelfile: its path as the target sees it, whatever the system there.
_MODEL_LAYER = re.compile(r"^FROM .*sha256[-:]([0-9a-f]{64})\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Shown:
    """What `show` says of a model that is there."""

    modified_at: str
    layer_digest: str


class OllamaClient:
    """One target: `async with`. Raises TargetError and its kin, nothing of httpx."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def __aenter__(self) -> Self:
        target = self._target
        try:
            self._secrets = target.secrets()
            self._client = httpx.AsyncClient(
                base_url=target.url,
                headers={**target.headers, "accept-encoding": "identity"},
                # A backend client uses no proxy of its environment and follows nobody elsewhere (R9).
                trust_env=False,
                follow_redirects=False,
                transport=Transport(
                    await asyncio.to_thread(_trust, target) if target.url.startswith("https:") else None
                ),
            )
        except (httpx.InvalidURL, ValueError, OSError) as error:
            if SHORTAGE.note(error):
                raise Unreachable(descriptors.WORDS) from error
            _log.error("a target cannot be used", extra={"target": target.name, "detail": str(error)})
            raise Refused(_BAD_URL) from error
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.aclose()

    async def version(self) -> str:
        """Ollama's version."""
        async with self._request("GET", "/api/version", **_QUICK) as response:
            if response.status_code == 404 and self._target.url.endswith(("/api", "/v1")):
                end = self._target.url.rpartition("/")[2]
                raise Refused(
                    f"HTTP 404: the target's URL ends in /{end}; Ollama's address ends before that."
                    " Leave it out."
                )
            if response.status_code != 200:
                raise await error_of(response)
            words = text_of((await read_json(response)).get("version"))
            # Hidden first: what is cut in the middle of a secret would keep the half of it.
            return clean(without(self._secrets, words), 64)

    async def has_blob(self, sha256: str) -> bool:
        """It says it has the blob. A hint, not a proof: Ollama only looks for the file's name."""
        async with self._request("HEAD", f"/api/blobs/{sha256}", **_QUICK) as response:
            if response.status_code == 200:
                return True
            if response.status_code == 404:
                return False
            raise await error_of(response)

    async def push_blob(self, sha256: str, blob: BlobReader, on_progress: Callable[[int], None]) -> None:
        """Sends the bytes. After any error the outcome is unknown to the caller: ask `has_blob`.

        Raises BlobCorrupt if the blob is shorter than it was, and what reading it raises.
        """

        async def body() -> AsyncGenerator[bytes, None]:
            offset = 0
            while offset < blob.size_bytes:
                data = await blob.read(offset, min(_PUSH_CHUNK_BYTES, blob.size_bytes - offset))
                if not data:
                    raise BlobCorrupt
                offset += len(data)
                yield data
                on_progress(offset)

        await self.push_body(sha256, blob.size_bytes, body())

    async def push_body(self, sha256: str, size_bytes: int, body: AsyncGenerator[bytes, None]) -> None:
        """Sends what `body` yields, all `size_bytes` of it; if `body` raises, the connection closes short."""
        headers = {"content-length": str(size_bytes), "content-type": "application/octet-stream"}
        path = f"/api/blobs/{sha256}"
        limit = asyncio.timeout(None)

        async def then_time_counts() -> AsyncGenerator[bytes, None]:
            async with contextlib.aclosing(body) as parts:
                async for part in parts:
                    yield part
            limit.reschedule(asyncio.get_running_loop().time() + _PUSH_ANSWER_SECONDS)

        async with (
            contextlib.aclosing(then_time_counts()) as content,
            self._request(
                "POST", path, content=content, headers=headers, timeout=_PUSH, limit=limit
            ) as response,
        ):
            if response.status_code not in {200, 201}:
                raise await error_of(response)

    async def show(self, model: str, *, in_ollamas_words: bool = False) -> Shown | None:
        """The model as it is there; None if it is not.

        `in_ollamas_words`: only Ollama itself may say so. Another's 404, a proxy's perhaps, is then Refused.
        """
        texts: dict[str, str] = {}
        body = {"model": model}
        async with self._request("POST", "/api/show", json=body, budget=SHOWN, **_SHOW) as response:
            if response.status_code == 404:
                if in_ollamas_words:
                    words, said_by_ollama = await read_error(response)
                    if not said_by_ollama:
                        raise Refused(words)
                return None
            if response.status_code != 200:
                raise await error_of(response)
            await pick_texts(
                response,
                [("modelfile",), ("modified_at",)],
                lambda path, _, text: texts.update({path[0]: text}),
                SHOWN,
            )
        # Ollama writes the model's own layer before all other texts.
        layer = _MODEL_LAYER.search(texts.get("modelfile", ""))
        return Shown(clean(texts.get("modified_at", ""), 64), f"sha256:{layer[1]}" if layer else "")

    async def manifest_digest(self, canonical_model: str) -> str:
        """The sha256 of the model's manifest; "" if the target does not list it.

        Ollama lists the shortest form of a name, spelt as it is stored there.
        """
        listed: dict[str, str] = {}
        found: list[str] = []
        last = -1

        def on_text(path: tuple[str, ...], index: int, text: str) -> None:
            nonlocal last
            if index != last:
                last = index
                listed.clear()
            listed[path[-1]] = text
            if listed.get("name", "").lower() == canonical_model and "digest" in listed:
                found.append(clean(listed["digest"], 80))
                listed.clear()

        wanted = [("models", "*", "name"), ("models", "*", "digest")]
        async with self._request("GET", "/api/tags", budget=LISTED, **_SHOW) as response:
            if response.status_code != 200:
                raise await error_of(response)
            await pick_texts(response, wanted, on_text, LISTED)
        return found[0] if found else ""

    async def delete(self, model: str) -> bool:
        """Removes the model; False if there was none. After an error it may be gone: ask again."""
        async with self._request("DELETE", "/api/delete", json={"model": model}, **_DELETE) as response:
            if response.status_code == 200:
                return True
            if response.status_code == 404:
                words, said_by_ollama = await read_error(response)
                if said_by_ollama:
                    return False
                raise Refused(words)
            raise await error_of(response)

    async def create(
        self,
        body: Mapping[str, Any],
        on_line: Callable[[CreateLine], None],
        silence_seconds: float,
        total_seconds: float,
    ) -> None:
        """Creates a model; returns only after a line whose status is `success`.

        Silence is allowed for `silence_seconds` while the target still answers `version`, and all of it may
        take `total_seconds`. Raises Refused, BlobMissing or NoSpace by what create said, OutcomeUnknown if
        its answer was cut off or never ended.
        """
        answer = CreateAnswer()
        heard = _Heard(on_line)
        creating = asyncio.create_task(self._create(body, answer, heard))
        try:
            async with asyncio.timeout(total_seconds):
                await self._until_silent(creating, heard, silence_seconds)
                await creating
        except TimeoutError as error:
            if not answer.has_ended:
                words = f"Create did not end within {total_seconds:.0f} s (INGEST_CREATE_SECONDS)."
                # Once more would take as long once more.
                final = Refused(words, reason=Reason.TARGET_UNREACHABLE)
                raise OutcomeUnknown(words, otherwise=final) from error
        except Unreachable as error:
            if not answer.has_ended:
                # The request may have arrived: only `show` knows what became of it.
                raise OutcomeUnknown(error.words) from error
        finally:
            creating.cancel()
            await asyncio.gather(creating, return_exceptions=True)
        answer.judge()

    async def _create(self, body: Mapping[str, Any], answer: CreateAnswer, heard: _Heard) -> None:
        async with self._request(
            "POST", "/api/create", json=body, timeout=_CREATE, budget=CREATED
        ) as response:
            if response.status_code != 200:
                raise await self._create_refused(response)
            async with contextlib.aclosing(lines(response)) as stream:
                # Read on to the end whatever comes: leaving early wedges Ollama (contract 3.4).
                async for line in stream:
                    taken = answer.take(line)
                    if taken is not None:
                        heard.line(replace(taken, status=without(self._secrets, taken.status)))
                    if answer.succeeded:
                        break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_AFTER_SUCCESS_SECONDS):
                        async for _ in stream:
                            pass

    @staticmethod
    async def _create_refused(response: httpx.Response) -> TargetError:
        if response.is_redirect or response.status_code in {401, 403}:
            return await error_of(response)
        words, said_by_ollama = await read_error(response)
        if is_worth_another_try(response) and not said_by_ollama:
            return OutcomeUnknown(words)
        return error_from_create(words)

    async def _until_silent(
        self, creating: asyncio.Task[None], heard: _Heard, silence_seconds: float
    ) -> None:
        """Returns once create has ended. Asks `version` during silence, before the first line as well.

        Raises Unreachable if create is silent for too long, or if the target is dead.
        """
        dead_checks = 0
        while True:
            await asyncio.wait({creating}, timeout=_ALIVE_CHECK_SECONDS)
            if creating.done():
                return
            silent_seconds = heard.silent_seconds()
            if silent_seconds < _ALIVE_CHECK_SECONDS:
                dead_checks = 0
                continue
            if silent_seconds > silence_seconds:
                raise Unreachable(f"Create said nothing for {silence_seconds:.0f} s.")
            try:
                await self.version()
                dead_checks = 0
            except TargetError as error:
                dead_checks += 1
                if dead_checks >= _DEAD_CHECKS:
                    raise Unreachable("The target died while it was creating.") from error

    @contextlib.asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        *,
        within_seconds: float | None = None,
        limit: asyncio.Timeout | None = None,
        budget: AnswerBudget = SMALL,
        **options: Any,
    ) -> AsyncIterator[httpx.Response]:
        """A response whose body is still to be read, all of it within that time or by that limit."""
        try:
            async with (
                limit or asyncio.timeout(within_seconds),
                self._client.stream(method, path, extensions={BUDGET: budget}, **options) as response,
            ):
                yield response
        except TargetError as error:
            error.hide(self._secrets)
            raise
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise Refused(_BAD_URL) from error
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            # The library's words may hold anything: they are for the log (security.md section 7).
            detail = without(self._secrets, f"{type(error).__name__}: {error}")
            extra = {"target": self._target.name, "method": method, "path": path, "detail": detail}
            _log.info("a request to a target failed", extra=extra)
            raise Unreachable(_words_of(error)) from error


class _Heard:
    """When a create was last heard of."""

    def __init__(self, on_line: Callable[[CreateLine], None]) -> None:
        self._on_line = on_line
        self._clock = asyncio.get_running_loop().time
        self._at = self._clock()

    def line(self, line: CreateLine) -> None:
        self._at = self._clock()
        self._on_line(line)

    def silent_seconds(self) -> float:
        return self._clock() - self._at


def _trust(target: Target) -> ssl.SSLContext:
    """Reads files: not for the event loop."""
    context = ssl.create_default_context()
    if target.ca is not None:
        context.load_verify_locations(target.ca)
    return context


def _words_of(error: Exception) -> str:
    """What failed, in our words."""
    if SHORTAGE.note(error):
        return descriptors.WORDS
    if isinstance(error, httpx.ConnectError) and "SSL" in str(error):
        return "The target's certificate is not trusted, or it does not speak TLS."
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return "The target's host name cannot be resolved: correct its URL, or the name service here."
        # httpcore's pool takes the cause away; the context stays.
        cause = cause.__cause__ or cause.__context__
    return next((words for kinds, words in _WORDS if isinstance(error, kinds)), _ANY_WORDS)

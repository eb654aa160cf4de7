"""What a hostile target can make of one answer: nothing without end, and nobody else waits for it.

Breaks when: an answer has no limit of bytes, lines, time or CPU, interim answers (1xx) are not counted, what
comes after `success` counts, or a large body is parsed in one piece.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from typing import Any

import pytest

from ingest_service.forwarding import Target, metered, ollama
from ingest_service.forwarding.answers import SHOWN
from ingest_service.forwarding.ollama import OllamaClient
from ingest_service.forwarding.target import Unreachable
from ingest_service.ingests.options import MAX_OPTIONS_BYTES
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.states import DeploymentState
from tests.forwarding.world import World
from tests.support.files import gguf
from tests.support.hostile_ollama import FLOODS, Flood, HostileOllama, forever, running
from tests.support.loop_clock import LoopClock

CREATE_HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


@contextlib.asynccontextmanager
async def client(path: str, flood: Flood) -> AsyncIterator[OllamaClient]:
    async with (
        running(HostileOllama(path, flood)) as server,
        OllamaClient(Target("a", f"http://{server.address}")) as opened,
    ):
        yield opened


async def test_interim_answers_count() -> None:
    async with client(*FLOODS["1xx instead of a version"]) as opened:
        with pytest.raises(Unreachable, match="more than 65536 bytes"):
            async with asyncio.timeout(20):
                await opened.version()


@pytest.mark.extended_unless("blank lines")
@pytest.mark.parametrize("way", ["blank lines", "endless lines"])
async def test_lines_and_cpu_have_an_end(way: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest_service.forwarding.answers._MAX_LINES", 10_000)
    monkeypatch.setattr("ingest_service.forwarding.answers._MAX_LINES_BYTES", 100_000)
    words = await _failed(world, HostileOllama(*FLOODS[way]))
    assert "The answer did not end within" in words


async def test_what_costs_cpu_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metered, "_HEAD_CPU_SECONDS", 0.01)
    async with client(*FLOODS["1xx instead of a version"]) as opened:
        with pytest.raises(Unreachable, match=r"takes more than 0.01 s of CPU"):
            await opened.version()


@pytest.mark.extended_unless("1xx instead of a version")
@pytest.mark.parametrize("way", ["1xx instead of a version", "chunks of 1 byte", "endless lines"])
async def test_others_get_their_turn_meanwhile(way: str) -> None:
    """By CPU, not by the clock: of all that the loop's thread does between two turns of another task."""
    path, flood = FLOODS[way]
    turns: list[float] = []

    async def others() -> None:
        at = time.thread_time()
        while True:
            await asyncio.sleep(0)
            turns.append((now := time.thread_time()) - at)
            at = now

    async with client(path, flood) as opened:
        ticking = asyncio.create_task(others())
        with contextlib.suppress(TimeoutError, Unreachable):
            async with asyncio.timeout(1.0):
                if path == "/api/version":
                    await opened.version()
                else:
                    await opened.create({}, lambda _: None, 60, 60)
        ticking.cancel()
    # The hostile server shares the thread, and needs some ms for each of its writes.
    assert max(turns) < 0.1


async def test_a_push_that_is_told_to_wait_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time counts from the last byte on: sending may take as long as it takes."""
    monkeypatch.setattr(ollama, "_PUSH_ANSWER_SECONDS", 0.2)
    waits = itertools.repeat(b"HTTP/1.1 102 wait\r\n\r\n")
    hostile = HostileOllama("/api/blobs/0", lambda: waits, pause_seconds=0.01)
    async with running(hostile) as server, OllamaClient(Target("a", f"http://{server.address}")) as opened:
        with pytest.raises(Unreachable, match="did not answer in time"):
            async with asyncio.timeout(20):
                await opened.push_body("0", 2, _halves(asyncio.sleep(0)))
        clock = LoopClock(monkeypatch)
        await opened.push_body("1", 2, _halves(clock.advance(10_000)))


async def _halves(between: Awaitable[None]) -> AsyncGenerator[bytes, None]:
    yield b"a"
    await between
    yield b"b"


async def test_a_create_that_never_ends_is_given_up(world: World) -> None:
    line = b'{"status":"still at it"}\n'
    hostile = HostileOllama("/api/create", forever(CREATE_HEAD, line), pause_seconds=0.05)
    words = await _failed(world, hostile, create_seconds=0.4)
    assert words == "Create did not end within 0 s (INGEST_CREATE_SECONDS)."


async def test_nothing_counts_after_success(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ollama, "_AFTER_SUCCESS_SECONDS", 0.1)
    first = CREATE_HEAD + b'{"status":"success"}\n'
    after = forever(first, b'{"error":"boom"}\n{"status":"more"}\n')
    hostile = HostileOllama("/api/create", after, shows=True)
    async with running(hostile) as server:
        ingest_id = await world.stored(gguf())
        world.worker(targets=[Target("a", f"http://{server.address}")])
        ingest = await world.done(ingest_id)
        await world.close()
    assert ingest.deployments[0].state is DeploymentState.READY
    assert await world.statuses(ingest_id) == ["success"]


async def _failed(world: World, hostile: HostileOllama, **settings: Any) -> str:
    """How the deployment to it failed."""
    async with running(hostile) as server:
        ingest_id = await world.stored(gguf())
        world.worker(targets=[Target("a", f"http://{server.address}")], retry_seconds=0, **settings)
        ingest = await world.done(ingest_id)
        await world.close()
    assert ingest.failure is not None
    assert ingest.failure.reason is Reason.TARGET_UNREACHABLE
    return ingest.failure.message


def test_what_show_may_say_has_room_for_all_options() -> None:
    """Ollama says each text twice, and six characters for a `<`."""
    assert SHOWN.body_bytes > 2 * 6 * MAX_OPTIONS_BYTES


@pytest.mark.extended
async def test_a_large_body_is_no_large_object() -> None:
    async with client(*FLOODS["16 MiB of show"]) as opened:
        tracemalloc.start()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(3):
                    await opened.show("m")
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    # The server's own body, and its queue.
    assert peak_bytes < 60 * 1024 * 1024

"""A target that is not there: tried again with backoff, until its time is over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest

from ingest_service.forwarding import ForwardingSettings, Target, Worker
from ingest_service.forwarding.answers import _WHOSE
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.states import DeploymentState
from tests.forwarding.world import World, now
from tests.ollama_emulator import OllamaEmulator
from tests.support.files import gguf
from tests.support.raw_server import RawServer

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def test_a_target_that_comes_up_later_gets_the_model(world: World, emulator: OllamaEmulator) -> None:
    await emulator.stop_listening()
    ingest_id = await world.stored(gguf())
    world.worker()
    waiting = await world.until(ingest_id, lambda ingest: ingest.deployments[0].attempts >= 3)
    deployment = waiting.deployments[0]
    assert deployment.state is DeploymentState.PENDING
    await emulator.start_listening()
    ingest = await world.done(ingest_id)
    assert ingest.deployments[0].state is DeploymentState.READY
    assert ingest.deployments[0].failure is None
    events = [event.body for event in await world.events(ingest_id) if event.kind == "deployment_state"]
    retries = [body for body in events if body["state"] == "PENDING"]
    assert len(retries) == ingest.deployments[0].attempts - 1
    for body in retries:
        assert body["failure"]["reason"] == "TARGET_UNREACHABLE"
        assert body["failure"]["message"] == "The target accepts no connection."
        assert body["next_attempt_at"]
    assert [body["state"] for body in events[len(retries) :]] == ["PUSHING", "CREATING", "READY"]


async def test_a_target_that_stays_away_fails_when_its_time_is_over(
    world: World, emulator: OllamaEmulator
) -> None:
    await emulator.stop_listening()
    ingest = await world.forwarded(gguf(), retry_seconds=0.3)
    assert ingest.failure is not None
    assert ingest.failure.reason is Reason.TARGET_UNREACHABLE
    assert ingest.deployments[0].attempts >= 2
    assert (await world.states(ingest.id)).endswith("PENDING FAILED")


async def test_without_retry_time_the_first_failure_is_final(world: World, emulator: OllamaEmulator) -> None:
    await emulator.stop_listening()
    ingest = await world.forwarded(gguf(), retry_seconds=0)
    assert await world.states(ingest.id) == "FAILED"


@pytest.mark.extended_unless("ftp")
@pytest.mark.parametrize("url", ["http://[::1", "http://127.0.0.1:1x", "ftp://127.0.0.1", "http://é\n"])
async def test_a_url_that_cannot_be_used_is_a_final_refusal(world: World, url: str) -> None:
    ingest_id = await world.stored(gguf())
    world.worker(targets=[Target("a", url)])
    ingest = await world.done(ingest_id)
    assert ingest.failure is not None
    assert ingest.failure.reason is Reason.TARGET_REFUSED
    assert "correct the setting" in ingest.failure.message


@pytest.fixture
async def listen() -> AsyncIterator[Callable[[Answer], Awaitable[str]]]:
    """A server that answers anything but HTTP as it should be; answers its URL."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(answer: Answer) -> str:
            server = RawServer(lambda end: answer(end.reader, end.writer))
            return f"http://{(await stack.enter_async_context(server)).address}"

        yield start


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: "
NONSENSE = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "binary": bytes(range(256)) * 10,
    "a status line that is none": b"HTTP/1.1 abc\r\n\r\n",
    "endless headers": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 40_000,
    "two lengths": HEAD + b"1\r\nContent-Length: 2\r\n\r\nxx",
    "a negative length": HEAD + b"-5\r\n\r\n",
    "a broken chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "half a body": HEAD + b"100\r\n\r\n{",
    "nothing": b"",
    "deep JSON": HEAD + b"100000\r\n\r\n" + b"[" * 100_000,
    "deep JSON in an object": HEAD + b'100010\r\n\r\n{"version":' + b"[" * 99_999,
    "no object": HEAD + b"4\r\n\r\nnull",
    "no UTF-8": HEAD + b"4\r\n\r\n\xff\xfe\xfd\xfc",
    "a huge number": HEAD + b"5011\r\n\r\n" + b'{"version":' + b"9" * 5000,
    "a body that is too long": HEAD + b"5000000\r\n\r\n" + b" " * 5_000_000,
    "gzip": HEAD + b"5\r\nContent-Encoding: gzip\r\n\r\nxxxxx",
}


@pytest.mark.extended_unless("endless headers", "deep JSON")
@pytest.mark.parametrize("nonsense", NONSENSE, ids=str)
async def test_whatever_a_target_answers_it_is_unreachable_in_our_words(
    world: World, listen: Callable[[Answer], Awaitable[str]], nonsense: str
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(NONSENSE[nonsense])
        await writer.drain()

    ingest_id = await world.stored(gguf())
    world.worker(targets=[Target("a", await listen(answer))], retry_seconds=0)
    ingest = await world.done(ingest_id)
    assert ingest.failure is not None
    assert ingest.failure.reason is Reason.TARGET_UNREACHABLE
    words = ingest.failure.message
    assert words.startswith(("The target ", "The answer ", "The connection ", "HTTP 200 with "))
    assert "Error" not in words
    assert "unforeseen" not in words


async def test_an_answer_that_drips_is_given_up(
    world: World, listen: Callable[[Answer], Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest_service.forwarding.ollama._QUICK", {"timeout": 10.0, "within_seconds": 0.2})

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"1000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    ingest_id = await world.stored(gguf())
    world.worker(targets=[Target("a", await listen(answer))], retry_seconds=0)
    failure = (await world.done(ingest_id)).failure
    assert failure is not None
    assert failure.message == "The target did not answer in time."


async def test_an_answer_without_end_is_read_no_further_than_its_limit(
    world: World, listen: Callable[[Answer], Awaitable[str]]
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b" " * 65536)
            await writer.drain()

    ingest_id = await world.stored(gguf())
    world.worker(targets=[Target("a", await listen(answer))], retry_seconds=0)
    failure = (await world.done(ingest_id)).failure
    assert failure is not None
    assert failure.message == "HTTP 200 with a body that is no JSON: " + _WHOSE


async def test_a_clock_behind_the_databases_hammers_nobody(world: World, emulator: OllamaEmulator) -> None:
    await emulator.stop_listening()
    ingest_id = await world.stored(gguf())
    worker = Worker(
        world.database, world.store, world.hub, world.targets,
        ForwardingSettings(retry_seconds=2, poll_seconds=0.05),
        owner="late", vetting=world.vetting, clock=lambda: now() - timedelta(seconds=10),
    )  # fmt: skip
    worker.start()
    try:
        ingest = await world.done(ingest_id)
    finally:
        await worker.stop()
    assert ingest.deployments[0].state is DeploymentState.FAILED
    assert ingest.deployments[0].attempts < 10

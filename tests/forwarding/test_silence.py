"""A create that says nothing: waited for while the target lives, then given up and settled by `show`."""

from __future__ import annotations

import asyncio

import pytest

from ingest_service.forwarding import Target, driver, ollama
from ingest_service.vocabulary.states import DeploymentState
from tests.forwarding.world import World, calls
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.support.files import gguf
from tests.support.raw_server import RawServer

pytestmark = pytest.mark.usefixtures("quick_checks")
#: Before the first line no header comes either: httpx waits for them without end.
PLACES = [
    pytest.param(None, id="before the headers"),
    pytest.param("parsing GGUF", id="between lines"),
]


@pytest.mark.extended_unless("between")
@pytest.mark.parametrize("place", PLACES)
async def test_silence_is_waited_for_while_version_answers(
    world: World, emulator: OllamaEmulator, place: str | None
) -> None:
    stall = emulator.faults.add(Fault("stall", "create", after_line=place))
    asked = emulator.faults.add(Fault("line_delay", "version", times=None))
    ingest_id = await world.stored(gguf())
    world.worker()
    await stall.wait_stalled()
    await asked.wait_fired(4)
    assert (await world.deployment(ingest_id)).state is DeploymentState.CREATING
    stall.release()
    ingest = await world.done(ingest_id)
    assert ingest.deployments[0].state is DeploymentState.READY
    assert len(emulator.calls.named("create")) == 1


async def test_lines_that_come_slowly_are_no_silence(
    world: World, emulator: OllamaEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_MIN_SILENCE_SECONDS", 0.5)
    emulator.faults.add(Fault("line_delay", "create", seconds=0.25))
    ingest = await world.forwarded(gguf())
    assert len(emulator.calls.named("create")[0].lines) >= 4
    assert await world.states(ingest.id) == "PUSHING CREATING READY"
    assert not [event for event in await world.events(ingest.id) if event.kind == "notice"]


@pytest.mark.extended_unless("between")
@pytest.mark.parametrize("place", PLACES)
async def test_silence_beyond_what_is_allowed_is_given_up_and_tried_again(
    world: World, emulator: OllamaEmulator, monkeypatch: pytest.MonkeyPatch, place: str | None
) -> None:
    monkeypatch.setattr(driver, "_MIN_SILENCE_SECONDS", 0.2)
    emulator.faults.add(Fault("stall", "create", after_line=place))
    ingest = await world.forwarded(gguf())
    assert ingest.deployments[0].state is DeploymentState.READY
    assert len(emulator.calls.named("create")) == 2
    assert await world.states(ingest.id) == "PUSHING CREATING PENDING PUSHING CREATING READY"
    assert await world.retry_words(ingest.id) == ["Create said nothing for 0 s."]


async def test_silence_after_success_is_success(
    world: World, emulator: OllamaEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_MIN_SILENCE_SECONDS", 0.2)
    emulator.faults.add(Fault("stall", "create", after_line="success"))
    ingest = await world.forwarded(gguf())
    assert await world.states(ingest.id) == "PUSHING CREATING READY"
    assert len(emulator.calls.named("create")) == 1


async def test_silence_after_which_the_model_is_there_is_success(
    world: World, emulator: OllamaEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_MIN_SILENCE_SECONDS", 0.2)
    emulator.faults.add(Fault("stall", "create", after_line="writing manifest"))
    ingest = await world.forwarded(gguf())
    # The emulator's worker of era A goes on to its next line when its client leaves: the manifest is there.
    assert ingest.deployments[0].state is DeploymentState.READY
    assert len(emulator.calls.named("create")) <= 2


@pytest.mark.extended_unless("between")
@pytest.mark.parametrize("place", PLACES)
async def test_a_target_that_died_in_silence_is_given_up_early(
    world: World, emulator: OllamaEmulator, place: str | None
) -> None:
    stall = emulator.faults.add(Fault("stall", "create", after_line=place))
    ingest_id = await world.stored(gguf())
    world.worker()
    await stall.wait_stalled()
    emulator.faults.add(Fault("hang_up", "version", times=3))
    ingest = await world.done(ingest_id)
    assert ingest.deployments[0].state is DeploymentState.READY
    assert await world.retry_words(ingest.id) == ["The target died while it was creating."]


async def test_lines_that_mean_nothing_are_silence(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_MIN_SILENCE_SECONDS", 0.2)
    target = _Talker(b"no json\n")
    await _give_up(world, target, "Create said nothing for 0 s.")


async def test_an_answer_without_end_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest_service.forwarding.answers._MAX_LINES_BYTES", 1 << 18)
    target = _Talker(b'{"status":"again"}\n' * 1000)
    await _give_up(world, target, "The answer did not end within 262144 bytes.")


class _Talker:
    """A target whose create says the same thing for ever."""

    def __init__(self, words: bytes) -> None:
        self._words = words

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            await self._answer(head, reader, writer)

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if lengths:
            await reader.readexactly(int(lengths[0].split(b":")[1]))
        if b"/api/create" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            while True:
                writer.write(self._words)
                await writer.drain()
                await asyncio.sleep(0.005)
        missing = b"/api/show" in head
        body = b'{"error":"model \'m\' not found"}' if missing else b'{"version":"1"}'
        writer.write(b"HTTP/1.1 404 no\r\n" if missing else b"HTTP/1.1 200 OK\r\n")
        writer.write(b"Content-Length: 0\r\n\r\n" if head.startswith(b"HEAD") else b"")
        if not head.startswith(b"HEAD"):
            writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()


async def _give_up(world: World, target: _Talker, words: str) -> None:
    async with RawServer(lambda end: target.serve(end.reader, end.writer)) as server:
        ingest_id = await world.stored(gguf())
        world.worker(targets=[Target("a", f"http://{server.address}")], retry_seconds=0)
        ingest = await world.done(ingest_id)
        assert ingest.failure is not None
        assert ingest.failure.message == words
        await world.close()


def test_the_constants_are_those_of_the_design() -> None:
    assert driver._MIN_SILENCE_SECONDS == 15 * 60
    assert driver._SLOWEST_CREATE_BYTES_PER_SECOND == 20_000_000
    assert ollama._DEAD_CHECKS == 3


async def test_another_target_is_served_while_one_is_silent(world: World, emulator: OllamaEmulator) -> None:
    stall = emulator.faults.add(Fault("stall", "create"))
    async with OllamaEmulator(version="0.34.1") as other:
        world.add_target(Target("b", other.url))
        first = await world.stored(gguf(), "first", ["a"])
        world.worker(targets=world.targets)
        await stall.wait_stalled()
        # One create at a time per target: this one waits for the first.
        queued = await world.stored(gguf(), "queued", ["a"])
        second = await world.stored(gguf(9000), "second", ["b"])
        ingest = await world.done(second)
        assert ingest.deployments[0].state is DeploymentState.READY
        assert "create" in calls(other)
        assert (await world.deployment(queued)).state is DeploymentState.PENDING
        assert len(emulator.calls.named("create")) == 1
        stall.release()
        assert (await world.done(first)).deployments[0].state is DeploymentState.READY
        assert (await world.done(queued)).deployments[0].state is DeploymentState.READY
        await world.close()

"""A dead target costs nothing: after a few failures it is left alone, and no other target waits for it."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import pytest

from ingest_service.database import Database
from ingest_service.forwarding import Target, breaker
from ingest_service.forwarding.breaker import Breaker
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.states import DeploymentState, IngestState
from tests.forwarding.world import World, open_world
from tests.ollama_emulator import OllamaEmulator
from tests.support.files import gguf
from tests.support.raw_server import End, RawServer

pytestmark = pytest.mark.extended_when("postgresql")


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def rests(breaker: Breaker) -> bool:
    """Asked anew each time: a type checker takes a property for a constant."""
    return breaker.rests


def test_it_rests_after_three_failures_in_a_row_and_longer_each_time() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    breaker.failed("a")
    breaker.failed("b")
    breaker.succeeded()
    for words in ("c", "d"):
        breaker.failed(words)
        assert not rests(breaker)
    breaker.failed("e")
    assert rests(breaker)
    assert breaker.words == "e"
    lengths = []
    for _ in range(8):
        start = clock.seconds
        while rests(breaker):
            clock.seconds += 0.1
        lengths.append(clock.seconds - start)
        # One may try; it fails as well.
        breaker.failed("f")
        assert rests(breaker)
    assert lengths[0] <= 5.2
    assert 2 * lengths[0] < lengths[3]
    assert max(lengths) <= 60.2
    while rests(breaker):
        clock.seconds += 1
    breaker.succeeded()
    breaker.failed("g")
    assert not rests(breaker)


class DeadPort:
    """A port that takes connections, counts them and hangs up."""

    def __init__(self) -> None:
        self.connections = 0

    async def _hang_up(self, _end: End) -> None:
        self.connections += 1

    async def __aenter__(self) -> Self:
        self._server = await RawServer(self._hang_up).__aenter__()
        self.url = f"http://{self._server.address}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._server.__aexit__(*exc)


async def test_many_deployments_on_a_dead_target_cost_a_few_connections_and_delay_nobody(
    database: Database, tmp_path: Path
) -> None:
    async with (
        DeadPort() as dead,
        OllamaEmulator(version="0.24.0", data_dir=tmp_path / "a") as good,
        open_world(database, tmp_path / "data", good) as world,
    ):
        world.add_target(Target("dead", dead.url))
        ids = [await world.stored(gguf(3000 + n), f"m{n}", ["dead"]) for n in range(20)]
        fine = await world.stored(gguf(), "fine", ["a"])
        world.worker()
        assert (await world.done(fine)).state is IngestState.READY
        for ingest_id in ids:
            # Each is told why it waits.
            waiting = await world.until(ingest_id, lambda ingest: ingest.deployments[0].failure is not None)
            assert waiting.deployments[0].state is DeploymentState.PENDING
            assert waiting.deployments[0].failure is not None
            assert waiting.deployments[0].failure.reason is Reason.TARGET_UNREACHABLE
        # 20 first tries and all that were due since: three went out, and perhaps one to look again.
        assert dead.connections <= 5
        # The next one to a live target is not behind them.
        again = await world.stored(gguf(4000), "again", ["a"])
        assert (await world.done(again)).state is IngestState.READY


async def test_what_waits_for_a_dead_target_ends_when_its_time_is_over(world: World) -> None:
    world.add_target(Target("dead", "http://127.0.0.1:9"))
    ids = [await world.stored(gguf(3000 + n), f"m{n}", ["dead"]) for n in range(6)]
    world.worker(retry_seconds=0.5)
    for ingest_id in ids:
        ended = await world.done(ingest_id)
        assert ended.state is IngestState.FAILED
        assert ended.failure is not None
        assert ended.failure.reason is Reason.TARGET_UNREACHABLE


async def test_a_target_that_comes_back_is_found_after_its_rest(
    world: World, emulator: OllamaEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "_FIRST_REST_SECONDS", 0.3)
    ingest_id = await world.stored(gguf())
    port = int(emulator.url.rpartition(":")[2])
    await emulator.stop_listening()
    world.worker()
    await world.until(ingest_id, lambda ingest: ingest.deployments[0].attempts >= 3)
    async with OllamaEmulator(version="0.24.0", port=port):
        assert (await world.done(ingest_id)).state is IngestState.READY

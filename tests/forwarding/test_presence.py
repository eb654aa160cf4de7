"""What targets say of a model: there, gone, another one, changed, not asked."""

from __future__ import annotations

import httpx
import pytest

from ingest_service.forwarding import Target, TargetPresence, TargetVerdict, presence
from ingest_service.vocabulary.states import DeploymentState, IngestState
from tests.forwarding.world import World
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.support.files import digest, gguf

DATA = gguf(5000)
OTHER = gguf(5000, seed=9)


async def ask(world: World, targets: list[Target] | None = None) -> tuple[TargetVerdict, ...]:
    model = await world.ingests.model("m")
    return await TargetPresence(world.targets if targets is None else targets).ask(model)


@pytest.fixture
async def ready(world: World) -> World:
    """`m` is ready on the target `a`."""
    assert (await world.forwarded(DATA)).state is IngestState.READY
    return world


async def create(emulator: OllamaEmulator, name: str, data: bytes, **options: object) -> None:
    """Somebody with Ollama's own tools."""
    async with httpx.AsyncClient(base_url=emulator.url, trust_env=False) as client:
        await client.post(f"/api/blobs/{digest(data)}", content=data)
        body = {"model": name, "files": {"x.gguf": digest(data)}, "stream": False, **options}
        assert (await client.post("/api/create", json=body)).status_code == 200


async def test_it_is_there(ready: World) -> None:
    assert await ask(ready) == (TargetVerdict("a", present=True),)


async def test_it_is_gone(ready: World, emulator: OllamaEmulator) -> None:
    for name in emulator.models.names():
        emulator.models.remove(name)
    (one,) = await ask(ready)
    assert (one.target, one.present, one.words, one.unknown) == ("a", False, "", False)
    assert one.lost is not None
    assert (one.lost.target, one.lost.state) == ("a", DeploymentState.READY)


async def test_another_model_has_its_name(ready: World, emulator: OllamaEmulator) -> None:
    await create(emulator, "m", OTHER)
    words = "Another model has that name there by now."
    assert await ask(ready) == (TargetVerdict("a", present=False, words=words),)


async def test_it_was_changed_there(ready: World, emulator: OllamaEmulator) -> None:
    await create(emulator, "m", DATA, system="You are somebody else.")
    words = "It was changed there since it was deployed."
    assert await ask(ready) == (TargetVerdict("a", present=True, words=words),)


async def test_a_list_that_cannot_be_read_takes_nothing_away(ready: World, emulator: OllamaEmulator) -> None:
    emulator.faults.add(Fault("respond", call="tags", status=500, times=None))
    assert await ask(ready) == (TargetVerdict("a", present=True),)


async def test_targets_it_was_not_deployed_to(world: World, emulator: OllamaEmulator) -> None:
    await world.stored(DATA)  # No worker runs.
    assert await ask(world) == (TargetVerdict("a", present=False, words="It was not deployed there."),)
    await create(emulator, "m", DATA)
    words = "It has a model of that name, which was not deployed from here."
    assert await ask(world) == (TargetVerdict("a", present=True, words=words),)


async def test_a_target_that_does_not_answer_takes_nothing_from_the_others(
    ready: World, emulator: OllamaEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the configuration, whoever answers first; no one is asked after another."""
    monkeypatch.setattr(presence, "_PATIENCE_SECONDS", 2.0)
    async with OllamaEmulator(version="0.24.0") as silent, OllamaEmulator(version="0.24.0") as broken:
        stalls = silent.faults.add(Fault("stall", call="show", times=None))
        broken.faults.add(Fault("reset", call="show", times=None))
        targets = [Target("s", silent.url), Target("b", broken.url), *ready.targets]
        verdicts = await ask(ready, targets)
        stalls.release()
    assert [(one.target, one.present) for one in verdicts] == [("s", False), ("b", False), ("a", True)]
    assert verdicts[0].words == "The target did not answer within 2 s."
    assert verdicts[1].words

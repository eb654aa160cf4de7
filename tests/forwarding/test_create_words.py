"""What create says becomes events and progress: cleaned, capped, bounded in number, in order."""

from __future__ import annotations

import json

import pytest

from ingest_service.forwarding.statuses import StatusWriter
from ingest_service.lifecycle import change
from tests.forwarding.world import World
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.support.files import gguf

HOSTILE = "a\x00b\x1b[31mc\u202ed\ud800e\r\nforged=1" + "é" * 3000


def line(**fields: object) -> bytes:
    return json.dumps(fields).encode()


async def test_ollamas_words_are_cleaned_and_capped_at_1_kib(world: World, emulator: OllamaEmulator) -> None:
    emulator.faults.add(Fault("error_line", "create", after_line=1, body=HOSTILE.replace("\ud800", "")))
    ingest = await world.forwarded(gguf())
    assert ingest.failure is not None
    words = ingest.failure.message
    assert words.startswith("a b [31mc d")
    assert words.endswith("…")
    assert len(words.encode()) <= 1024
    assert words.isprintable()
    told = [event.body["failure"] for event in await world.events(ingest.id) if event.body.get("failure")]
    assert {failure["message"] for failure in told} == {words}


async def test_a_hostile_status_is_cleaned_and_capped(world: World, emulator: OllamaEmulator) -> None:
    emulator.faults.add(Fault("raw_line", "create", after_line=1, body=line(status=HOSTILE)))
    ingest = await world.forwarded(gguf())
    (status,) = [text for text in await world.statuses(ingest.id) if text.startswith("a b")]
    assert len(status.encode()) <= 1024
    assert status.isprintable()
    assert ingest.deployments[0].failure is None


async def test_a_status_that_only_looks_like_success_is_none(world: World, emulator: OllamaEmulator) -> None:
    emulator.faults.add(Fault("raw_line", "create", after_line=1, body=line(status=" success\x00")))
    emulator.faults.add(Fault("end_early", "create", after_line=1))
    ingest = await world.forwarded(gguf())
    assert (await world.states(ingest.id)).startswith("PUSHING CREATING PENDING")


async def test_a_line_that_carries_no_new_status_is_progress_and_no_event(
    world: World, emulator: OllamaEmulator
) -> None:
    same = b"\n".join(line(status="working", total=10, completed=done) for done in range(10))
    emulator.faults.add(Fault("raw_line", "create", after_line=1, body=same))
    ingest = await world.forwarded(gguf())
    assert (await world.statuses(ingest.id)).count("working") == 1


@pytest.mark.extended_unless("-5")
@pytest.mark.parametrize(
    "number", [-5, 10**30, "many", None, True, 1.5, [1], {"a": 1}], ids=lambda value: repr(value)[:12]
)
async def test_hostile_progress_is_no_fault(world: World, emulator: OllamaEmulator, number: object) -> None:
    emulator.faults.add(
        Fault("raw_line", "create", after_line=1, body=line(status="x", total=number, completed=number))
    )
    stall = emulator.faults.add(Fault("stall", "create", after_line=1))
    ingest_id = await world.stored(gguf())
    world.worker(lease_seconds=0.6)
    await stall.wait_stalled()
    await world.until(ingest_id, lambda ingest: ingest.deployments[0].status == "x")
    deployment = await world.deployment(ingest_id)
    assert 0 <= deployment.progress_bytes <= 2**62
    assert 0 <= deployment.progress_total_bytes <= 2**62
    stall.release()
    assert (await world.done(ingest_id)).deployments[0].failure is None


async def test_progress_reaches_the_row_while_the_step_runs(world: World, emulator: OllamaEmulator) -> None:
    body = line(status="validating GGUF model", digest="0" * 19, total=77, completed=33)
    emulator.faults.add(Fault("raw_line", "create", after_line=1, body=body))
    stall = emulator.faults.add(Fault("stall", "create", after_line=1))
    ingest_id = await world.stored(gguf())
    world.worker(lease_seconds=0.6)
    ingest = await world.until(ingest_id, lambda ingest: ingest.deployments[0].progress_bytes == 33)
    assert ingest.deployments[0].progress_total_bytes == 77
    stall.release()
    await world.done(ingest_id)


async def test_two_thousand_different_statuses_make_at_most_a_thousand_events(
    world: World, emulator: OllamaEmulator
) -> None:
    words = b"\n".join(line(status=f"step {number}") for number in range(2000))
    emulator.faults.add(Fault("raw_line", "create", after_line=1, body=words))
    ingest = await world.forwarded(gguf())
    statuses = await world.statuses(ingest.id)
    assert ingest.deployments[0].failure is None
    assert statuses[:1001] == ["parsing GGUF", *(f"step {number}" for number in range(999))]
    assert len(statuses) == change.MAX_STATUS_EVENTS == ingest.deployments[0].status_events


async def test_more_attempts_do_not_get_round_the_limit(
    world: World, emulator: OllamaEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change, "MAX_STATUS_EVENTS", 20)
    words = b"\n".join(line(status=f"step {number}") for number in range(15))
    emulator.faults.add(Fault("raw_line", "create", after_line=1, body=words, times=2))
    emulator.faults.add(Fault("end_early", "create", after_line=1))
    ingest = await world.forwarded(gguf())
    assert ingest.deployments[0].attempts == 2
    assert len(await world.statuses(ingest.id)) == 20


async def test_words_that_cannot_be_written_yet_cost_bounded_memory(world: World) -> None:
    await world.stored(gguf())
    lease = await world.claim("worker")
    assert lease is not None
    words = StatusWriter(world.moves(lease))
    for number in range(5000):
        words.put(f"step {number}")
    assert len(words._waiting) == change.MAX_STATUS_EVENTS

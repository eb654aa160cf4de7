"""Sending the blob: HEAD decides after anything unclear, a blob that failed makes no create call."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ingest_service.vocabulary.reasons import Reason
from tests.forwarding.world import World, calls
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.support.files import MEBIBYTE, digest, gguf

DATA = gguf(5 * MEBIBYTE)
REST = "show create show tags"


@dataclass(frozen=True)
class Case:
    name: str
    faults: list[Fault]
    calls: str
    states: str = "PUSHING CREATING READY"


CASES = [
    Case("no fault", [], f"version head post {REST}"),
    Case(
        "reset in mid-body, not stored",
        [Fault("reset", "blob_post", at_bytes=MEBIBYTE)],
        f"version head post head post {REST}",
    ),
    Case(
        "reset after the body, not stored",
        [Fault("reset", "blob_post")],
        f"version head post head post {REST}",
    ),
    Case(
        "reset after the body, stored: HEAD says so, nothing is sent twice",
        [Fault("reset", "blob_post", takes_effect=True)],
        f"version head post head {REST}",
    ),
    Case(
        "hung up after the body, stored",
        [Fault("hang_up", "blob_post", takes_effect=True)],
        f"version head post head {REST}",
    ),
    Case(
        "a proxy gives up, stored",
        [Fault("respond", "blob_post", status=504, takes_effect=True)],
        f"version head post head {REST}",
    ),
    Case(
        "reset twice: the next attempt comes with backoff",
        [Fault("reset", "blob_post", at_bytes=9, times=2)],
        f"version head post head post head version head post {REST}",
        "PUSHING PENDING PUSHING CREATING READY",
    ),
    Case(
        "no space, later fine",
        [Fault("no_space", "blob_post")],
        f"version head post version head post {REST}",
        "PUSHING PENDING PUSHING CREATING READY",
    ),
    Case(
        "no space in mid-body, answered before the body was read",
        [Fault("no_space", "blob_post", at_bytes=4 * MEBIBYTE)],
        "",
        "",
    ),
    Case(
        "a restart between HEAD and POST that forgets nothing",
        [Fault("restart", "blob_head", after=0)],
        f"version head version head post {REST}",
        "PUSHING PENDING PUSHING CREATING READY",
    ),
    Case(
        "reads slowly",
        [Fault("slow_read", "blob_post", bytes_per_second=32 * MEBIBYTE)],
        f"version head post {REST}",
    ),
]


@pytest.mark.extended_unless("forgets nothing", "reset after the body")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_fault_while_the_blob_is_sent_is_got_over(
    world: World, emulator: OllamaEmulator, case: Case
) -> None:
    for fault in case.faults:
        emulator.faults.add(fault)
    ingest = await world.forwarded(DATA)
    assert ingest.deployments[0].failure is None
    if case.calls:
        assert calls(emulator) == case.calls
        assert await world.states(ingest.id) == case.states
    assert emulator.blobs.read(digest(DATA)) == DATA
    assert len(emulator.calls.named("create")) == 1


async def test_a_blob_that_is_there_is_not_sent(world: World, emulator: OllamaEmulator) -> None:
    await world.forwarded(DATA, "first")
    emulator.calls.clear()
    again = await world.stored(DATA, "second")
    await world.done(again)
    assert calls(emulator) == f"version head {REST}"


async def test_a_blob_that_appears_after_head_is_settled_by_another_head(
    world: World, emulator: OllamaEmulator
) -> None:
    # The short circuit: POST answers 200 without reading, and the unread body means a reset (contract 2).
    await world.forwarded(DATA, "first")
    emulator.calls.clear()
    emulator.faults.add(Fault("respond", "blob_head", status=404))
    again = await world.stored(DATA, "second")
    assert (await world.done(again)).deployments[0].failure is None
    assert calls(emulator) in {f"version head post {REST}", f"version head post head {REST}"}
    assert emulator.calls.body_bytes() == 0


@pytest.mark.extended_unless("corrupt_upload")
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (
            Fault("respond", "blob_post", status=400, body='{"error":"invalid digest format"}'),
            "TARGET_REFUSED",
        ),
        (Fault("respond", "blob_post", status=413), "TARGET_REFUSED"),
        (Fault("reset", "blob_post", times=None), "TARGET_UNREACHABLE"),
        (Fault("no_space", "blob_post", times=None), "TARGET_REFUSED"),
        (Fault("corrupt_upload", "blob_post", at_bytes=7), "BLOB_CORRUPT"),
    ],
    ids=lambda value: str(getattr(value, "kind", value)),
)
async def test_a_blob_that_cannot_be_sent_makes_no_create_call(
    world: World, emulator: OllamaEmulator, fault: Fault, reason: str
) -> None:
    emulator.faults.add(fault)
    ingest = await world.forwarded(gguf(), retry_seconds=0.1)
    assert ingest.failure is not None
    assert ingest.failure.reason == Reason(reason)
    assert ingest.failure.metadata == {"target": "a"}
    assert not emulator.calls.named("create")
    assert not emulator.calls.named("show")


async def test_a_full_target_is_named_as_such_when_its_time_is_over(
    world: World, emulator: OllamaEmulator
) -> None:
    emulator.faults.add(Fault("no_space", "blob_post", times=None))
    ingest = await world.forwarded(gguf(), retry_seconds=0.1)
    assert ingest.failure is not None
    assert "no space left on device" in ingest.failure.message
    assert len(emulator.calls.named("blob_post")) > 1


async def test_the_body_is_sent_with_its_length_and_never_as_chunks(
    world: World, emulator: OllamaEmulator
) -> None:
    await world.forwarded(DATA)
    headers = {name.lower(): value for name, value in emulator.calls.named("blob_post")[0].headers.items()}
    assert headers["content-length"] == str(len(DATA))
    assert "transfer-encoding" not in headers
    assert "origin" not in headers
    assert headers["accept-encoding"] == "identity"

"""Create: what is final, what is settled by `show`, what is got over. Success only by a success line."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from ingest_service.vocabulary.reasons import Reason
from tests.forwarding.world import World, calls
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.support.files import digest, gguf

DATA = gguf()
TO_CREATE = "version head post show create"
WHOLE = f"{TO_CREATE} show tags"
#: show finds no model; the next attempt asks show again before it begins anew.
CREATED_AGAIN = f"{TO_CREATE} show show version head show create show tags"
READY = "PUSHING CREATING READY"
RETRIED = "PUSHING CREATING PENDING PUSHING CREATING READY"
LOST = "The answer to create was lost; the target shows the model."
REFUSED = "PUSHING CREATING FAILED"


@dataclass(frozen=True)
class Case:
    name: str
    faults: list[Fault]
    calls: str = WHOLE
    states: str = READY
    words: str = ""
    statuses: set[str] = field(default_factory=set)
    #: The answer was lost, and `show` told that create had worked all the same.
    settled: bool = False


def fault(kind: str, **fields: object) -> list[Fault]:
    return [Fault(kind, "create", **fields)]  # type: ignore[arg-type]


BOOM = "unsupported architecture: boom"
CASES = [
    Case("no fault", [], statuses={"parsing GGUF", "writing manifest", "success"}),
    # final
    Case("an error line", fault("error_line", after_line="parsing", body=BOOM), TO_CREATE, REFUSED, BOOM),
    Case("an error line before any other", fault("error_line", body=BOOM), TO_CREATE, REFUSED, BOOM),
    Case(
        "an error status of Ollama",
        fault("respond", status=503, body='{"error":"boom 503"}', content_type="application/json"),
        TO_CREATE,
        REFUSED,
        "boom 503",
    ),
    Case(
        "an error that is no text",
        fault("raw_line", after_line=1, body='{"error":{"a":[1]}}') + fault("end_early", after_line=1),
        TO_CREATE,
        REFUSED,
        "an error without words",
    ),
    Case(
        "an error after `writing manifest` without the model",
        fault("error_line", after_line="writing manifest", body=BOOM),
        f"{TO_CREATE} show",
        REFUSED,
        BOOM,
    ),
    Case(
        "an error, then a cut",
        fault("raw_line", after_line="parsing", body=f'{{"error":"{BOOM}"}}')
        + fault("cut", after_line="parsing", reset=True),
        TO_CREATE,
        REFUSED,
        BOOM,
    ),
    # the model is there all the same
    Case(
        "an error after `writing manifest` with the model",
        fault("error_line", after_line="writing manifest", body=BOOM, takes_effect=True),
        settled=True,
    ),
    Case(
        "cut after `writing manifest` with the model",
        fault("cut", after_line="writing manifest", takes_effect=True),
        settled=True,
    ),
    Case(
        "reset after `writing manifest` with the model",
        fault("cut", after_line="writing manifest", takes_effect=True, reset=True),
        settled=True,
    ),
    Case("the answer is lost whole", fault("reset", takes_effect=True), settled=True),
    Case(
        "a proxy gives up, the model appears",
        fault("respond", status=504, takes_effect=True),
        settled=True,
    ),
    Case("cut after success", fault("cut", after_line="success", reset=True)),
    # created again
    Case(
        "cut after `writing manifest` without the model",
        fault("cut", after_line="writing manifest"),
        CREATED_AGAIN,
        RETRIED,
    ),
    Case("a 200 that just ends", fault("end_early", after_line="parsing"), CREATED_AGAIN, RETRIED),
    Case("an empty 200", fault("end_early"), CREATED_AGAIN, RETRIED),
    Case("reset before the answer", fault("reset"), CREATED_AGAIN, RETRIED),
    Case("hung up", fault("hang_up"), CREATED_AGAIN, RETRIED),
    Case(
        "no space, later fine",
        fault("error_line", after_line="parsing", body="write x: no space left on device"),
        CREATED_AGAIN.replace("show show version", "show version"),
        RETRIED,
    ),
    # got over
    Case("garbage lines", fault("raw_line", after_line=1, body=b"garbage\n\n[]\n5\nnull\n{}\n{\n")),
    Case("no UTF-8", fault("raw_line", after_line=1, body=b'\xff\xfe{"status":"\xff"}')),
    Case("a deep line", fault("raw_line", after_line=1, body=b'{"status":' + b"[" * 200_000)),
    Case("a huge line", fault("raw_line", after_line=1, size=9 << 20)),
    Case("lines in pieces", fault("split_lines")),
    Case("lines in pieces of one byte", fault("split_lines", at_bytes=1)),
    Case("two lines in one piece", fault("join_lines")),
    Case(
        "statuses that are no texts", fault("raw_line", after_line=1, body='{"status":null}\n{"status":[1]}')
    ),
    Case("blank lines and CRLF", fault("raw_line", after_line=1, body=b"\r\n \n\r")),
    Case(
        "gzip is never unpacked, but waited for: show settles it",
        fault("gzip"),
        settled=True,
    ),
    Case(
        "an unknown status",
        fault("raw_line", after_line=1, body='{"status":"dancing"}'),
        statuses={"dancing"},
    ),
]


@pytest.mark.extended_unless(
    "no fault",
    "an error line",
    "an error status",
    "with the model",
    "cut after success",
    "an empty 200",
    "no space",
    "garbage lines",
    "gzip",
)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_fault_in_create_ends_as_documented(
    world: World, emulator: OllamaEmulator, case: Case
) -> None:
    for item in case.faults:
        emulator.faults.add(item)
    ingest = await world.forwarded(DATA)
    deployment = ingest.deployments[0]
    assert calls(emulator) == case.calls
    assert await world.states(ingest.id) == case.states
    assert case.statuses <= set(await world.statuses(ingest.id))
    notices = [event.body["message"] for event in await world.events(ingest.id) if event.kind == "notice"]
    assert notices == [LOST] * case.settled
    assert not emulator.wedged
    if case.words:
        assert deployment.failure is not None
        assert deployment.failure.reason is Reason.TARGET_REFUSED
        assert deployment.failure.message == case.words
        assert not list(emulator.models)
    else:
        assert deployment.failure is None
        assert deployment.layer_digest == digest(DATA)
        assert deployment.target_version == "0.24.0"
        assert deployment.manifest_digest
        assert list(emulator.models) == ["m:latest"]


@pytest.mark.extended_unless("cut")
@pytest.mark.parametrize("kind", ["cut", "end_early"])
async def test_a_model_that_was_there_before_does_not_pass_for_a_lost_create(
    world: World, emulator: OllamaEmulator, kind: str
) -> None:
    await world.forwarded(gguf(5000, seed=1))
    emulator.calls.clear()
    emulator.faults.add(Fault(kind, "create", after_line="parsing"))
    second = await world.stored(DATA)
    await world.done(second)
    assert calls(emulator) == CREATED_AGAIN
    assert (await world.deployment(second)).layer_digest == digest(DATA)


async def test_a_model_replaced_by_a_lost_create_is_recognised(
    world: World, emulator: OllamaEmulator
) -> None:
    await world.forwarded(gguf(5000, seed=1))
    emulator.calls.clear()
    emulator.faults.add(Fault("cut", "create", after_line="writing", takes_effect=True))
    second = await world.stored(DATA)
    await world.done(second)
    assert calls(emulator) == f"{TO_CREATE} show tags"
    assert (await world.deployment(second)).layer_digest == digest(DATA)


async def test_success_that_show_does_not_confirm_is_no_success(
    world: World, emulator: OllamaEmulator
) -> None:
    gone = '{"error":"model \'m\' not found"}'
    emulator.faults.add(Fault("respond", "show", status=404, body=gone, times=None))
    ingest = await world.forwarded(DATA, retry_seconds=0.1)
    assert ingest.failure is not None
    assert ingest.failure.reason is Reason.TARGET_UNREACHABLE
    assert "does not show the model" in ingest.failure.message


async def test_the_body_of_create_is_ours_alone(world: World, emulator: OllamaEmulator) -> None:
    await world.forwarded(DATA, "Team/Foo:V1")
    assert [call.json for call in emulator.calls.named("create")] == [
        {"model": "Team/Foo:V1", "files": {"model.gguf": digest(DATA)}, "stream": True}
    ]


@pytest.mark.extended_unless("Foo-")
@pytest.mark.parametrize(
    ("first", "second"), [("Foo", "fOO:LATEST"), ("library/bar", "bar"), ("a/B", "A/b:Latest")]
)
async def test_a_model_stored_in_another_spelling_is_found(
    world: World, emulator: OllamaEmulator, first: str, second: str
) -> None:
    one = (await world.forwarded(gguf(5000, seed=1), first)).deployments[0]
    two = (await world.done(await world.stored(DATA, second))).deployments[0]
    assert len(list(emulator.models)) == 1
    assert two.layer_digest == digest(DATA)
    assert one.manifest_digest
    assert two.manifest_digest not in {"", one.manifest_digest}

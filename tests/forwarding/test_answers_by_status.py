"""What each HTTP error means at each step: tried again, final, or no matter."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.states import DeploymentState
from tests.forwarding.world import World, calls
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.support.files import gguf

SMALL = gguf()
HTML = {"body": "<html><b>nope</b></html>", "content_type": "text/html"}
OLLAMA = {"body": '{"error":"the disk is on fire"}', "content_type": "application/json"}
FAULTS = {
    "500 of Ollama": {"status": 500, **OLLAMA},
    "502 HTML": {"status": 502, **HTML},
    "403 empty": {"status": 403},
    "404": {"status": 404, "body": "404 page not found", "content_type": "text/plain"},
    "413 HTML": {"status": 413, **HTML},
    "429 empty": {"status": 429},
    "307": {"status": 307, "headers": {"Location": "http://127.0.0.1:1/"}},
    "308 to nonsense": {"status": 308, "headers": {"Location": "javascript:alert(1)"}},
}
WHOLE = "version head post show create show tags"
STATES = "PUSHING CREATING READY"


@dataclass(frozen=True)
class End:
    calls: str
    states: str
    reason: Reason | None = None


def refused(calls: str, states: str) -> End:
    return End(calls, states, Reason.TARGET_REFUSED)


AGAIN_AT_VERSION = End(f"version {WHOLE}", f"PENDING {STATES}")
NO_AT_VERSION = refused("version", "FAILED")
AGAIN_AT_HEAD = End(f"version head {WHOLE}", f"PUSHING PENDING {STATES}")
NO_AT_HEAD = refused("version head", "PUSHING FAILED")
# A blob POST that failed is asked about and sent once more within the same attempt.
AGAIN_AT_POST = End("version head post head post show create show tags", STATES)
NO_AT_POST = refused("version head post", "PUSHING FAILED")
AGAIN_AT_SHOW = End("version head post show version head show create show tags", f"PUSHING PENDING {STATES}")
NO_AT_SHOW = refused("version head post show", "PUSHING FAILED")
# A proxy's word about create leaves the outcome open: show settles it, before the next attempt again.
AGAIN_AT_CREATE = End(
    "version head post show create show show version head show create show tags",
    f"PUSHING CREATING PENDING {STATES}",
)
NO_AT_CREATE = refused("version head post show create", "PUSHING CREATING FAILED")
AGAIN_AT_CONFIRM = End(f"{WHOLE[:-5]} show tags", "PUSHING CREATING PENDING READY")
NO_AT_CONFIRM = refused(WHOLE[:-5], "PUSHING CREATING FAILED")
FINE = End(WHOLE, STATES)

BROKEN = ("500 of Ollama", "502 HTML", "429 empty")
FINAL = ("403 empty", "404", "413 HTML", "307", "308 to nonsense")
# call, how many of them pass first, what 5xx and 429 lead to, what 4xx and redirects lead to, exceptions
STEPS: list[tuple[str, str, int, End, End, dict[str, End]]] = [
    ("version", "version", 0, AGAIN_AT_VERSION, NO_AT_VERSION, {}),
    ("head", "blob_head", 0, AGAIN_AT_HEAD, NO_AT_HEAD, {"404": FINE}),
    ("post", "blob_post", 0, AGAIN_AT_POST, NO_AT_POST, {}),
    ("show", "show", 0, AGAIN_AT_SHOW, NO_AT_SHOW, {"404": FINE}),
    ("create", "create", 0, AGAIN_AT_CREATE, NO_AT_CREATE, {"500 of Ollama": NO_AT_CREATE}),
    ("confirm", "show", 1, AGAIN_AT_CONFIRM, NO_AT_CONFIRM, {"404": AGAIN_AT_CONFIRM}),
    ("tags", "tags", 0, FINE, FINE, {}),
]
#: The same path as 403: once is enough.
LEFT_OUT = {(step[0], fault) for step in STEPS[1:] for fault in ("413 HTML", "308 to nonsense")} - {
    ("post", "413 HTML")
}
CASES = [
    pytest.param(call, after, fault, others.get(fault, end), id=f"{step}-{fault}")
    for step, call, after, again, final, others in STEPS
    for faults, end in ((BROKEN, again), (FINAL, final))
    for fault in faults
    if (step, fault) not in LEFT_OUT
]


@pytest.mark.extended_unless("500 of Ollama", "-404", "version-307", "post-413", "create-403 empty")
@pytest.mark.parametrize(("call", "after", "fault", "end"), CASES)
async def test_an_http_error_at_a_step_ends_as_documented(
    world: World, emulator: OllamaEmulator, call: str, after: int, fault: str, end: End
) -> None:
    emulator.faults.add(Fault("respond", call, after=after, **FAULTS[fault]))  # type: ignore[arg-type]
    ingest = await world.forwarded(SMALL)
    deployment = ingest.deployments[0]
    assert calls(emulator) == end.calls
    assert await world.states(ingest.id) == end.states
    if end.reason is None:
        assert deployment.state is DeploymentState.READY
        assert deployment.failure is None
        assert (deployment.manifest_digest == "") == (call == "tags")
    else:
        assert deployment.failure is not None
        assert deployment.failure.reason is end.reason
        assert ingest.failure == deployment.failure
    assert not emulator.wedged


async def test_a_redirect_is_named_as_such_and_not_followed(world: World, emulator: OllamaEmulator) -> None:
    emulator.faults.add(
        Fault("respond", "version", status=307, headers={"Location": f"{emulator.url}/api/tags"})
    )
    failure = (await world.forwarded(SMALL)).failure
    assert failure is not None
    assert failure.message == "HTTP 307: redirects are not followed; correct the target's URL."
    assert calls(emulator) == "version"


async def test_a_compressed_error_page_does_not_hide_its_status(
    world: World, emulator: OllamaEmulator
) -> None:
    emulator.faults.add(Fault("respond", "blob_post", status=413, **HTML))  # type: ignore[arg-type]
    emulator.faults.add(Fault("gzip", "blob_post"))
    failure = (await world.forwarded(SMALL)).failure
    assert failure is not None
    assert failure.reason is Reason.TARGET_REFUSED
    assert failure.message == "HTTP 413"

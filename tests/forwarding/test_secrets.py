"""Nothing of a target's credentials, and nothing that a library says, reaches an event or a failure."""

from __future__ import annotations

import json
import logging

import pytest

from ingest_service.forwarding import Target
from ingest_service.forwarding.ollama import OllamaClient
from ingest_service.forwarding.target import Refused, Unreachable, without
from tests.forwarding.world import World
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.support.files import gguf
from tests.support.raw_server import End, RawServer

TOLD_BY_LIBRARIES = ("httpx", "httpcore", "Error", "Traceback", "Errno", "asyncio", "connection attempts")
FAULTS = {
    "fine": None,
    "refused": Fault("refuse", "version"),
    "reset": Fault("reset", "blob_head"),
    "hung up": Fault("hang_up", "show"),
    "reset in mid-body": Fault("reset", "blob_post", at_bytes=1),
    "cut": Fault("cut", "create", after_line=1, reset=True),
    "half an answer": Fault("cut", "version"),
    "no JSON": Fault("respond", "version", status=200, body="<html>"),
    "redirect": Fault("respond", "version", status=302, headers={"Location": "http://x:hunter2@y/"}),
}


@pytest.mark.extended_unless("fine", "refused")
@pytest.mark.parametrize("fault", FAULTS)
async def test_no_secret_and_no_librarys_words_are_told(
    world: World, emulator: OllamaEmulator, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    caplog.set_level(logging.INFO, logger="ingest_service")
    planned = FAULTS[fault]
    if planned is not None:
        emulator.faults.add(planned)
    url = emulator.url.replace("http://", "http://service:hunter2@")
    ingest_id = await world.stored(gguf())
    world.worker(targets=[Target("a", url, {"X-Token": "s3cret"})], retry_seconds=0)
    ingest = await world.done(ingest_id)
    told = json.dumps([dict(event.body) for event in await world.events(ingest_id)]) + repr(ingest)
    assert not [word for word in TOLD_BY_LIBRARIES if word in told]
    ours = [str(vars(record)) for record in caplog.records if record.name.startswith("ingest_service")]
    for text in (told, *ours):
        assert "hunter2" not in text
        assert "s3cret" not in text
    # They are for the target, and it got them.
    for call in emulator.calls:
        headers = {name.lower(): value for name, value in call.headers.items()}
        assert headers["x-token"] == "s3cret"
        assert headers["authorization"].startswith("Basic ")


async def test_a_proxy_that_says_what_it_was_sent(
    world: World, emulator: OllamaEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="ingest_service")
    body = "denied: Authorization: Bearer s3cret (s3cret), URL http://service:hunter2@here"
    emulator.faults.add(Fault("respond", "version", status=401, body=body, content_type="text/plain"))
    ingest_id = await world.stored(gguf())
    url = emulator.url.replace("http://", "http://service:hunter2@")
    world.worker(targets=[Target("a", url, {"X-Token": "Bearer s3cret"})], retry_seconds=0)
    ingest = await world.done(ingest_id)
    assert ingest.failure is not None
    assert "denied: Authorization: *** (***)" in ingest.failure.message
    told = ingest.failure.message + "".join(str(vars(record)) for record in caplog.records)
    assert "s3cret" not in told
    assert "hunter2" not in told


async def test_an_unforeseen_fault_is_told_without_its_text(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def bug(*_: object) -> str:
        raise KeyError("secret detail")

    monkeypatch.setattr("ingest_service.forwarding.ollama.OllamaClient.version", bug)
    ingest = await world.forwarded(gguf(), retry_seconds=0)
    assert ingest.failure is not None
    assert ingest.failure.message == "An unforeseen fault of the service; see its log."
    assert "secret detail" in caplog.text


async def test_secrets_in_other_spellings_and_in_what_is_no_error(
    world: World, emulator: OllamaEmulator
) -> None:
    """`c2VydmljZTpodW50ZXIy` is base64 of `service:hunter2`."""
    told = "0.24.0 s3cret c2VydmljZTpodW50ZXIy hunter2"
    emulator.faults.add(
        Fault("respond", "version", status=200, body=json.dumps({"version": told}), times=None)
    )
    line = json.dumps({"status": "step s3cret c2VydmljZTpodW50ZXIy"}) + "\n"
    emulator.faults.add(Fault("raw_line", "create", body=line, after_line=1))
    ingest_id = await world.stored(gguf())
    url = emulator.url.replace("http://", "http://service:hunter2@")
    world.worker(targets=[Target("a", url, {"X-Token": "Bearer s3cret"})], retry_seconds=0)
    ingest = await world.done(ingest_id)
    seen = json.dumps([dict(event.body) for event in await world.events(ingest_id)]) + repr(ingest)
    assert "step ***" in seen
    assert "0.24.0 ***" in seen
    for secret in ("s3cret", "c2VydmljZTpodW50ZXIy", "hunter2"):
        assert secret not in seen


@pytest.mark.parametrize("room", [3, 5, 8])
def test_no_secret_escapes_where_a_text_is_cut(room: int) -> None:
    """At 1 KiB by us, and wherever whoever said it has cut it."""
    target = Target("a", "http://h", {"x-token": "Bearer s3cret-token"})
    for words in ("x" * (1024 - room) + "s3cret-token and more", "it got s3cret-token"[: -len("token")]):
        error = Refused(words)
        error.hide(target.secrets())
        assert "s3cr" not in error.words


#: A password that each of the encodings spells in its own way; base64 of `me:` and it.
_PASSWORD = 'p"\u00e4\\&/1'
_SPELLINGS = {
    "as it is": _PASSWORD,
    "in a URL": "p%22%C3%A4%5C%26%2F1",
    "in JSON": 'p\\"\\u00e4\\\\&/1',
    "in JSON with its letters": 'p\\"\u00e4\\\\&/1',
    "in HTML": "p&quot;\u00e4\\&amp;/1",
    "in the repr of bytes": 'p"\\xc3\\xa4\\\\&/1',
    "as Basic": "bWU6cCLDpFwmLzE=",
}


@pytest.mark.parametrize("spelling", _SPELLINGS)
def test_a_secret_is_hidden_however_it_is_spelt(spelling: str) -> None:
    secrets = Target("a", "http://me:p%22%C3%A4%5C%26%2F1@h").secrets()
    assert without(secrets, f"<{_SPELLINGS[spelling]}>") == "<***>"


@pytest.mark.parametrize("told", ["s3cret-token", "czNjcmV0LXRva2VuOg=="])
def test_a_token_that_is_given_as_the_user_is_hidden(told: str) -> None:
    """The second is base64 of `s3cret-token:`, as it goes over the wire."""
    assert without(Target("a", "http://s3cret-token@h").secrets(), f"<{told}>") == "<***>"


async def test_the_http_librarys_own_words_are_logged_without_secrets(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """h11 quotes the line that it cannot read."""
    caplog.set_level(logging.INFO, logger="ingest_service")

    async def echo(end: End) -> None:
        await end.reader.readuntil(b"\r\n\r\n")
        end.writer.write(b"you sent s3cret-token\r\n\r\n")
        await end.writer.drain()

    async with (
        RawServer(echo) as server,
        OllamaClient(Target("a", f"http://{server.address}", {"x-token": "s3cret-token"})) as client,
    ):
        with pytest.raises(Unreachable):
            await client.version()
    details = [vars(record)["detail"] for record in caplog.records if "detail" in vars(record)]
    assert any("you sent ***" in detail for detail in details), details
    assert not any("s3cret" in detail for detail in details)

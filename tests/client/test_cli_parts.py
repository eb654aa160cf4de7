"""The command's pure parts: arguments, words, throttling, JSON, plain lines, bars."""

from __future__ import annotations

import argparse
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from model_ingest import Accepted, ConnectionLostError, Hashing, Moved, Waiting
from model_ingest._status import from_ingest
from model_ingest.cli._commands import Session
from model_ingest.cli._facts import short_facts
from model_ingest.cli._json_view import JsonView
from model_ingest.cli._jsonable import jsonable
from model_ingest.cli._option_lines import option_lines
from model_ingest.cli._parser import parse
from model_ingest.cli._plain_view import PlainView
from model_ingest.cli._rich_view import RichView
from model_ingest.cli._run import _failed
from model_ingest.cli._tables import ingest_table, ingest_text, model_table, model_text, target_table
from model_ingest.cli._throttle import Throttle
from model_ingest.cli._view import choose
from model_ingest.cli._words import amount, describe, next_try
from model_ingest.v1.errors_pb2 import Failure, Reason
from model_ingest.v1.resources_pb2 import (
    CreateOptions,
    Deployment,
    DeploymentStateChange,
    DeploymentStatus,
    Event,
    File,
    FileStateChange,
    Ingest,
    IngestStateChange,
    Model,
    Notice,
    StoredFile,
    Target,
)
from rich.console import Console

from tests.client.scripted_server import ingest

FAILURE = Failure(reason=Reason.TARGET_REFUSED, message="bad \x1b[31march")


def test_push_arguments():
    options = parse(["push", "a.gguf", "--name", "m", "--target", "x", "--target", "y", "--json"])
    assert options.path == [Path("a.gguf")]
    assert (options.name, options.target, options.json) == ("m", ["x", "y"], True)
    assert options.server == "127.0.0.1:50051"


def test_the_server_comes_from_the_option_then_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MODEL_INGEST_SERVER", "box:7")
    assert parse(["ls"]).server == "box:7"
    assert parse(["ls", "--server", "other"]).server == "other:50051"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["push", "a.gguf"], "--name"),
        (["push", "--name", "m"], "PATH"),
        (["push", "a", "--name", "m", "--role", "weights=b"], "ROLE=PATH"),
        (["push", "a", "--name", "m", "--role", "adapter"], "ROLE=PATH"),
        (["push", "a", "--name", "m", "--role", "adapter="], "ROLE=PATH"),
        (["push", "a", "--name", "m", "--store-only", "--target", "x"], "--store-only"),
        (["ls", "--server", "http://box:1"], "HOST:PORT"),
        (["ls", "--limit", "0"], "--limit"),
        (["watch", "i", "--after", "-1"], "--after"),
        (["nonsense"], "nonsense"),
    ],
)
def test_wrong_use_is_exit_2(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (250_100_000, "250.1 MB"), (4 << 40, "4.4 TB")],
)
def test_amounts(size_bytes: int, text: str):
    assert amount(size_bytes) == text


def _events() -> list[tuple[Event, str]]:
    again = DeploymentStateChange(target="a", state=Deployment.STATE_PENDING, attempts=2, failure=FAILURE)
    again.next_attempt_time.seconds = 5
    stored = FileStateChange(file_name="f", state=File.STATE_STORED, sha256="sha256:ab", deduplicated=True)
    pushing = DeploymentStateChange(target="a", state=Deployment.STATE_PUSHING, attempts=2)
    return [
        (Event(ingest_state=IngestStateChange(state=Ingest.STATE_FORWARDING)), "ingest: forwarding"),
        (
            Event(ingest_state=IngestStateChange(state=Ingest.STATE_FAILED, failure=FAILURE)),
            "ingest: failed: bad [31march (TARGET_REFUSED)",
        ),
        (Event(ingest_state=IngestStateChange(state=99)), "ingest: state 99"),  # type: ignore[arg-type]
        (
            Event(file_state=FileStateChange(file_name="f", state=File.STATE_VERIFYING)),
            "f: verifying size and sha256",
        ),
        (Event(file_state=stored), "f: stored as sha256:ab (the bytes were there already)"),
        (Event(deployment_state=pushing), "a: pushing the bytes (try 2)"),
        (
            Event(deployment_state=again),
            "a: try 2 failed: bad [31march (TARGET_REFUSED); next try at 1970-01-01 00:00:05Z",
        ),
        (Event(deployment_status=DeploymentStatus(target="a", status="parsing\nGGUF")), "a: parsing GGUF"),
        (Event(notice=Notice(message="look")), "note: look"),
        (Event(), "an event that this client does not know"),
    ]


def test_events_in_words():
    for event, line in _events():
        assert describe(event) == line


def test_throttle_is_a_tenth_or_half_a_minute():
    now = [0.0]
    throttle = Throttle(clock=lambda: now[0])
    assert [throttle.due("f", n / 100) for n in range(0, 31, 2)].count(True) == 3
    assert not throttle.due("f", 0.31)
    now[0] = 31.0
    assert throttle.due("f", 0.32)
    now[0] = 62.0
    assert not throttle.due("f", 0.32), "no news is no line"
    assert throttle.due("g", 0.5), "things are told apart"


def test_json_has_numbers_short_states_and_no_absent_messages():
    one = ingest(Ingest.STATE_READY, done=True)
    one.create_time.seconds = 1
    shown = jsonable(one)
    assert (shown["state"], shown["done"], shown["files"][0]["size_bytes"]) == ("READY", True, 10)
    assert shown["create_time"] == "1970-01-01T00:00:01Z"
    assert "failure" not in shown
    assert shown["files"][0]["role"] == "MODEL"
    facts = Struct()
    facts["a"] = 1
    assert jsonable(Model(facts=facts))["facts"] == {"a": 1.0}
    assert jsonable(Failure(reason=Reason.QUOTA, metadata={"k": "v"})) == {
        "reason": "QUOTA",
        "message": "",
        "metadata": {"k": "v"},
        "violations": [],
    }
    assert jsonable(Ingest(state=99))["state"] == 99  # type: ignore[arg-type]
    json.dumps(shown)


def _progress(committed: int) -> Moved:
    one = ingest()
    one.files[0].state = File.STATE_UPLOADING
    one.files[0].committed_size = committed
    return Moved(one, None)


def _ready() -> Ingest:
    one = ingest(Ingest.STATE_READY, done=True)
    one.deployments.add(target="a", state=Deployment.STATE_READY)
    return one


def test_plain_lines(capsys: pytest.CaptureFixture[str]):
    view = PlainView()
    with view:
        view.update(Hashing("model.gguf", 10, 10))
        view.update(Accepted(ingest(), resumable=False))
        for committed in (0, 1, 1, 2, 10):
            view.update(_progress(committed))
        view.update(Moved(ingest(), Event(notice=Notice(message="x"))))
    view.result(_ready())
    assert capsys.readouterr().out.splitlines() == [
        "model.gguf: hashed 10 B of 10 B (100 %)",
        "ingests/i1: m:latest accepted, 10 B",
        "model.gguf: committed 1 B of 10 B (10 %)",
        "model.gguf: committed 2 B of 10 B (20 %)",
        "model.gguf: committed 10 B of 10 B (100 %)",
        "note: x",
        "done: m:latest is ready on a",
    ]


def test_json_lines(capsys: pytest.CaptureFixture[str]):
    view = JsonView()
    with view:
        view.update(Accepted(ingest(), resumable=False))
        view.update(_progress(1))
        view.update(_progress(1))
        view.update(Moved(ingest(), Event(sequence=4, notice=Notice(message="\x1b[31m\x7f"))))
    view.result(_ready())
    out = capsys.readouterr().out
    assert all(" " <= character <= "~" or character == "\n" for character in out)
    objects = [json.loads(line) for line in out.splitlines()]
    assert [shown["type"] for shown in objects] == ["accepted", "progress", "event", "result"]
    assert objects[1]["files"] == [{"file_name": "model.gguf", "committed_size": 1, "size_bytes": 10}]
    assert objects[2]["sequence"] == 4
    assert objects[3]["exit_code"] == 0


def test_bars():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120, highlight=False)
    view = RichView(console)
    forwarding = ingest(Ingest.STATE_FORWARDING)
    forwarding.files[0].file_name = "[bold]x[/bold].gguf"
    forwarding.deployments.add(target="a", state=Deployment.STATE_CREATING, status="parsing \x1b[31mGGUF")
    with view:
        view.update(Hashing("model.gguf", 5, 10))
        view.update(Accepted(ingest(), resumable=False))
        view.update(_progress(5))
        view.update(Moved(forwarding, None))
        view.update(Moved(_ready(), None))
    view.result(_ready())
    text = out.getvalue()
    for words in ("ingests/i1: m:latest", "[bold]x[/bold].gguf", "ready", "done: m:latest is ready on a"):
        assert words in text
    assert "\x1b[31m" not in text.replace("\x1b[31m ", "")


def test_no_terminal_means_no_escape_codes(capsys: pytest.CaptureFixture[str]):
    assert isinstance(choose(as_json=False), PlainView)
    assert isinstance(choose(as_json=True), JsonView)


def test_a_next_try_whose_time_has_passed_is_due():
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    time = Timestamp()
    time.FromDatetime(now + timedelta(seconds=5))
    assert next_try(time, now) == "next try at 2026-01-31 12:00:05Z"
    time.FromDatetime(now)
    assert next_try(time, now) == "next try is due now"
    waiting = ingest(Ingest.STATE_FORWARDING)
    waiting.deployments.add(target="a", state=Deployment.STATE_PENDING, next_attempt_time=time)
    assert "  next try is due now" in ingest_text(waiting)


def test_tables_and_texts():
    deployment = Deployment(
        target="a", state=Deployment.STATE_FAILED, attempts=3, failure=FAILURE, target_version="0.34.1"
    )
    stored = StoredFile(file_name="f", sha256="sha256:" + "a" * 64, size_bytes=5, format="gguf")
    model = Model(name="models/m:latest", display_name="M:latest", files=[stored], size_bytes=5)
    model.facts.update(
        {
            "architecture": "gemma3", "parameter_count": 268098176, "tensor_count": 236,
            "quantization": "Q4_K_M",
            "quantization_mix": [{"type": "Q4_K", "size_bytes": 75}, {"type": "Q6_K", "size_bytes": 25}],
            "context_length": 32768, "tokenizer": "llama",
            "vocabulary_size": 262144,
            "chat_template": "a\x1b[31m\nb", "license": "gemma", "warnings": ["one", "two"], "other": 1.5,
        }
    )  # fmt: skip
    model.deployments.add(target="b", state=Deployment.STATE_READY)
    assert [line.split() for line in model_table([model])] == [
        ["MODEL", "SIZE", "STORED", "READY", "ON", "DIGEST"],
        ["M:latest", "5", "B", "b", "sha256:aaaaaaaaaaaa"],
    ]
    assert [line.split(maxsplit=1) for line in model_text(model, CreateOptions())[-9:]] == [
        ["architecture", "gemma3"],
        ["parameters", "268 M (268098176 in 236 tensors)"],
        ["quantization", "Q4_K_M (Q4_K 75 %, Q6_K 25 %)"],
        ["context", "length    32768"],
        ["tokenizer", "llama, 262144 tokens"],
        ["chat", "template     8 characters: a [31m b"],
        ["license", "gemma"],
        ["other", "1.5"],
        ["warnings", "one; two"],
    ]
    assert short_facts(model.facts) == "gemma3, 268 M parameters, Q4_K_M, context 32768"
    assert "CORRUPT" not in "".join(model_text(model, CreateOptions()))
    model.files[0].corrupt = True
    assert "CORRUPT: push the same file again" in "".join(model_text(model, CreateOptions()))
    one = ingest(Ingest.STATE_FAILED, deployments=[deployment], failure=FAILURE)
    text = "\n".join(ingest_text(one))
    assert "target a: FAILED, tries 3, Ollama 0.34.1" in text
    assert "failure: bad [31march (TARGET_REFUSED)" in text
    assert "\x1b" not in text
    assert "no" in target_table([Target(name="targets/a", message="refused")])[1]


def test_options_are_told_as_text():
    assert option_lines(CreateOptions()) == []
    options = CreateOptions(
        renderer="qwen3-coder", parser="qwen3", requires="0.14.0", system="a\x1b[31m\nb", licenses=["MIT"] * 7
    )
    options.parameters.update({"stop": ["", "a"], "seed": 2.0**40, "temperature": 0.5})
    options.messages.add(role="user", content="x" * 500)
    lines = option_lines(options)
    assert [line.split(maxsplit=1) for line in lines[:7]] == [
        ["renderer", "qwen3-coder"],
        ["parser", "qwen3"],
        ["requires", "0.14.0"],
        ["system", "a [31m b"],
        ["seed", "1099511627776"],
        ["stop", '["", "a"]'],
        ["temperature", "0.5"],
    ]
    assert [line.split()[0] for line in lines[7:]] == ["license"] * 5 + ["user", "and"]
    assert all(line.isprintable() and len(line) < 190 for line in lines)
    told = ["created with:", *lines]
    assert ingest_text(ingest(Ingest.STATE_READY, options=options))[-len(told) :] == told
    assert model_text(Model(name="models/m:latest"), options)[-len(told) :] == told


def test_every_view_shows_a_deleted_model_and_a_lost_one(capsys: pytest.CaptureFixture[str]):
    gone = _ready()
    gone.model_deleted_time.seconds = 1_700_000_000
    assert ingest_table([gone])[1].split()[2] == "DELETED"
    text = ingest_text(gone)
    assert text[0].endswith("m:latest  DELETED")
    assert "deleted from the catalog at 2023-11-14 22:13:20Z; before that it was READY" in text[1]
    PlainView().result(gone)
    RichView().result(gone)
    JsonView().result(gone)
    *shown, as_json = capsys.readouterr().out.splitlines()
    assert shown == ["DELETED: m:latest was removed from the catalog at 2023-11-14 22:13:20Z"] * 2
    assert json.loads(as_json)["ingest"]["model_deleted_time"] == "2023-11-14T22:13:20Z"

    failure = Failure(reason=Reason.TARGET_LOST_MODEL, message="It is gone.")
    lost = Deployment(target="a", state=Deployment.STATE_LOST, failure=failure)
    model = Model(name="models/m:latest", deployments=[lost, Deployment(target="b", state=lost.STATE_READY)])
    assert "b, a (LOST)" in model_table([model])[1]
    failed = ingest(Ingest.STATE_FAILED, done=True, deployments=[lost], failure=failure)
    assert "target a: LOST" in ingest_text(failed)
    error = from_ingest(failed)
    assert error is not None
    assert (error.exit_code, error.reason) == (4, "TARGET_LOST_MODEL")
    assert "model-ingest retry" in error.diagnostics


def test_a_server_that_is_lost_for_good_leaves_word_of_what_is_safe(
    capsys: pytest.CaptureFixture[str],
) -> None:
    session = Session()
    file = File(file_name="m.gguf", state=File.STATE_UPLOADING)
    file.size_bytes, file.committed_size = 2_000_000, 1_500_000
    session.ingest = Ingest(name="ingests/i1", state=Ingest.STATE_UPLOADING, files=[file])
    session.resumable = True
    options = argparse.Namespace(command="push", json=False)
    assert _failed(ConnectionLostError("lost it"), options, session) == 5
    said = capsys.readouterr().err
    assert "1.5 MB of 2.0 MB of m.gguf were safe on the server as ingests/i1" in said
    assert "next: run the same command again" in said


def test_an_outage_is_told_once_until_something_moves(capsys: pytest.CaptureFixture[str]) -> None:
    view = PlainView()
    outage = Waiting("m.gguf", ConnectionLostError("lost it"), 1.0)
    view.update(outage)
    view.update(outage)
    view.update(Moved(Ingest(), None))
    view.update(outage)
    assert (
        capsys.readouterr().out.splitlines()
        == [
            "m.gguf: lost it; trying again, nothing committed is lost",
        ]
        * 2
    )

"""Names, versions, Go's way of printing, GGUF headers: without a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ollama_emulator import Era, Fault, FaultPlan, Version, gguf, golang, sample_gguf
from tests.ollama_emulator.names import parse, recase


@pytest.mark.parametrize(
    ("text", "shortest"),
    [
        ("foo", "foo:latest"),
        ("foo:v1.0", "foo:v1.0"),
        ("user/foo", "user/foo:latest"),
        ("library/foo", "foo:latest"),
        ("host:5000/user/foo:tag", "host:5000/user/foo:tag"),
        ("https://host/user/foo", "host/user/foo:latest"),
        ("REGISTRY.ollama.ai/Library/foo", "foo:latest"),
        ("_x-.y", "_x-.y:latest"),
        ("x" * 80, "x" * 80 + ":latest"),
    ],
)
def test_valid_names(text: str, shortest: str) -> None:
    assert parse(text).valid
    assert parse(text).shortest == shortest


@pytest.mark.parametrize(
    "text",
    ["", "a:", ":b", "/b", "a/", "a//b", "-a", ".a", "a b", "a@sha256", "é", "a.b/c",
     "w/x/y/z", "x" * 81, "a:" + "t" * 81, "a:b:c", "a:\n", "a\n"],
)  # fmt: skip
def test_invalid_names(text: str) -> None:
    assert not parse(text).valid


def test_recasing_goes_part_by_part() -> None:
    existing = [parse("Foo:latest"), parse("bar:Q4")]
    assert recase(parse("foo:q4"), existing).shortest == "Foo:Q4"


@pytest.mark.parametrize(
    ("text", "era"),
    [
        ("0.5.5", Era.A),
        ("0.24.0", Era.A),
        ("v0.29.9", Era.A),
        ("0.30.0", Era.B),
        ("0.33.0-rc2", Era.B),
        ("0.34.0", Era.B),
        ("0.34.1", Era.C),
        ("0.40.0", Era.C),
        ("1.0.0", Era.C),
        ("0.0.0", Era.C),
        ("", Era.C),
        ("dev", Era.C),
    ],
)
def test_eras(text: str, era: Era) -> None:
    assert Version(text).era is era


def test_go_prints() -> None:
    assert golang.dumps({"b": "<&>", "a": "é"}) == '{"b":"\\u003c\\u0026\\u003e","a":"é"}'.encode()
    assert golang.quote('a"\n\x01é') == '"a\\"\\n\\x01é"'
    assert golang.rfc3339(1_700_000_000_123_450_000) == "2023-11-14T22:13:20.12345Z"
    assert golang.rfc3339(1_700_000_000_000_000_000, 90) == "2023-11-14T23:43:20+01:30"
    assert [golang.human_number(n) for n in (999, 1500, 2_000_000, 268_098_176, 7_240_000_000)] == [
        "999",
        "2K",
        "2M",
        "268.10M",
        "7.2B",
    ]


def test_gguf_header(tmp_path: Path) -> None:
    keys = {"n": 1 << 40, "f": 0.5, "yes": True, "words": ["a", "b"], "numbers": [1, 2, 3]}
    path = tmp_path / "m.gguf"
    path.write_bytes(sample_gguf(keys, [("t", (64, 2), 8, None)]))
    model = gguf.read(path)
    assert {key: model.kv[key] for key in keys} == keys
    assert (model.tensors[0].size, model.parameters) == (136, 128)


def test_faults_count_calls() -> None:
    plan = FaultPlan()
    fault = Fault("reset", "create", after=1, times=2, match="foo")
    armed = plan.add(fault)
    fired = [bool(plan.take("create", text)) for text in ("foo", "bar", "foo", "foo", "foo")]
    assert fired == [False, False, True, True, False]
    assert (armed.seen, armed.fired, armed.spent) == (3, 2, True)
    assert plan.take("show", "foo") == []


@pytest.mark.parametrize("data", [[], {}, {"kind": "x"}, {"kind": "reset", "surprise": 1}])
def test_bad_faults_are_refused(data: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        Fault.from_json(data)

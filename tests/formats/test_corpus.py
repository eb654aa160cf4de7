"""The fuzzers' corpus is what its script makes, and the fuzzers' properties hold for some thousand inputs."""

from __future__ import annotations

from itertools import islice

import pytest

from ingest_service.formats.gguf import GgufLimits, GgufReader
from tests.formats.corpus_files import CORPUS, DIRECTORY
from tests.formats.fuzz import properties
from tests.formats.fuzz.mutate import Mutator
from tests.formats.fuzz.properties import Broken, check


def test_the_files_that_are_checked_in_are_those_that_the_script_makes() -> None:
    there = {
        kind.name: {path.name: path.read_bytes() for path in kind.iterdir()} for kind in DIRECTORY.iterdir()
    }
    assert there == CORPUS


@pytest.mark.parametrize("mutations", [150, pytest.param(1000, marks=pytest.mark.extended)])
@pytest.mark.parametrize("kind", CORPUS)
def test_the_corpus_is_accepted_and_mutations_of_it_break_no_property(kind: str, mutations: int) -> None:
    for data in CORPUS[kind].values():
        if kind == "template":
            assert check(kind, data) == ("accepted", None)
            continue
        assert properties.reader_for(kind, data).fault is None
        check(kind, data)
    mutated = islice(Mutator(kind, list(CORPUS[kind].values()), 1), mutations)
    verdicts = {check(kind, data)[0] for data in mutated}
    assert len(verdicts) > (2 if kind == "template" else 3)


def test_the_properties_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    data = CORPUS["gguf"]["model"]
    monkeypatch.setattr(properties, "ends", lambda _: (1, 1))
    with pytest.raises(Broken, match="reference"):
        check("gguf", data)
    monkeypatch.setattr(properties, "MAX_SECONDS", -1.0)
    with pytest.raises(Broken, match=" s"):
        check("gguf", data)

    with pytest.raises(Broken, match=" s"):
        check("template", b"{{ x }}")

    class Escapes(GgufReader):
        def feed(self, data: bytes) -> None:
            raise IndexError

    monkeypatch.setattr(properties, "GgufReader", Escapes)
    with pytest.raises(IndexError):
        check("gguf", data)
    monkeypatch.setattr(properties, "GgufReader", lambda _, size: GgufReader(GgufLimits(), size + 1))
    with pytest.raises(Broken):
        check("gguf", data)

"""Thousands of generated files, judged by us and by llama.cpp itself.

Both have to say the same, but for the differences that `verdicts.py` lists with their reasons.
DIFFERENTIAL_SEED makes other files of the same kinds; DIFFERENTIAL_SCALE multiplies how many there are.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest_service.formats.policies import POLICIES
from tests.formats.build import Gguf, text
from tests.formats.differential import bases, cases, heads, llama, projectors, splits
from tests.formats.differential.cases import Case
from tests.formats.differential.more_projectors import more_projectors
from tests.formats.differential.oracle import Oracle, Verdict
from tests.formats.differential.ours import judge, judge_split
from tests.formats.differential.verdicts import Tally

pytestmark = pytest.mark.skipif(bool(llama.why_not()), reason=llama.why_not() or "llama.cpp can be asked")

SEED = int(os.environ.get("DIFFERENTIAL_SEED", "20261130"))
SCALE = float(os.environ.get("DIFFERENTIAL_SCALE", "1"))
#: Of each kind: in every run, and in the wide one.
_SOME = {"header": 250, "model": 40, "projector": 40, "split": 30}
_MANY = {"header": 13_000, "model": 5_000, "projector": 1_500, "split": 1_500}
#: Keys that architectures ask for and the bases do not have.
_MORE_KEYS = (
    "attention.key_length", "attention.value_length", "attention.key_length_mla", "attention.scale",
    "rope.dimension_count", "rope.scaling.factor", "expert_count", "expert_used_count", "expert_group_count",
    "expert_group_used_count", "vocab_size", "nextn_predict_layers", "attention.temperature_length",
)  # fmt: skip
_LARGEST_BYTES = 1 << 40
_HEADS_PARTS = 4
_REPORTS = Path(__file__).parents[3] / "build" / "differential"


def numbers_of(counts: dict[str, int], kind: str) -> int:
    return max(1, int(counts[kind] * SCALE))


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where files come and go by the thousand: in memory, if there is such a place."""
    memory = Path("/dev/shm")
    place = (memory if memory.is_dir() else Path.cwd() / "build") / f"differential-{os.getpid()}"
    place.mkdir(parents=True)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def oracle() -> Iterator[Oracle]:
    with Oracle() as running:
        yield running


def write(case: Case, path: Path) -> None:
    if case.data is not None:
        path.write_bytes(case.data)
        return
    header = case.file.header
    size = case.file.max_size_bytes if case.size_bytes is None else case.size_bytes
    with path.open("wb") as out:
        out.write(header if case.size_bytes is None else header[:size])
        # What would be larger than a disk ends after its header.
        out.truncate(size if size < _LARGEST_BYTES else len(header))


def judge_both(tally: Tally, case: Case, path: Path, theirs: Verdict) -> None:
    """As the service judges it when nothing is set, and what a policy refuses with the policies lifted."""
    ours = judge(path)
    tally.add(case.what, ours, theirs)
    if ours.rule in POLICIES:
        tally.add_lifted(case.what, judge(path, is_lifted=True), theirs)


def run_headers(oracle: Oracle, folder: Path, count: int) -> Tally:
    tally, path = Tally("header"), folder / "header.gguf"
    adapter = Gguf().but({"general.type": text("adapter")})
    for case in cases.headers(SEED, count, [adapter, adapter.but(version=2), Gguf()]):
        write(case, path)
        judge_both(tally, case, path, oracle.ask("header", str(path)))
    return tally


def run_models(oracle: Oracle, folder: Path, count: int, architectures: list[str]) -> Tally:
    tally, path = Tally("model"), folder / "model.gguf"
    found = bases.models(oracle, folder, architectures)
    assert found, "llama.cpp loads none of our models"
    for base in found:
        write(Case("", base.file), path)
        assert not judge(path).rule, f"{base.architecture}: {judge(path).message}"
    prefix = found[0].architecture + "."
    keys = [key.removeprefix(prefix) for key in found[0].pairs if key.startswith(prefix)]
    for _, case in cases.models(SEED, count, found, [*keys, *_MORE_KEYS]):
        write(case, path)
        judge_both(tally, case, path, oracle.ask("model", str(path)))
    tally.counts["architectures"] = len(found)
    return tally


def run_heads(oracle: Oracle, folder: Path, architectures: list[str]) -> Tally:
    tally, path = Tally("heads"), folder / "model.gguf"
    found = bases.models(oracle, folder, architectures)
    assert found, "llama.cpp loads none of our models"
    for base in found:
        for case in heads.cases(oracle, folder, base):
            write(case, path)
            judge_both(tally, case, path, oracle.ask("model", str(path)))
    return tally


def run_projectors(oracle: Oracle, folder: Path, count: int) -> Tally:
    tally, path, words = Tally("projector"), folder / "projector.gguf", str(folder / "text.gguf")
    base = bases.model(oracle, "llama", folder)
    assert base is not None
    bases.write(base.file, folder / "text.gguf")
    files = [*projectors.projectors(), *more_projectors()]
    for file in files:
        bases.write(file, path)
        assert _loaded(oracle.ask("projector", str(path), words)).outcome == "taken"
        assert not judge(path).rule, judge(path).message
    for case in projectors.cases(SEED, count, files):
        write(case, path)
        tally.add(case.what, judge(path), _loaded(oracle.ask("projector", str(path), words)))
    return tally


def _loaded(verdict: Verdict) -> Verdict:
    """A projector that is loaded and does not go with the text model is a good one."""
    if "mismatch between text model" in verdict.words:
        return Verdict("taken", verdict.stage, verdict.words)
    return verdict


def run_splits(oracle: Oracle, folder: Path, count: int) -> Tally:
    tally = Tally("split")
    base = bases.model(oracle, "llama", folder)
    assert base is not None
    for case in splits.cases(SEED, count, base):
        for path in folder.iterdir():
            path.unlink()
        paths = [folder / name for name, _ in case.parts]
        for path, (_, file) in zip(paths, case.parts, strict=True):
            bases.write(file, path)
        tally.add(case.what, judge_split(paths), oracle.ask("splits", [str(path) for path in paths]))
    return tally


def told(tally: Tally, capsys: pytest.CaptureFixture[str], part: str = "") -> None:
    """The figures, whether it passes or not, also in build/differential; fails for what is not listed."""
    report = f"llama.cpp of {llama.PACKAGE} {llama.version()}, seed {SEED}\n{tally.report()}\n"
    _REPORTS.mkdir(parents=True, exist_ok=True)
    (_REPORTS / f"{tally.kind}{part}.txt").write_text(report)
    with capsys.disabled():
        print(f"\n{report}")
    assert not tally.wrong, f"{len(tally.wrong)} unexplained:\n" + "\n".join(tally.wrong[:20])


@pytest.mark.parametrize("kind", list(_SOME))
def test_some(oracle: Oracle, folder: Path, kind: str) -> None:
    count = numbers_of(_SOME, kind)
    if kind == "header":
        tally = run_headers(oracle, folder, count)
    elif kind == "model":
        tally = run_models(oracle, folder, count, ["llama", "mamba"])
    elif kind == "projector":
        tally = run_projectors(oracle, folder, count)
    else:
        tally = run_splits(oracle, folder, count)
    assert not tally.wrong, "\n".join(tally.wrong[:20])


@pytest.mark.extended
@pytest.mark.timeout(900)
def test_many_headers(oracle: Oracle, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(run_headers(oracle, folder, numbers_of(_MANY, "header")), capsys)


@pytest.mark.extended
@pytest.mark.timeout(900)
def test_many_models(oracle: Oracle, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count = numbers_of(_MANY, "model")
    told(run_models(oracle, folder, count, bases.all_architectures()), capsys)


# In parts, for several workers: as one test it would be the longest of the suite, and the last to end.
@pytest.mark.extended
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(_HEADS_PARTS))
def test_heads_that_do_not_fit(
    oracle: Oracle, folder: Path, capsys: pytest.CaptureFixture[str], part: int
) -> None:
    told(run_heads(oracle, folder, bases.all_architectures()[part::_HEADS_PARTS]), capsys, f"-{part}")


@pytest.mark.extended
@pytest.mark.timeout(900)
def test_many_projectors(oracle: Oracle, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(run_projectors(oracle, folder, numbers_of(_MANY, "projector")), capsys)


@pytest.mark.extended
@pytest.mark.timeout(900)
def test_many_splits(oracle: Oracle, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(run_splits(oracle, folder, numbers_of(_MANY, "split")), capsys)

"""The states of resources.proto are those of the vocabulary, and the stubs are those of the protos."""

from __future__ import annotations

import subprocess
import sys
from enum import StrEnum
from typing import Any

import pytest
from model_ingest.v1 import resources_pb2

from ingest_service.vocabulary.states import DeploymentState, FileRole, FileState, IngestState
from tests.house.source import ROOT


@pytest.mark.parametrize(
    ("ours", "prefix", "theirs"),
    [
        (IngestState, "STATE_", resources_pb2.Ingest.State),
        (FileState, "STATE_", resources_pb2.File.State),
        (DeploymentState, "STATE_", resources_pb2.Deployment.State),
        (FileRole, "ROLE_", resources_pb2.File.Role),
    ],
)
def test_the_words_are_the_same_both_ways(ours: type[StrEnum], prefix: str, theirs: Any) -> None:
    wire = [name.removeprefix(prefix) for name in theirs.keys()]  # noqa: SIM118 (an enum wrapper, no dict)
    assert wire[0] == "UNSPECIFIED"
    assert wire[1:] == [str(word) for word in ours]
    assert [word.name for word in ours] == [word.value for word in ours]


def test_the_committed_stubs_are_those_of_the_protos() -> None:
    answer = subprocess.run(
        [sys.executable, "scripts/generate_stubs.py", "--check"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert (answer.returncode, answer.stderr) == (0, "")

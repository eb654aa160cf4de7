"""The protos are a contract: `make lint` refuses whatever breaks generated code of the baseline."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUF = Path(sys.executable).with_name("buf")


def compare(root: Path) -> subprocess.CompletedProcess[str]:
    """Asks buf whether the protos below `root` break the baseline, as `make lint` does."""
    command = [str(BUF), "breaking", "--against", str(ROOT / "protos/baseline.binpb")]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=100)


def changed(root: Path, file_name: str, old: str, new: str) -> Path:
    """A copy of the protos in which `old` is `new`, once."""
    shutil.copytree(ROOT / "protos", root / "protos")
    shutil.copy(ROOT / "buf.yaml", root)
    path = root / "protos/model_ingest/v1" / file_name
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new), encoding="utf-8")
    return root


def test_the_protos_break_nothing_of_the_baseline() -> None:
    answer = compare(ROOT)
    assert (answer.returncode, answer.stdout) == (0, "")


@pytest.mark.parametrize(
    ("file_name", "old", "new"),
    [
        ("resources.proto", "  string request_id = 10;\n", ""),
        ("resources.proto", "  int64 last_sequence = 9;\n", "  string last_sequence = 9;\n"),
        ("resources.proto", "    STATE_SUPERSEDED = 7;\n", ""),
        ("errors.proto", "  WRITER_BUSY = 17;\n", "  WRITER_OCCUPIED = 17;\n"),
    ],
    ids=["field removed", "field retyped", "state removed", "reason renamed"],
)
def test_a_removal_or_a_change_is_refused(tmp_path: Path, file_name: str, old: str, new: str) -> None:
    answer = compare(changed(tmp_path, file_name, old, new))
    assert answer.returncode == 100
    assert file_name in answer.stdout


def test_an_addition_is_allowed(tmp_path: Path) -> None:
    old = "  string request_id = 10;\n"
    root = changed(tmp_path, "resources.proto", old, old + "  string a_new_field = 99;\n")
    answer = compare(root)
    assert (answer.returncode, answer.stdout) == (0, "")

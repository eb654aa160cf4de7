"""The README's table of settings is the code's: the same settings, in the same order, with their defaults."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ingest_service.config import SETTINGS

_ROOT = Path(__file__).resolve().parent.parent.parent
_ROW = re.compile(r"\|\s*`(INGEST_[A-Z_]+)`\s*\|([^|]*)\|")


def test_the_readme_lists_every_setting_with_its_default() -> None:
    rows = _ROW.findall((_ROOT / "README.md").read_text(encoding="utf-8"))
    names = [name for name, _ in rows]
    assert names == [f"INGEST_{setting.name}" for setting in SETTINGS]
    for (name, shown), setting in zip(rows, SETTINGS, strict=True):
        if setting.default:
            assert shown.strip() == f"`{setting.default}`", name
        else:
            assert "`" not in shown or "ingest.db" in shown, name


@pytest.mark.extended
def test_help_lists_every_setting_with_its_default() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "ingest_service", "serve", "--help"],
        cwd=_ROOT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    for setting in SETTINGS:
        line = next(
            line for line in answer.stdout.splitlines() if line.strip().startswith(f"INGEST_{setting.name} ")
        )
        assert setting.help in line
        assert f"(default: {setting.default or 'none'})" in line

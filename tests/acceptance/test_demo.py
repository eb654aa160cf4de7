"""`make demo` works, and works again; it tells which Ollama it used and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.ollama_emulator.thread import EmulatorThread
from tests.support.files import MEBIBYTE, gguf
from tests.support.service import ROOT


def demo(**variables: str) -> subprocess.CompletedProcess[str]:
    """scripts/demo.py, as `make demo` runs it."""
    return subprocess.run(
        [sys.executable, "scripts/demo.py"],
        cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


def leftovers() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("model-ingest-demo-*")}


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.extended)])
def test_without_an_ollama_it_says_emulator_loudly_and_can_be_repeated(times: int) -> None:
    before = leftovers()
    for _ in range(times):
        result = demo(OLLAMA_URL="http://127.0.0.1:9")
        assert result.returncode == 0, result.stdout + result.stderr
        assert "using the EMULATOR" in result.stdout
        assert "model-ingest-demo:latest is ready on default" in result.stdout
        assert "service stopped (exit 0)" in result.stdout
    assert leftovers() == before


@pytest.mark.extended
def test_with_an_ollama_it_pushes_the_given_file_there_and_deletes_it_again(tmp_path: Path) -> None:
    model = tmp_path / "mine.gguf"
    model.write_bytes(gguf(3 * MEBIBYTE))
    with EmulatorThread("0.24.0", tmp_path / "ollama") as ollama:
        result = demo(OLLAMA_URL=ollama.url, MODEL=str(model))
        assert result.returncode == 0, result.stdout + result.stderr
        assert f"Using the REAL Ollama 0.24.0 at {ollama.url}" in result.stdout
        assert list(ollama.models) == []
        assert ollama.calls.body_bytes("blob_post") == model.stat().st_size
        kept = demo(OLLAMA_URL=ollama.url, MODEL=str(model), KEEP="1")
        assert kept.returncode == 0
        assert list(ollama.models) == ["model-ingest-demo:latest"]


@pytest.mark.extended
def test_a_model_that_is_refused_fails_the_demo(tmp_path: Path) -> None:
    model = tmp_path / "page.gguf"
    model.write_bytes(b"<!DOCTYPE html>" + b" " * 100)
    result = demo(OLLAMA_URL="http://127.0.0.1:9", MODEL=str(model))
    assert result.returncode == 1
    assert "error" in result.stderr

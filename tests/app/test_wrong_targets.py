"""`check` and ListTargets (`model-ingest targets`) say what a wrong URL leads to.

Whoever names a target that does not exist is told which there are.

Breaks when: a wrong URL looks fine, or like a target that is away.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from model_ingest.v1.catalog_service_pb2 import ListTargetsRequest

from tests.conftest import StartService
from tests.house.source import ROOT
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.support.files import create_request, gguf

WORDS = {"api": "ends in /api", "unresolved": "cannot be resolved", "page": "this is not Ollama"}


@pytest.mark.extended
async def test_both_say_what_it_is(
    start_service: StartService, emulator: OllamaEmulator, tmp_path: Path
) -> None:
    async with OllamaEmulator(version="0.24.0", data_dir=tmp_path / "page") as page:
        page.faults.add(Fault("respond", "version", status=200, body="<html>hello</html>", times=None))
        urls = {"api": f"{emulator.url}/api", "unresolved": "http://no-such-host.invalid", "page": page.url}
        setting = ",".join(f"{name}={url}" for name, url in {"good": emulator.url, **urls}.items())
        running = await start_service(setting)
        listed = await running.catalog.ListTargets(ListTargetsRequest())
        told = {one.name.removeprefix("targets/"): one.message for one in listed.targets}
        assert told.pop("good") == ""
        for name, words in WORDS.items():
            assert words in told[name]
        child = await _to_thread_run(setting, tmp_path)
        assert child.returncode == 0
        assert "INGEST_TARGETS=" in child.stdout
        lines = [line for line in child.stderr.splitlines() if line.startswith("warning: ")]
        assert len(lines) == 3
        for name, words in WORDS.items():
            assert any(line.startswith(f"warning: target {name}: ") and words in line for line in lines)
        with pytest.raises(grpc.aio.AioRpcError, match="there are: good, api, unresolved, page"):
            await running.ingests.CreateIngest(create_request(gguf(), targets=["nix"]))


async def _to_thread_run(setting: str, directory: Path) -> subprocess.CompletedProcess[str]:
    import asyncio

    variables = {**os.environ, "INGEST_TARGETS": setting, "INGEST_DATA_DIR": str(directory / "data")}
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "ingest_service", "check"],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

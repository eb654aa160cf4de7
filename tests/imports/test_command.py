"""`model-ingest import` against the real service."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_ingest import AsyncClient
from model_ingest.cli._parser import parse

from tests.client.test_cli_process import run
from tests.conftest import StartService
from tests.imports.folder import check_taken_in, drop, ended, ingests
from tests.ollama_emulator import OllamaEmulator
from tests.support.files import gguf


async def test_it_follows_like_a_push(
    start_service: StartService, emulator: OllamaEmulator, tmp_path: Path
) -> None:
    service = await start_service(f"default={emulator.url}", import_at_boot="false")
    data = gguf(100_000)
    drop(tmp_path / "data", data)
    done = await run(service.address, "import", "model.gguf", "--name", "m", "--target", "default")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == "done: m:latest is ready on default"
    check_taken_in(tmp_path / "data", data)


@pytest.mark.extended
async def test_store_only_and_detach(
    start_service: StartService, emulator: OllamaEmulator, tmp_path: Path
) -> None:
    service = await start_service(f"default={emulator.url}", import_at_boot="false")
    drop(tmp_path / "data", gguf(100_000))
    arguments = ("import", "model.gguf", "--name", "m", "--store-only", "--detach", "--json")
    done = await run(service.address, *arguments)
    assert done.code == 0
    assert done.objects[-1]["model"] == "m:latest"
    (made,) = await ingests(service)
    assert list((await ended(service, made)).deployments) == []


@pytest.mark.parametrize(
    "arguments",
    [["--name", "m"], ["model.gguf"], ["model.gguf", "--name", "m", "--store-only", "--target", "a"]],
)
def test_wrong_use(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["import", *arguments])
    assert caught.value.code == 2


async def test_the_library_says_store_only(
    start_service: StartService, emulator: OllamaEmulator, tmp_path: Path
) -> None:
    service = await start_service(f"default={emulator.url}", import_at_boot="false")
    drop(tmp_path / "data", gguf(100_000))
    async with AsyncClient(service.address) as client:
        begun = await client.import_file("model.gguf", name="m", store_only=True)
        assert list(begun.deployments) == []
        await client.wait(begun.name)
    await ended(service, begun)

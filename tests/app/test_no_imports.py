"""A service that is SERVING imports nothing on the event loop: an import there keeps everybody waiting.

Each in a process of its own, for a module is imported once in the life of a process.

Breaks when: anything that a call, a worker or a sweep needs is imported where it is first used.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest
from model_ingest.v1.catalog_service_pb2 import (
    DeleteModelRequest,
    DeployModelRequest,
    GetModelRequest,
    ImportFileRequest,
    ListModelsRequest,
    ListTargetsRequest,
    VerifyModelRequest,
)
from model_ingest.v1.ingest_service_pb2 import (
    CancelIngestRequest,
    GetCapabilitiesRequest,
    ListIngestsRequest,
    RetryIngestRequest,
)
from model_ingest.v1.resources_pb2 import CreateOptions, Ingest

from tests.faults.children import Child
from tests.formats.build import Gguf, text
from tests.ollama_emulator import OllamaEmulator
from tests.support import loop_guard
from tests.support.files import create_request, digest, gguf, push, send, upload_messages
from tests.support.postgres import PostgresCluster
from tests.support.service import environment
from tests.support.stubs import catalog_stub, ingest_stub

_DATA = gguf(300_000)
_NO_MODEL = b"x" * 4096
_TEMPLATE = "{% for m in messages %}{{ m['role'] | upper }}: {{ m['content'] | trim }}\n{% endfor %}"


async def _use_everything(child: Child, data_dir: Path) -> None:
    """Every call once, well and badly, with deployments that succeed and fail."""
    templated = Gguf().but({"tokenizer.chat_template": text(_TEMPLATE)}).file()
    fat = CreateOptions(licenses=["x" * 100_000], system="You are ...")
    fat.parameters.update({"temperature": 0.5})
    async with child.channel() as channel:
        ingests, catalog = ingest_stub(channel), catalog_stub(channel)
        await ingests.GetCapabilities(GetCapabilitiesRequest())
        for data, model, fields in (
            (_DATA, "one", {"targets": ["here"], "options": fat}),
            (templated, "two", {"store_only": True}),
            (gguf(310_000), "three", {"targets": ["here", "shared"]}),
        ):
            pushed = await push(ingests, data, model, **fields)
            assert pushed.state == (Ingest.STATE_STORED if "store_only" in fields else Ingest.STATE_READY)
        with pytest.raises(grpc.aio.AioRpcError):
            await send(ingests, upload_messages(create_request(_NO_MODEL, "bad"), _NO_MODEL))
        waiting = await ingests.CreateIngest(create_request(gguf(400_000), "away", targets=["away", "tls"]))
        await send(ingests, upload_messages(waiting.files[0].name, gguf(400_000)))
        await catalog.ListTargets(ListTargetsRequest())
        await ingests.RetryIngest(RetryIngestRequest(name=waiting.name))
        await ingests.CancelIngest(CancelIngestRequest(name=waiting.name))
        shutil.copyfile(data_dir / "blobs" / digest(_DATA).replace(":", "-"), data_dir / "import" / "i.gguf")
        await catalog.ImportFile(ImportFileRequest(file_name="i.gguf", model="imported", targets=["here"]))
        await catalog.DeployModel(DeployModelRequest(name="models/two", targets=["here"]))
        await ingests.ListIngests(ListIngestsRequest())
        await catalog.ListModels(ListModelsRequest())
        await catalog.GetModel(GetModelRequest(name="models/one"))
        async for _ in catalog.VerifyModel(VerifyModelRequest(name="models/one")):
            pass
        await catalog.DeleteModel(DeleteModelRequest(name="models/one", targets=["here"]))
        with pytest.raises(grpc.aio.AioRpcError):
            await catalog.GetModel(GetModelRequest(name="models/one"))


async def _check(tmp_path: Path, url: str, emulator: OllamaEmulator) -> None:
    data_dir = tmp_path / "data"
    targets = tmp_path / "targets.toml"
    by_name = emulator.url.replace("127.0.0.1", "localhost")
    targets.write_text(
        f'[here]\nurl = "{emulator.url}"\n[shared]\nurl = "{by_name}"\nmodels_dir = "{tmp_path}/ollama"\n'
        '[away]\nurl = "http://localhost:9"\n[tls]\nurl = "https://localhost:9"\n'
    )
    settings: dict[str, Any] = {
        "targets_file": targets,
        "sweep_seconds": 1,
        "readiness_seconds": 1,
        "cut_through": "true",
    }
    variables = loop_guard.switched_on(environment(data_dir, url, **settings))
    del variables["INGEST_TARGETS"]
    child = Child(variables, tmp_path / "log", "-m", "tests.support.guarded_server", "serve")
    await child.start()
    try:
        await _use_everything(child, data_dir)
        assert await child.kill(signal.SIGTERM) == 0
    finally:
        await child.kill()
    loop_guard.check_log(child.log)


async def test_on_sqlite(tmp_path: Path, sqlite_url: str, emulator: OllamaEmulator) -> None:
    await _check(tmp_path, sqlite_url, emulator)


@pytest.mark.extended
async def test_on_postgresql(postgres: PostgresCluster, tmp_path: Path, emulator: OllamaEmulator) -> None:
    url = await asyncio.to_thread(postgres.create_database, "no_imports", "migrated")
    try:
        await _check(tmp_path, url, emulator)
    finally:
        await asyncio.to_thread(postgres.drop_database, "no_imports")

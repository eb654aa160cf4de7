"""SIGTERM drains; readiness is real."""

from __future__ import annotations

import asyncio
import shutil
import signal
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import GetIngestRequest

from tests.conftest import StartService
from tests.support.files import MEBIBYTE, create_request, gguf, upload_messages
from tests.support.service import RunningService, ServiceProcess, environment
from tests.support.stubs import ingest_stub


async def test_sigterm_lets_a_running_upload_finish(tmp_path: Path, sqlite_url: str) -> None:
    process = ServiceProcess(environment(tmp_path / "data", sqlite_url, drain_seconds=30), tmp_path / "log")
    data = gguf(4 * MEBIBYTE)
    async with process, grpc.aio.insecure_channel(process.address) as channel:
        stub = ingest_stub(channel)
        ingest = await stub.CreateIngest(create_request(data))
        call = stub.Upload()
        messages = upload_messages(ingest.files[0].name, data)
        for message in messages[:2]:
            await call.write(message)
        while (await stub.GetIngest(GetIngestRequest(name=ingest.name))).files[0].state != (
            resources_pb2.File.STATE_UPLOADING
        ):
            await asyncio.sleep(0.01)
        stopping = asyncio.create_task(process.kill(signal.SIGTERM))
        while "message=draining" not in process.log.read_text():
            await asyncio.sleep(0.01)
        for message in messages[2:]:
            await call.write(message)
        await call.done_writing()
        assert (await call).state == resources_pb2.File.STATE_STORED
        assert await stopping == 0
    assert "message=stopped" in process.log.read_text()


@pytest.mark.extended
async def test_sigterm_ends_a_process_without_work_with_exit_code_0(tmp_path: Path, sqlite_url: str) -> None:
    process = ServiceProcess(environment(tmp_path / "data", sqlite_url), tmp_path / "log")
    async with process:
        assert await process.kill(signal.SIGTERM) == 0


async def _status(service: RunningService, name: str = "") -> int:
    answer = await service.health.Check(health_pb2.HealthCheckRequest(service=name))
    return int(answer.status)


async def test_health_follows_the_data_directory(start_service: StartService, tmp_path: Path) -> None:
    service = await start_service(readiness_seconds=0.1)
    serving = health_pb2.HealthCheckResponse.SERVING
    assert await _status(service) == serving
    uploads = service.settings.data_dir / "uploads"
    # Root may write anywhere, so permissions prove nothing here: the directory goes away for a while.
    shutil.move(uploads, tmp_path / "elsewhere")
    while await _status(service, "model_ingest.v1.IngestService") == serving:
        await asyncio.sleep(0.02)
    shutil.move(tmp_path / "elsewhere", uploads)
    while await _status(service) != serving:
        await asyncio.sleep(0.02)

"""DATA_DIR is replaced by a look-alike while the service runs: no byte is taken, and Health says so."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from model_ingest.v1 import resources_pb2

from tests.conftest import StartService
from tests.ingests.calls import refusal
from tests.ingests.parts import eventually
from tests.support.files import create_request, gguf, push, send, upload_messages

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_look_alike_takes_no_upload_and_the_right_directory_goes_on(
    tmp_path: Path, start_service: StartService
) -> None:
    data_dir = tmp_path / "data"
    service = await start_service(data_dir=data_dir, readiness_seconds=0.2)
    data = gguf()
    ingest = await service.ingests.CreateIngest(create_request(data))
    real = data_dir.with_name("real")
    data_dir.rename(real)
    for name in ("blobs", "uploads/.locks", "import"):
        (data_dir / name).mkdir(parents=True)

    async def says(status: int) -> bool:
        answer = await service.health.Check(health_pb2.HealthCheckRequest(), timeout=10)
        return bool(answer.status == status)

    await eventually(lambda: says(NOT_SERVING))
    messages = upload_messages(ingest.files[0].name, data)
    with pytest.raises(grpc.aio.AioRpcError, match="has no store id, but this service opened") as caught:
        await send(service.ingests, messages)
    assert refusal(caught.value) == (grpc.StatusCode.UNAVAILABLE, "BACKEND_DOWN")
    assert not [path for path in data_dir.rglob("*") if path.is_file()]
    for path in sorted(data_dir.rglob("*"), reverse=True):
        path.rmdir()
    data_dir.rmdir()
    real.rename(data_dir)
    await eventually(lambda: says(SERVING))
    assert (await send(service.ingests, messages)).state == resources_pb2.File.STATE_STORED


async def test_a_publication_into_a_look_alike_is_refused_and_finished_once_the_directory_is_back(
    tmp_path: Path, start_service: StartService
) -> None:
    """The upload began in the right directory, where its open file still is."""
    data_dir = tmp_path / "data"
    service = await start_service(data_dir=data_dir, readiness_seconds=300, sweep_seconds=0.2)
    data = gguf()
    real = data_dir.with_name("real")

    publish = service.service.store.publish

    async def replaced_meanwhile(partial_id: str, sha256: str) -> None:
        data_dir.rename(real)
        for name in ("blobs", "uploads/.locks"):
            (data_dir / name).mkdir(parents=True)
        service.service.store.publish = publish
        await publish(partial_id, sha256)

    service.service.store.publish = replaced_meanwhile
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await push(service.ingests, data)
    assert refusal(caught.value) == (grpc.StatusCode.UNAVAILABLE, "BACKEND_DOWN")
    assert not [path for path in data_dir.rglob("*") if path.is_file()]
    data_dir.rename(data_dir.with_name("look-alike"))
    real.rename(data_dir)

    again = await push(service.ingests, data, "again")
    assert again.state == resources_pb2.Ingest.STATE_STORED

"""Calls of CatalogService, and what must hold of catalog, store and targets afterwards."""

from __future__ import annotations

from typing import Any

from model_ingest.v1 import resources_pb2
from model_ingest.v1.catalog_service_pb2 import (
    DeleteModelRequest,
    DeleteModelResponse,
    DeployModelRequest,
    GetModelRequest,
    ListModelsRequest,
)
from model_ingest.v1.ingest_service_pb2 import GetIngestRequest, WatchIngestRequest

from tests.rpc.refusals import refused
from tests.support.files import digest, stored_blobs
from tests.support.service import RunningService

READY = resources_pb2.Deployment.STATE_READY


async def delete(running: RunningService, model: str = "m", **fields: Any) -> DeleteModelResponse:
    return await running.catalog.DeleteModel(DeleteModelRequest(name=f"models/{model}", **fields), timeout=60)


async def deploy(running: RunningService, model: str = "m", **fields: Any) -> resources_pb2.Ingest:
    return await running.catalog.DeployModel(DeployModelRequest(name=f"models/{model}", **fields), timeout=60)


async def get_model(running: RunningService, model: str = "m") -> resources_pb2.Model:
    return await running.catalog.GetModel(GetModelRequest(name=f"models/{model}"))


async def done(running: RunningService, ingest: str) -> resources_pb2.Ingest:
    """The ingest, once nothing of it moves."""
    async for _ in running.ingests.WatchIngest(WatchIngestRequest(name=ingest), timeout=60):
        pass
    return await running.ingests.GetIngest(GetIngestRequest(name=ingest))


async def events(running: RunningService, ingest: str) -> list[resources_pb2.Event]:
    watch = running.ingests.WatchIngest(WatchIngestRequest(name=ingest), timeout=60)
    found = [item.event async for item in watch if item.HasField("event")]
    assert [event.sequence for event in found] == list(range(1, len(found) + 1))
    return found


async def notices(running: RunningService, ingest: str) -> list[str]:
    return [event.notice.message for event in await events(running, ingest) if event.HasField("notice")]


def blobs(running: RunningService) -> set[str]:
    """Digests of the files in the store."""
    return {path.name.replace("-", ":", 1) for path in stored_blobs(running.settings.data_dir)}


def digests(*data: bytes) -> set[str]:
    return {digest(one) for one in data}


async def assert_gone(running: RunningService, model: str = "m") -> None:
    """The catalog does not know it, by whatever call."""
    await refused(get_model(running, model), "MODEL_NOT_FOUND")
    listed = await running.catalog.ListModels(ListModelsRequest())
    assert model not in {one.name.removeprefix("models/").partition(":")[0] for one in listed.models}
    assert await running.service.database.read(lambda tx: tx.models.count()) == len(listed.models)

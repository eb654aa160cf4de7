"""CatalogService: wire to domain and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from model_ingest.v1 import catalog_service_pb2 as pb
from model_ingest.v1 import resources_pb2
from model_ingest.v1.catalog_service_pb2_grpc import CatalogServiceServicer

from ingest_service.forwarding import TargetBoard
from ingest_service.ingests.deploying import Deploying, DeployRequest
from ingest_service.ingests.imports import Imports
from ingest_service.ingests.removal import Removal
from ingest_service.ingests.service import Ingests
from ingest_service.ingests.verify import Verifications
from ingest_service.rpc.convert import (
    deleted_message,
    ingest_message,
    model_message,
    target_message,
    verify_message,
)
from ingest_service.rpc.names import MODEL_PAGES, page_limit, parse_model_resource, parse_name_prefix
from ingest_service.rpc.pages import page_that_fits
from ingest_service.rpc.parse import import_request, target_names


class CatalogServicer(CatalogServiceServicer):
    """Errors are raised as they are; the interceptor maps them."""

    def __init__(
        self,
        ingests: Ingests,
        board: TargetBoard,
        *,
        imports: Imports,
        verifications: Verifications,
        removal: Removal,
        deploying: Deploying,
    ) -> None:
        self._ingests = ingests
        self._imports = imports
        self._board = board
        self._verifications = verifications
        self._removal = removal
        self._deploying = deploying

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        prefix, after = parse_name_prefix(request.name_prefix), MODEL_PAGES.read(request.page_token)

        async def page_of(limit: int) -> pb.ListModelsResponse:
            models, more = await self._ingests.models(prefix=prefix, after=after, limit=limit)
            return pb.ListModelsResponse(
                models=[model_message(model, listed=True) for model in models],
                next_page_token=MODEL_PAGES.write(more),
            )

        return await page_that_fits(page_of, page_limit(request.page_size))

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> resources_pb2.Model:
        return model_message(await self._ingests.model(parse_model_resource(request.name)))

    async def VerifyModel(
        self, request: pb.VerifyModelRequest, context: Any
    ) -> AsyncIterator[pb.VerifyModelResponse]:
        # Closed here and now when the client leaves, not when the garbage collector comes by.
        async with aclosing(self._verifications.verify(parse_model_resource(request.name))) as items:
            async for item in items:
                yield verify_message(item)

    async def DeleteModel(self, request: pb.DeleteModelRequest, context: Any) -> pb.DeleteModelResponse:
        deleted = await self._removal.delete(
            parse_model_resource(request.name),
            target_names(request.targets),
            all_targets=request.all_targets,
        )
        return deleted_message(deleted)

    async def DeployModel(self, request: pb.DeployModelRequest, context: Any) -> resources_pb2.Ingest:
        wanted = DeployRequest(
            parse_model_resource(request.name), target_names(request.targets), request.request_id
        )
        return ingest_message(await self._deploying.deploy(wanted))

    async def ImportFile(self, request: pb.ImportFileRequest, context: Any) -> resources_pb2.Ingest:
        return ingest_message(await self._imports.import_file(import_request(request)))

    async def ListTargets(self, request: pb.ListTargetsRequest, context: Any) -> pb.ListTargetsResponse:
        return pb.ListTargetsResponse(targets=[target_message(one) for one in await self._board.look()])

"""The catalog's calls, as a part of the client."""

from __future__ import annotations

import asyncio
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence

import grpc

from model_ingest._connection import Connection
from model_ingest._errors import StalledError
from model_ingest._limits import Limits
from model_ingest._names import model_name
from model_ingest._watchdog import Watchdog, cancelled_from_outside
from model_ingest.v1.catalog_service_pb2 import (
    DeleteModelRequest,
    DeleteModelResponse,
    DeployModelRequest,
    GetModelRequest,
    ImportFileRequest,
    ListModelsRequest,
    ListTargetsRequest,
    VerifyModelRequest,
    VerifyModelResponse,
)
from model_ingest.v1.resources_pb2 import Ingest, Model, Target


class CatalogCalls(ABC):
    """One thin method for each call of CatalogService. A call that the server lacks raises NotServedError."""

    _limits: Limits

    @property
    @abstractmethod
    def _connection(self) -> Connection: ...

    async def list_models(self, *, name_prefix: str = "", limit: int | None = None) -> list[Model]:
        """Models with all their bytes stored, by name; all pages, or the first `limit`."""
        found: list[Model] = []
        request = ListModelsRequest(name_prefix=name_prefix, page_size=min(limit or 500, 500))
        while True:
            page = await self._connection.unary(self._connection.catalog.ListModels, request)
            found.extend(page.models)
            if not page.next_page_token or (limit is not None and len(found) >= limit):
                return found[:limit]
            request.page_token = page.next_page_token

    async def get_model(self, model: str) -> Model:
        """One model, by any spelling of its name."""
        request = GetModelRequest(name=model_name(model))
        return await self._connection.unary(self._connection.catalog.GetModel, request)

    async def delete_model(
        self, model: str, *, targets: Sequence[str] = (), all_targets: bool = False
    ) -> DeleteModelResponse:
        """Removes a model from the catalog and, if asked, from targets, which are asked first.

        Answers the model as it was, and of each target whether it had it. TARGET_UNREACHABLE: nothing was
        removed from the catalog; the same call may be made again.
        """
        request = DeleteModelRequest(name=model_name(model), targets=targets, all_targets=all_targets)
        return await self._connection.unary(self._connection.catalog.DeleteModel, request)

    async def deploy(
        self, model: str, *, targets: Sequence[str] = (), request_id: str | None = None
    ) -> Ingest:
        """Brings a stored model to more targets (none named: to all): a new ingest without bytes."""
        request = DeployModelRequest(
            name=model_name(model), targets=targets, request_id=request_id or str(uuid.uuid4())
        )
        return await self._connection.unary(self._connection.catalog.DeployModel, request)

    async def import_file(
        self,
        file_name: str,
        *,
        name: str,
        targets: Sequence[str] = (),
        store_only: bool = False,
        request_id: str | None = None,
    ) -> Ingest:
        """Takes in a file that lies in the service's `import/` folder; the answer comes before its bytes are
        stored (`wait` follows it).
        """
        request = ImportFileRequest(
            file_name=file_name,
            model=name,
            targets=targets,
            store_only=store_only,
            request_id=request_id or str(uuid.uuid4()),
        )
        return await self._connection.unary(self._connection.catalog.ImportFile, request)

    async def list_targets(self) -> list[Target]:
        """The configured targets: whether each answers, and its version."""
        answer = await self._connection.unary(self._connection.catalog.ListTargets, ListTargetsRequest())
        return list(answer.targets)

    async def verify(self, model: str) -> AsyncIterator[VerifyModelResponse]:
        """Has the stored bytes read again; progress, and at the end what each target says.

        Not resumed when the stream breaks: verifying changes nothing, ask again.
        """
        await self._connection.ready()
        call = self._connection.catalog.VerifyModel(VerifyModelRequest(name=model_name(model)))
        watchdog = Watchdog(call, self._limits.stall_seconds)
        try:
            with watchdog:
                async for response in call:
                    watchdog.fed()
                    yield response
        except grpc.aio.AioRpcError as error:
            raise self._connection.error(error) from None
        except asyncio.CancelledError:
            if watchdog.fired and not cancelled_from_outside():
                raise StalledError(f"no progress for {self._limits.stall_seconds:g} s") from None
            raise
        finally:
            call.cancel()

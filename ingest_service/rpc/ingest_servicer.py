"""IngestService: wire to domain and back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any

from google.protobuf.duration_pb2 import Duration
from model_ingest.v1 import errors_pb2, resources_pb2
from model_ingest.v1 import ingest_service_pb2 as pb
from model_ingest.v1.ingest_service_pb2_grpc import IngestServiceServicer

from ingest_service.events import Watches
from ingest_service.ingests.limits import Limits
from ingest_service.ingests.service import Ingests
from ingest_service.ingests.uploads import Uploads
from ingest_service.rpc.convert import file_message, ingest_message, watch_message
from ingest_service.rpc.names import (
    INGEST_PAGES,
    ingest_name,
    page_limit,
    parse_file_name,
    parse_ingest_name,
)
from ingest_service.rpc.pages import page_that_fits
from ingest_service.rpc.parse import ingest_states, new_ingest
from ingest_service.rpc.upload_call import first_message, receive_file
from ingest_service.rpc.upload_message import UploadMessage
from ingest_service.vocabulary.errors import OptionUnsupported, StreamProtocol

#: Initial metadata of an Upload that creates its ingest.
INGEST_METADATA = "model-ingest-name"


class IngestServicer(IngestServiceServicer):
    """Errors are raised as they are; the interceptor maps them."""

    def __init__(
        self,
        ingests: Ingests,
        uploads: Uploads,
        watches: Watches,
        limits: Limits,
        targets: Sequence[str],
        *,
        version: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._ingests = ingests
        self._uploads = uploads
        self._watches = watches
        self._limits = limits
        self._targets = tuple(targets)
        self._version = version
        self._clock = clock

    async def CreateIngest(self, request: pb.CreateIngestRequest, context: Any) -> resources_pb2.Ingest:
        return ingest_message(await self._ingests.create(new_ingest(request)))

    async def Upload(
        self, request_iterator: AsyncIterator[UploadMessage], context: Any
    ) -> resources_pb2.File:
        messages = aiter(request_iterator)
        start = await first_message(messages, self._limits.idle_seconds)
        if start.WhichOneof("target") == "create":
            ingest_id, name = await self._create_for_upload(start.create, context)
        elif start.file:
            ingest_id, name = parse_file_name(start.file)
        else:
            raise StreamProtocol("`start` names a file or holds a CreateIngestRequest.", field="start")
        file = await receive_file(messages, self._uploads, ingest_id, name, self._limits)
        return file_message(file)

    async def _create_for_upload(self, request: pb.CreateIngestRequest, context: Any) -> tuple[str, str]:
        if len(request.files) != 1:
            raise OptionUnsupported("An upload that creates its ingest has exactly one file.", field="files")
        ingest = await self._ingests.create(new_ingest(request))
        # At once: a client whose link breaks now still knows what to ask for.
        await context.send_initial_metadata(((INGEST_METADATA, ingest_name(ingest.id)),))
        return ingest.id, ingest.files[0].file_name

    async def GetIngest(self, request: pb.GetIngestRequest, context: Any) -> resources_pb2.Ingest:
        return ingest_message(await self._ingests.get(parse_ingest_name(request.name)))

    async def ListIngests(self, request: pb.ListIngestsRequest, context: Any) -> pb.ListIngestsResponse:
        before = INGEST_PAGES.read(request.page_token)
        states = ingest_states(request.states)

        async def page_of(limit: int) -> pb.ListIngestsResponse:
            ingests, more = await self._ingests.page(
                model=request.model,
                states=states,
                before_number=None if before is None else int(before),
                limit=limit,
            )
            return pb.ListIngestsResponse(
                ingests=[ingest_message(ingest, with_options=False) for ingest in ingests],
                next_page_token=INGEST_PAGES.write(more),
            )

        return await page_that_fits(page_of, page_limit(request.page_size))

    async def WatchIngest(
        self, request: pb.WatchIngestRequest, context: Any
    ) -> AsyncIterator[pb.WatchIngestResponse]:
        ingest_id = parse_ingest_name(request.name)
        # Closed here and now when the client leaves, not when the garbage collector comes by.
        async with aclosing(self._watches.watch(ingest_id, request.after_sequence)) as items:
            async for item in items:
                yield watch_message(item, self._clock())

    async def CancelIngest(self, request: pb.CancelIngestRequest, context: Any) -> resources_pb2.Ingest:
        return ingest_message(await self._ingests.cancel(parse_ingest_name(request.name)))

    async def RetryIngest(self, request: pb.RetryIngestRequest, context: Any) -> resources_pb2.Ingest:
        ingest_id = parse_ingest_name(request.name)
        return ingest_message(await self._ingests.retry(ingest_id, request.targets))

    async def GetCapabilities(self, request: pb.GetCapabilitiesRequest, context: Any) -> pb.Capabilities:
        seconds = self._limits.idle_seconds
        return pb.Capabilities(
            version=self._version,
            max_chunk_bytes=self._limits.max_chunk_bytes,
            recommended_chunk_bytes=self._limits.recommended_chunk_bytes,
            max_file_bytes=self._limits.max_file_bytes,
            digest_required=self._limits.require_digest,
            resumable=True,
            formats=["gguf", "safetensors"] if self._limits.allow_safetensors else ["gguf"],
            targets=self._targets,
            upload_idle_timeout=Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9)),
            reasons=[value for value in errors_pb2.Reason.values() if value],
        )

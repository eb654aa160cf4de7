"""A service with its target, what a test may ask of both, and waiting for what comes by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from model_ingest.v1 import errors_pb2, resources_pb2
from model_ingest.v1.catalog_service_pb2 import ListModelsRequest
from model_ingest.v1.ingest_service_pb2 import CancelIngestRequest, GetIngestRequest, ListIngestsRequest

from tests.ollama_emulator import OllamaEmulator
from tests.support.files import create_request, stored_blobs
from tests.support.service import RunningService

GIVE_UP_SECONDS = 60.0


async def until(condition: Callable[[], bool]) -> None:
    """Waits for the condition, within reason."""
    async with asyncio.timeout(GIVE_UP_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


@dataclass(frozen=True)
class Scene:
    """A running service and its only target."""

    running: RunningService
    emulator: OllamaEmulator

    async def create(self, data: bytes | int, model: str = "test", **fields: Any) -> resources_pb2.Ingest:
        """A new ingest of one file."""
        return await self.running.ingests.CreateIngest(create_request(data, model, **fields))

    async def new_file(self, data: bytes | int, **fields: Any) -> str:
        """A new ingest; answers its file's name."""
        return (await self.create(data, **fields)).files[0].name

    async def get(self, name: str) -> resources_pb2.Ingest:
        """The ingest as it is; `name` may be its file's."""
        ingest = "/".join(name.split("/")[:2])
        return await self.running.ingests.GetIngest(GetIngestRequest(name=ingest))

    async def ended(self, name: str) -> resources_pb2.Ingest:
        """The ingest once it is done."""
        async with asyncio.timeout(GIVE_UP_SECONDS):
            while not (ingest := await self.get(name)).done:
                await asyncio.sleep(0.01)
        return ingest

    async def uploading(self, name: str) -> None:
        """Waits until the upload has begun."""
        async with asyncio.timeout(GIVE_UP_SECONDS):
            while (await self.get(name)).files[0].state != resources_pb2.File.STATE_UPLOADING:
                await asyncio.sleep(0.01)

    async def all_ingests(self) -> list[resources_pb2.Ingest]:
        """Every ingest of the service, newest first."""
        found: list[resources_pb2.Ingest] = []
        token = ""
        while True:
            page = await self.running.ingests.ListIngests(ListIngestsRequest(page_token=token, page_size=500))
            found += page.ingests
            token = page.next_page_token
            if not token:
                return found

    def partials(self) -> list[str]:
        """Names of partial files on the disk."""
        uploads = self.running.settings.data_dir / "uploads"
        return sorted(path.name for path in uploads.glob("*.part"))

    def blobs(self) -> list[str]:
        """Names of blobs on the disk."""
        return [path.name for path in stored_blobs(self.running.settings.data_dir)]

    async def assert_failed(self, name: str, reason: str) -> resources_pb2.Ingest:
        """The ingest ends FAILED for that reason, and nothing came of it anywhere."""
        ingest = await self.ended(name)
        assert ingest.state == resources_pb2.Ingest.STATE_FAILED
        assert ingest.files[0].state == resources_pb2.File.STATE_FAILED
        for failure in (ingest.failure, ingest.files[0].failure):
            assert errors_pb2.Reason.Name(failure.reason) == reason, failure
        await self.assert_nothing_came_of_it()
        return ingest

    async def assert_resumable(self, name: str, committed_size: int) -> resources_pb2.Ingest:
        """The upload is over and can go on there: exactly so many bytes are kept, nothing else came of it."""
        await self.quiet()
        ingest = await self.get(name)
        file = ingest.files[0]
        assert (ingest.state, ingest.done) == (resources_pb2.Ingest.STATE_UPLOADING, False)
        assert (file.state, file.committed_size) == (resources_pb2.File.STATE_UPLOADING, committed_size)
        assert not file.HasField("failure")
        kept = self.running.settings.data_dir / "uploads"
        assert [path.stat().st_size for path in kept.glob("*.part")] == [committed_size]
        await self._assert_nothing_was_stored()
        return ingest

    async def quiet(self) -> None:
        """Waits until no upload runs, and none is being cleaned up."""
        uploads = self.running.service.uploads
        await until(lambda: uploads.active == 0 and not uploads._background)

    async def give_up(self, name: str) -> None:
        """Cancels an upload that nobody goes on with; its bytes go with the next sweep."""
        ingest = "/".join(name.split("/")[:2])
        await self.running.ingests.CancelIngest(CancelIngestRequest(name=ingest))
        assert await self.running.service.sweeper.run() is not None
        await self.assert_nothing_came_of_it()

    async def assert_nothing_came_of_it(self) -> None:
        """No bytes are left, the catalog is empty, nothing reached Ollama."""
        # The row is written before the file goes.
        await until(lambda: self.partials() == [])
        await self._assert_nothing_was_stored()

    async def _assert_nothing_was_stored(self) -> None:
        assert self.blobs() == []
        assert not (await self.running.catalog.ListModels(ListModelsRequest())).models
        assert not {"blob_post", "create"} & set(self.emulator.calls.names())
        assert not self.emulator.models
        await until(lambda: self.running.service.uploads.active == 0)
        assert self.running.service.uploads.held_bytes == 0

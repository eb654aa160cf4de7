"""Files in a service's import folder, and what has become of them."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from model_ingest.v1 import resources_pb2
from model_ingest.v1.catalog_service_pb2 import ImportFileRequest
from model_ingest.v1.ingest_service_pb2 import GetIngestRequest, ListIngestsRequest

from tests.support.files import digest
from tests.support.service import RunningService

GIVE_UP_SECONDS = 60.0
STORED = resources_pb2.File.STATE_STORED


def drop(data_dir: Path, data: bytes, name: str = "model.gguf", *, age_seconds: float = 60) -> Path:
    """A file in the import folder that has been at rest for a while."""
    path = data_dir / "import" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    then = time.time() - age_seconds
    os.utime(path, (then, then))
    return path


async def import_file(
    service: RunningService, name: str = "model.gguf", model: str = "test", **fields: Any
) -> resources_pb2.Ingest:
    """The call."""
    request = ImportFileRequest(file_name=name, model=model, **fields)
    return await service.catalog.ImportFile(request, timeout=GIVE_UP_SECONDS)


async def ended(service: RunningService, ingest: resources_pb2.Ingest) -> resources_pb2.Ingest:
    """The ingest once it is done, and its import has let go of all it had."""
    async with asyncio.timeout(GIVE_UP_SECONDS):
        while True:
            now = await service.ingests.GetIngest(GetIngestRequest(name=ingest.name))
            if now.done and not claims(service.settings.data_dir):
                return now
            await asyncio.sleep(0.01)


async def imported(service: RunningService, **fields: Any) -> resources_pb2.Ingest:
    """Taken in to the end."""
    return await ended(service, await import_file(service, **fields))


async def ingests(service: RunningService) -> list[resources_pb2.Ingest]:
    """All of them, newest first."""
    return list((await service.ingests.ListIngests(ListIngestsRequest())).ingests)


async def boot_is_over(service: RunningService) -> None:
    """The import folder has been gone through."""
    task = service.service.import_boot._task
    assert task is not None
    async with asyncio.timeout(GIVE_UP_SECONDS):
        await asyncio.wait({task})


def claims(data_dir: Path) -> list[str]:
    """What lies in `uploads/` of imports that have not ended."""
    left = (path.name for path in (data_dir / "uploads").iterdir())
    return sorted(name for name in left if not name.startswith("."))


def blob(data_dir: Path, data: bytes) -> Path:
    return data_dir / "blobs" / digest(data).replace(":", "-")


def check_taken_in(data_dir: Path, data: bytes, name: str = "model.gguf") -> None:
    """Stored whole, gone from the folder, nothing left over."""
    assert blob(data_dir, data).read_bytes() == data
    assert blob(data_dir, data).stat().st_nlink == 1
    assert not (data_dir / "import" / name).exists()
    assert claims(data_dir) == []

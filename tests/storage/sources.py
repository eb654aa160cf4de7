"""Files of somebody else's, as the import folder opens them."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ingest_service.storage import FileExecutor, SourceFile


def at_rest(path: Path, data: bytes) -> Path:
    """A file that nobody has written to for a while."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    then = time.time() - 60
    os.utime(path, (then, then))
    return path


@asynccontextmanager
async def opened(path: Path, executor: FileExecutor) -> AsyncIterator[SourceFile]:
    """The file, open for reading."""
    source = SourceFile(path, os.open(path, os.O_RDONLY), executor)
    try:
        yield source
    finally:
        await source.close()

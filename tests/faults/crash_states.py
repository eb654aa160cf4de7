"""States that a crash can leave, made by hand: rows by the domain's own transactions, files by the test."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ingest_service.app import now
from ingest_service.ingests.file_moves import FileMoves
from ingest_service.vocabulary.records import File
from ingest_service.vocabulary.states import FileState
from tests.support.files import create_request, digest
from tests.support.service import RunningService


@dataclass
class Wreck:
    """One file's row and where its files are."""

    service: RunningService
    data: bytes
    ingest: str = ""
    file: File = field(init=False)

    @property
    def name(self) -> str:
        return f"{self.ingest}/files/model.gguf"

    @property
    def data_dir(self) -> Path:
        return self.service.settings.data_dir

    @property
    def partial(self) -> Path:
        return self.data_dir / "uploads" / f"{self.file.id}.part"

    @property
    def blob(self) -> Path:
        return self.data_dir / "blobs" / digest(self.data).replace(":", "-")

    @property
    def moves(self) -> FileMoves:
        return FileMoves(self.service.service.database, now)


async def wreck(
    service: RunningService,
    data: bytes,
    *,
    state: FileState = FileState.UPLOADING,
    committed: int = 0,
    partial: bytes | None = None,
    blob: bytes | None = None,
    model: str = "wreck",
) -> Wreck:
    """A file in `state` with so many committed bytes, and these files on the disk; no process is at it."""
    left = Wreck(service, data)
    left.ingest = (await service.ingests.CreateIngest(create_request(data, model))).name
    _, left.file = await left.moves.begin(left.ingest.removeprefix("ingests/"), "model.gguf")
    if committed:
        await left.moves.checkpoint(left.file, committed)
    if state in {FileState.VERIFYING, FileState.PUBLISHING}:
        await left.moves.move(left.file, FileState.VERIFYING)
    if state is FileState.PUBLISHING:
        await left.moves.move(left.file, FileState.PUBLISHING, sha256=digest(data), committed_size=len(data))
    if partial is not None:
        left.partial.write_bytes(partial)
    if blob is not None:
        left.blob.write_bytes(blob)
    return left

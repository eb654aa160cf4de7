"""A local file on its way out: read once, hashed on the way, never on the event loop."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import google_crc32c

from model_ingest._errors import FileChangedError, LocalFileError

READ_AHEAD_CHUNKS: Final = 4
_HASH_STEP_BYTES: Final = 8 * 1024 * 1024
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some bytes of the file."""

    offset: int
    data: bytes
    crc32c: int


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What changes when a file is written to or replaced."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Fingerprint:
        """From what `stat` says."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class FileSource:
    """An open regular file and the sha256 of what was read of it so far.

    All reads and hashes run in one thread of its own, in order, so the hash needs no lock and
    closing cannot overtake a read. At most READ_AHEAD_CHUNKS chunks are held.

    Raises LocalFileError when it cannot be read, FileChangedError when it changed meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self._file: FileIO
        self._fingerprint: Fingerprint
        self._closing = False
        self._hash = hashlib.sha256()
        self._hashed_bytes = 0
        self._digest = ""
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model-ingest-read")

    async def __aenter__(self) -> Self:
        try:
            await self._in_thread(self._open)
        except BaseException:
            self._executor.shutdown(wait=False)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        # Queued behind a read that may still run; nobody has to wait for it.
        self._executor.submit(self._file.close)
        self._executor.shutdown(wait=False)

    @property
    def fingerprint(self) -> Fingerprint:
        """What the file was when it was opened."""
        return self._fingerprint

    async def chunks(self, start: int, chunk_bytes: int) -> AsyncGenerator[Chunk, None]:
        """The chunks from offset `start` to the end, read ahead."""
        loop = asyncio.get_running_loop()
        ahead: deque[asyncio.Future[Chunk]] = deque()
        offset = start
        try:
            while ahead or offset < self.size_bytes:
                while len(ahead) < READ_AHEAD_CHUNKS and offset < self.size_bytes:
                    length = min(chunk_bytes, self.size_bytes - offset)
                    ahead.append(loop.run_in_executor(self._executor, self._read_chunk, offset, length))
                    offset += length
                yield await ahead.popleft()
        finally:
            for future in ahead:
                future.cancel()

    async def hash_to(self, offset: int, on_hashed: Callable[[int], None] | None = None) -> None:
        """Hashes the bytes before `offset` that were not hashed yet; `on_hashed` gets the bytes so far."""
        while not self._digest and self._hashed_bytes < offset:
            await self._in_thread(self._hash_some, offset)
            if on_hashed is not None:
                on_hashed(self._hashed_bytes)

    async def digest(self) -> str:
        """`sha256:<hex>` of the whole file; reads only what was not read yet. Checks that it is unchanged."""
        await self.hash_to(self.size_bytes)
        await self.check_unchanged()
        if not self._digest:
            self._digest = f"sha256:{self._hash.hexdigest()}"
        return self._digest

    async def check_unchanged(self) -> None:
        """Raises FileChangedError if the path now is another file, or the file has another size or time."""
        await self._in_thread(self._compare)

    async def _in_thread(self, function: Callable[..., _T], *arguments: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)

    def _open(self) -> None:
        try:
            # Before opening: opening a named pipe would wait for its writer.
            self._require_regular(self.path.stat())
            self._file = self.path.open("rb", buffering=0)
        except OSError as error:
            raise LocalFileError(f"cannot read {self.path}: {error.strerror or error}") from None
        self._fingerprint = Fingerprint.of(os.fstat(self._file.fileno()))
        self.size_bytes = self._fingerprint.size_bytes

    def _require_regular(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            what = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise LocalFileError(f"{self.path} is {what}")

    def _read_chunk(self, offset: int, length: int) -> Chunk:
        data = self._read(offset, length)
        if not self._digest:
            # A resumed upload starts behind or before what was hashed: each byte is hashed once.
            while self._hashed_bytes < offset:
                self._hash_some(offset)
            if self._hashed_bytes < offset + length:
                self._hash.update(memoryview(data)[self._hashed_bytes - offset :])
                self._hashed_bytes = offset + length
        return Chunk(offset, data, google_crc32c.value(data))

    def _hash_some(self, offset: int) -> None:
        length = min(_HASH_STEP_BYTES, offset - self._hashed_bytes)
        self._hash.update(self._read(self._hashed_bytes, length))
        self._hashed_bytes += length

    def _read(self, offset: int, length: int) -> bytes:
        if self._closing:
            raise LocalFileError(f"{self.path} was closed")
        try:
            self._file.seek(offset)
            data = self._file.read(length) or b""
            while len(data) < length:
                more = self._file.read(length - len(data))
                if not more:
                    raise FileChangedError(f"{self.path} became shorter while it was read")
                data += more
        except OSError as error:
            raise LocalFileError(f"cannot read {self.path}: {error.strerror or error}") from None
        return data

    def _compare(self) -> None:
        try:
            now = {Fingerprint.of(os.fstat(self._file.fileno())), Fingerprint.of(self.path.stat())}
        except OSError as error:
            raise FileChangedError(
                f"{self.path} went away while it was read: {error.strerror or error}"
            ) from None
        if now != {self._fingerprint}:
            raise FileChangedError(f"{self.path} changed while it was read")

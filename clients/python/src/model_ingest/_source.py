"""A local file on its way out: read once, hashed on the way, never on the event loop."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import google_crc32c

from model_ingest._errors import FileChangedError, LocalFileError
from model_ingest._wire import chunk_message

READ_AHEAD_CHUNKS: Final = 4
#: Read but not hashed yet; beyond that the reading waits.
_HASH_BEHIND_CHUNKS: Final = 2
_HASH_STEP_BYTES: Final = 1024 * 1024
#: So much is hashed between two words to `on_hashed`.
_HASH_TOLD_BYTES: Final = 32 * 1024 * 1024
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some bytes of the file, as the message that is sent: holding both would be twice the memory."""

    offset: int
    message: bytes
    size_bytes: int
    crc32c: int

    @property
    def data(self) -> memoryview:
        """The bytes themselves, not copied: a message ends with them."""
        return memoryview(self.message)[len(self.message) - self.size_bytes :]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What changes when a file is written to or replaced."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int
    # Nobody can put this one back, as `touch` and archivers do with the other. But a new link, or new
    # permissions, change it as well: that does no harm to a file that is being read.
    changed_ns: int = field(compare=False)

    @classmethod
    def of(cls, status: os.stat_result) -> Fingerprint:
        """From what `stat` says."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class FileSource:
    """An open regular file and the sha256 of what was read of it so far.

    All reads run in one thread of its own, in order; all hashing in a second one, in the same order, so
    that neither waits for the other on a machine with cores to spare. At most READ_AHEAD_CHUNKS chunks
    are read and not taken, and _HASH_BEHIND_CHUNKS taken or not and not hashed.

    Raises LocalFileError when it cannot be read, FileChangedError when it changed meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self._file: FileIO
        self._fingerprint: Fingerprint
        self._closing = False
        self._hash = hashlib.sha256()
        # Handed to the hasher. Belongs to the reader's thread, as does the list of what is not hashed yet.
        self._hashed_bytes = 0
        self._hashing: deque[Future[None]] = deque()
        self._digest = ""
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model-ingest-read")
        self._hasher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model-ingest-hash")

    async def __aenter__(self) -> Self:
        try:
            await self._in_thread(self._open)
        except BaseException:
            self._shut_down()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        # Queued behind a read that may still run; nobody has to wait for it.
        self._reader.submit(self._file.close)
        self._shut_down()

    @property
    def fingerprint(self) -> Fingerprint:
        """What the file was when it was opened."""
        return self._fingerprint

    @property
    def known_digest(self) -> str:
        """The digest, if it is known without reading on; else ""."""
        return self._digest

    def assume(self, digest: str) -> None:
        """Takes a digest that was computed before for the same fingerprint: nothing is hashed then."""
        self._digest = digest

    async def assume_nothing(self) -> None:
        """Such a digest was wrong: hashes anew, from the first byte."""
        await self._in_thread(self._settle)
        self._digest, self._hash, self._hashed_bytes = "", hashlib.sha256(), 0

    async def chunks(self, start: int, chunk_bytes: int) -> AsyncGenerator[Chunk, None]:
        """The chunks from offset `start` to the end, read ahead."""
        loop = asyncio.get_running_loop()
        ahead: deque[asyncio.Future[Chunk]] = deque()
        offset = start
        try:
            while ahead or offset < self.size_bytes:
                while len(ahead) < READ_AHEAD_CHUNKS and offset < self.size_bytes:
                    length = min(chunk_bytes, self.size_bytes - offset)
                    ahead.append(loop.run_in_executor(self._reader, self._read_chunk, offset, length))
                    offset += length
                yield await ahead.popleft()
        finally:
            for future in ahead:
                future.cancel()

    async def hash_to(self, offset: int, on_hashed: Callable[[int], None] | None = None) -> None:
        """Hashes the bytes before `offset` that were not hashed yet; `on_hashed` gets the bytes so far."""
        while not self._digest and self._hashed_bytes < offset:
            await self._in_thread(self._hash_some, min(offset, self._hashed_bytes + _HASH_TOLD_BYTES))
            if on_hashed is not None:
                on_hashed(self._hashed_bytes)

    async def digest(self) -> str:
        """`sha256:<hex>` of the whole file; reads only what was not read yet. Checks that it is unchanged."""
        await self.hash_to(self.size_bytes)
        await self._in_thread(self._settle)
        await self.check_unchanged()
        if not self._digest:
            self._digest = f"sha256:{self._hash.hexdigest()}"
        return self._digest

    async def check_unchanged(self) -> None:
        """Raises FileChangedError if the path now is another file, or the file has another size or time."""
        await self._in_thread(self._compare)

    async def _in_thread(self, function: Callable[..., _T], *arguments: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._reader, function, *arguments)

    def _shut_down(self) -> None:
        self._reader.shutdown(wait=False)
        self._hasher.shutdown(wait=False)

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
        # A resumed upload starts behind or before what was hashed: each byte is hashed once.
        self._hash_some(offset)
        data = self._read(offset, length)
        crc32c = google_crc32c.value(data)
        chunk = Chunk(offset, chunk_message(offset, data, crc32c), length, crc32c)
        if not self._digest and self._hashed_bytes < offset + length:
            self._hash_part(chunk.data[self._hashed_bytes - offset :])
        return chunk

    def _hash_some(self, offset: int) -> None:
        """Everything before `offset`."""
        while not self._digest and self._hashed_bytes < offset:
            length = min(_HASH_STEP_BYTES, offset - self._hashed_bytes)
            self._hash_part(memoryview(self._read(self._hashed_bytes, length)))

    def _hash_part(self, data: memoryview) -> None:
        """Has the other thread hash it; waits while that is too far behind."""
        while len(self._hashing) >= _HASH_BEHIND_CHUNKS:
            self._hashing.popleft().result()
        if self._closing:
            raise LocalFileError(f"{self.path} was closed")
        self._hashing.append(self._hasher.submit(self._hash.update, data))
        self._hashed_bytes += len(data)

    def _settle(self) -> None:
        """Returns once all that was handed over is hashed."""
        while self._hashing:
            self._hashing.popleft().result()

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

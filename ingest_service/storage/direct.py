"""Whole blocks of a file written past the page cache (O_DIRECT).

On a virtual disk this took a tenth of the CPU of buffered writes and went two to three times as fast
(docs/performance-pipeline.md), and it pushes nothing out of the page cache. What is not whole blocks (the
head and the tail of a batch that does not end where a block does) is written buffered beside it: no block is
ever written in both ways by one upload, so nothing is kept in memory between two writes, every reader sees
every byte that `write` has returned for, and a sync covers all of it.

Blocking calls; they run in the executor's threads only.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path

from ingest_service.storage import posix
from ingest_service.storage.buffer import Buffer
from ingest_service.storage.source_file import FileIdentity

#: No file system asks for more, but one on a device with larger sectors; that one says EINVAL.
BLOCK_BYTES = 4096
#: So much is copied at once of what does not lie in place; what does is written as it comes.
_PIECE_BYTES = 1 << 20
#: Below this a direct write's way to the device costs more than the page cache does.
_LEAST_BYTES = 128 * 1024
#: Elsewhere than on Linux there is none, and everything is written buffered.
_O_DIRECT: int = getattr(os, "O_DIRECT", 0)
_buffers = threading.local()


class DirectIo(StrEnum):
    """INGEST_DIRECT_IO."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class DirectWriter:
    """Writes one open file, by a second descriptor for whole blocks. One call of `write` at a time."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self._direct = _open_direct(descriptor, path)

    @property
    def is_direct(self) -> bool:
        """Whole blocks go past the page cache, as far as the file system has told."""
        return self._direct is not None

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Writes the buffers one after the other from `offset` on."""
        views = [memoryview(buffer) for buffer in buffers if len(buffer)]
        if all(lies_in_place(view, at) for view, at in _with_offsets(views, offset)):
            for view, at in _with_offsets(views, offset):
                self._write_run(at, [view], in_place=True)
        else:
            self._write_run(offset, views, in_place=False)

    def close(self) -> None:
        """Lets go of its own descriptor."""
        direct, self._direct = self._direct, None
        if direct is not None:
            os.close(direct)

    def _write_run(self, offset: int, views: list[memoryview], *, in_place: bool) -> None:
        total = sum(map(len, views))
        head = -offset % BLOCK_BYTES
        body = (total - head) // BLOCK_BYTES * BLOCK_BYTES
        if self._direct is None or body < _LEAST_BYTES:
            posix.write_all(self._descriptor, offset, views)
            return
        source = _Source(views)
        posix.write_all(self._descriptor, offset, source.take(head))
        end = offset + head + body
        if in_place:
            (blocks,) = source.take(body)
            self._write_blocks(offset + head, blocks)
        else:
            for at in range(offset + head, end, _PIECE_BYTES):
                blocks = _aligned_buffer()[: min(_PIECE_BYTES, end - at)]
                source.copy(blocks)
                self._write_blocks(at, blocks)
        posix.write_all(self._descriptor, end, source.take(total - head - body))

    def _write_blocks(self, offset: int, aligned: memoryview) -> None:
        written = 0
        if self._direct is not None:
            try:
                written = os.pwritev(self._direct, [aligned], offset)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                # The file system took the flag, and not the alignment: it never will.
                self.close()
        if written < len(aligned):
            # A short write need not end where a block does; why it was short is told by the next one.
            posix.write_all(self._descriptor, offset + written, [aligned[written:]])


class _Source:
    """The bytes of many buffers, taken in order."""

    def __init__(self, views: list[memoryview]) -> None:
        self._views = views
        self._number = 0
        self._at = 0

    def take(self, size_bytes: int) -> list[memoryview]:
        taken = []
        while size_bytes:
            view = self._views[self._number][self._at : self._at + size_bytes]
            taken.append(view)
            size_bytes -= len(view)
            self._at += len(view)
            if self._at == len(self._views[self._number]):
                self._number, self._at = self._number + 1, 0
        return taken

    def copy(self, target: memoryview) -> None:
        at = 0
        for view in self.take(len(target)):
            target[at : at + len(view)] = view
            at += len(view)


def lies_in_place(view: memoryview, offset: int) -> bool:
    """It begins at the same place in a block of memory as `offset` does in a block of the file."""
    if view.readonly:
        # Bytes: their address is not to be had, and would be no block's.
        return False
    return (ctypes.addressof(ctypes.c_char.from_buffer(view)) - offset) % BLOCK_BYTES == 0


def _with_offsets(views: list[memoryview], offset: int) -> Iterator[tuple[memoryview, int]]:
    for view in views:
        yield view, offset
        offset += len(view)


def takes_direct_writes(directory: Path) -> bool:
    """Files in it can be written past the page cache; tried with one."""
    path = directory / f".direct-{os.getpid()}-{threading.get_native_id()}"
    with posix.open_descriptor(path, os.O_RDWR | os.O_CREAT) as descriptor:
        direct = _open_direct(descriptor, path)
        path.unlink()
        if direct is None:
            return False
        try:
            return os.pwritev(direct, [_aligned_buffer()[:BLOCK_BYTES]], 0) == BLOCK_BYTES
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return False
        finally:
            os.close(direct)


def _aligned_buffer() -> memoryview:
    """This thread's own; memory that is mapped begins at a page."""
    buffer: memoryview | None = getattr(_buffers, "buffer", None)
    if buffer is None:
        buffer = _buffers.buffer = memoryview(mmap.mmap(-1, _PIECE_BYTES))
    return buffer


def _open_direct(descriptor: int, path: Path) -> int | None:
    """The same file once more; None where that cannot be had, and then buffered writes have to do."""
    # What is open for reading only is somebody else's file, adopted: it must not be written by any way.
    is_ours = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
    if not _O_DIRECT or not is_ours:
        return None
    try:
        direct = os.open(path, os.O_WRONLY | _O_DIRECT | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in posix.NOT_NOW or error.errno in {errno.EINVAL, errno.ENOENT, errno.ELOOP}:
            return None
        raise
    if not FileIdentity.of(os.fstat(direct)).is_inode_of(os.fstat(descriptor)):
        os.close(direct)
        return None
    return direct

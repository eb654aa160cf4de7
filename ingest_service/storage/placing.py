"""Puts a blob into another program's directory of blobs without sending its bytes (zero-copy adoption).

By reflink, hardlink or copy, whichever the file systems allow first; under a temporary name, synced, renamed,
its directory synced (ollama-contract.md section 4). Blocking calls, each one small: for the executor.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from ingest_service.storage import posix
from ingest_service.storage.executor import FileExecutor
from ingest_service.storage.placed import NotPlaced, PlacedBy

_P = ParamSpec("_P")
_T = TypeVar("_T")
_FICLONE = 0x40049409
_STEP_BYTES = 16 * 1024 * 1024
#: The file systems cannot do it; another way may.
_CANNOT = frozenset(
    {errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EPERM, errno.EMLINK, errno.ENOSYS}
)


def why_not_adoptable(blobs: Path) -> str:
    """Why nothing can be placed in that directory; "" if it can.

    Ollama touches the times of what it uses, which only a file's owner may: what we place is ours, so we have
    to be the user that owns the directory. Nobody's owner is ever changed: a hardlink would change both.
    """
    try:
        found = os.lstat(blobs)
    except OSError as error:
        return f"{blobs.name}/ cannot be looked at there ({os.strerror(error.errno or 0)})"
    if not stat.S_ISDIR(found.st_mode):
        return f"{blobs.name} is no directory there"
    if found.st_uid != os.geteuid():
        return f"{blobs.name}/ there belongs to user {found.st_uid}, and this service runs as {os.geteuid()}"
    return "" if os.access(blobs, os.W_OK | os.X_OK) else f"{blobs.name}/ there cannot be written"


class Placing:
    """One blob on its way into a directory; every step is one executor call."""

    def __init__(self, source: Path, directory: Path, executor: FileExecutor) -> None:
        self._source = source
        self._destination = directory / source.name
        # The name of a temporary file of Ollama's own: its prune removes those that are left behind.
        self._temporary = directory / f"sha256-{secrets.randbelow(10**10)}"
        self._executor = executor
        self._step: asyncio.Future[Any]

    async def place(self, sha256: str, on_progress: Callable[[int], None]) -> PlacedBy:
        """How it got there. Raises NotPlaced; leaves no temporary file."""
        try:
            if await self._is_right_already(sha256):
                return PlacedBy.PRESENT
            try:
                how = await self._bring(on_progress)
                await self._do(self._name_it)
            except BaseException:
                # One who is cancelled may leave a step behind that still runs in its thread.
                await asyncio.wait({self._step})
                await self._executor.run(self._temporary.unlink, missing_ok=True)
                raise
        except OSError as error:
            raise NotPlaced(os.strerror(error.errno) if error.errno else type(error).__name__) from error
        return how

    async def _is_right_already(self, sha256: str) -> bool:
        """Ollama never syncs its files, nor reads them again: what is there is compared, then synced."""
        try:
            # A pipe of that name is not to be waited for.
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = await self._executor.open(os.open, self._destination, flags)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ELOOP}:
                return False
            raise
        assert descriptor is not None
        try:
            here = await self._executor.run(os.stat, self._source)
            there = await self._executor.run(os.fstat, descriptor)
            if not stat.S_ISREG(there.st_mode) or there.st_size != here.st_size:
                return False
            is_same_file = (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
            if not is_same_file and await self._digest_of(descriptor, there.st_size) != sha256:
                return False
            await self._executor.run(self._refresh, descriptor)
        finally:
            await self._executor.run(os.close, descriptor)
        return True

    async def _digest_of(self, descriptor: int, size_bytes: int) -> str:
        hasher = hashlib.sha256()

        def step(offset: int) -> int:
            data = os.pread(descriptor, _STEP_BYTES, offset)
            hasher.update(data)
            return len(data)

        offset = 0
        while offset < size_bytes and (read := await self._executor.run(step, offset)):
            offset += read
        return f"sha256:{hasher.hexdigest()}"

    def _refresh(self, descriptor: int) -> None:
        # A fresh time: Ollama's prune at its start removes what is older than an hour and not used yet.
        os.utime(descriptor)
        os.fsync(descriptor)
        posix.sync_directory(self._destination.parent)

    async def _bring(self, on_progress: Callable[[int], None]) -> PlacedBy:
        if await self._do(self._reflink):
            return PlacedBy.REFLINK
        if await self._do(self._hardlink):
            return PlacedBy.HARDLINK
        offset, size_bytes = 0, (await self._executor.run(os.stat, self._source)).st_size
        while offset < size_bytes:
            copied = await self._do(self._copy_step, offset)
            if copied == 0:
                raise OSError(errno.EIO, "the blob is shorter than it was")
            offset += copied
            on_progress(offset)
        return PlacedBy.COPY

    async def _do(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        step = self._executor.submit(call, *args, **kwargs)
        self._step = step
        return await asyncio.shield(step)

    def _reflink(self) -> bool:
        with (
            posix.open_descriptor(self._source, os.O_RDONLY) as source,
            posix.open_descriptor(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as made,
        ):
            try:
                fcntl.ioctl(made, _FICLONE, source)
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
                self._temporary.unlink()
                return False
            return True

    def _hardlink(self) -> bool:
        try:
            os.link(self._source, self._temporary, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            return False
        return True

    def _copy_step(self, offset: int) -> int:
        with (
            posix.open_descriptor(self._source, os.O_RDONLY) as source,
            posix.open_descriptor(self._temporary, os.O_WRONLY | os.O_CREAT) as made,
        ):
            try:
                copied = os.copy_file_range(source, made, _STEP_BYTES, offset, offset)
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
                data = os.pread(source, _STEP_BYTES, offset)
                posix.write_all(made, offset, [data])
                copied = len(data)
            # The copy is what will run; nobody needs the source's pages beside its own.
            posix.forget_cached(source, offset, copied)
            return copied

    def _name_it(self) -> None:
        with posix.open_descriptor(self._temporary, os.O_RDONLY) as made:
            with contextlib.suppress(PermissionError):
                os.fchmod(made, 0o644)
            os.utime(made)
            os.fsync(made)
        self._temporary.rename(self._destination)
        posix.sync_directory(self._destination.parent)

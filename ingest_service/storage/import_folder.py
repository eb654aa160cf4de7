"""The folder whose files are taken in: `<data dir>/import/`.

What is being taken in has a claim, the small file `uploads/<file id>.claim`: it says which file that is, and
its lock is held by the process that is at it. A claim that nobody holds was left by a crash. While a file is
both here and a partial (one copy of bytes, two names), `take_away` brings the name here out of everybody's
reach, to `uploads/<file id>.source`, and `give_back` returns it.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from ingest_service.storage import adopting, posix
from ingest_service.storage.executor import FileExecutor
from ingest_service.storage.local import SETTLE_SECONDS
from ingest_service.storage.source_file import FileIdentity, SourceFile
from ingest_service.vocabulary.errors import FileNotFound

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_MAX_CLAIM_BYTES = 4096
#: Ids that the service made; never a client's words.
_FILE_ID = re.compile(r"[0-9A-Za-z]{1,64}")
#: What browsers and downloaders call what they are still at.
_UNFINISHED_NAMES = (".part", ".tmp", ".partial", ".crdownload", ".download", ".aria2")


@dataclass(frozen=True, slots=True)
class Claim:
    """A file on its way in. `descriptor` holds the claim's lock."""

    file_id: str
    ingest_id: str
    name: str
    identity: FileIdentity
    descriptor: int


class ImportFolder:
    """Every method's blocking part runs in the executor. Names have passed `check_file_name`."""

    def __init__(
        self, data_directory: Path, executor: FileExecutor, *, settle_seconds: float = SETTLE_SECONDS
    ) -> None:
        self._import = data_directory / "import"
        self._uploads = data_directory / "uploads"
        self._executor = executor
        self._settle_seconds = settle_seconds

    async def open(self, name: str) -> SourceFile:
        """The file, which is a regular one. Raises FileNotFound for whatever else has that name."""
        try:
            descriptor = await self._executor.open(self._open, name)
        except OSError as error:
            _log.info(
                "a file of the import folder cannot be opened", extra={"file": name, "detail": str(error)}
            )
            if error.errno in posix.NOT_NOW:
                raise posix.storage_error(error) from error
            descriptor = None
        if descriptor is None:
            raise FileNotFound("There is no such file in the import folder.", field="file_name")
        return SourceFile(self._import / name, descriptor, self._executor)

    async def names(self, limit: int) -> list[str]:
        """Files that lie there and seem complete, sorted; at most `limit`."""
        return await self._run(lambda: heapq.nsmallest(limit, self._names()))

    async def claim(self, file_id: str, ingest_id: str, source: SourceFile) -> Claim | None:
        """Says that this file is being taken in, durably; None while another is at it.

        One that was left by a crash is gone on with as it is.
        """
        content = {"ingest": ingest_id, "name": source.path.name, **asdict(source.identity)}
        # It may have another number when the machine has booted again.
        del content["device"]
        return await self._claim(file_id, json.dumps(content).encode())

    async def claim_again(self, file_id: str) -> Claim | None:
        """A claim that a crash left; None if another is at it, or if it says nothing: that one is gone."""
        return await self._claim(file_id, b"")

    async def claimed(self) -> list[str]:
        """Ids of the files that are being taken in, or were when a crash came."""

        def found() -> list[str]:
            return sorted(
                path.stem for path in self._uploads.glob("*.claim") if _FILE_ID.fullmatch(path.stem)
            )

        return await self._run(found)

    async def release(self, claim: Claim) -> None:
        """Lets go of it; the next boot goes on."""
        await self._executor.run(os.close, claim.descriptor)

    async def is_shared(self, claim: Claim) -> bool:
        """The partial is the file itself, by another name."""

        def look() -> bool:
            try:
                return claim.identity.is_inode_of(self._partial(claim).stat(follow_symlinks=False))
            except FileNotFoundError:
                return False

        return await self._run(look)

    async def has_changed(self, claim: Claim) -> bool:
        """The partial is the file itself, which is no longer as it was when it was claimed."""

        def look() -> bool:
            try:
                found = self._partial(claim).stat(follow_symlinks=False)
            except FileNotFoundError:
                return False
            return claim.identity.is_inode_of(found) and claim.identity != FileIdentity.of(found)

        return await self._run(look)

    async def take_away(self, claim: Claim) -> bool:
        """Of a shared file: nobody can open it by its name any more; answers whether it is still as it was,
        and nobody can change it by a descriptor either.
        """

        def take() -> bool:
            path, aside = self._import / claim.name, self._aside(claim)
            with contextlib.suppress(FileNotFoundError):
                if claim.identity.is_inode_of(path.stat(follow_symlinks=False)):
                    path.rename(aside)
            with contextlib.suppress(FileNotFoundError):
                if not claim.identity.is_inode_of(aside.stat(follow_symlinks=False)):
                    # Somebody put another file there between our look and our rename.
                    self._return(claim)
            posix.sync_directory(self._uploads)
            return adopting.is_at_rest(self._partial(claim), claim.identity)

        return await self._run(take)

    async def end(self, claim: Claim, *, stored: bool) -> None:
        """The file is stored: it leaves the folder, if it is still the one that was taken in. Or it is
        refused: it lies there again. The claim is gone.
        """

        def end() -> None:
            try:
                if stored:
                    self._aside(claim).unlink(missing_ok=True)
                    self._remove_source(claim)
                else:
                    self._return(claim)
                for suffix in (".adopting", ".fresh", ".claim"):
                    (self._uploads / f"{claim.file_id}{suffix}").unlink(missing_ok=True)
                posix.sync_directory(self._uploads)
            finally:
                os.close(claim.descriptor)

        await self._run(end)

    def _open(self, name: str) -> int | None:
        directory = os.open(self._import, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Looked at first: opening a device can have effects. And again once it is open.
            if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                return None
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=directory)
        finally:
            os.close(directory)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return None
        return descriptor

    def _names(self) -> Iterator[str]:
        newest = time.time() - self._settle_seconds
        with os.scandir(self._import) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower().endswith(_UNFINISHED_NAMES):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if not entry.is_file(follow_symlinks=False):
                        continue
                    if entry.stat(follow_symlinks=False).st_mtime > newest:
                        extra = {"file": entry.name}
                        _log.info("left a file in the import folder: it is too young", extra=extra)
                    else:
                        yield entry.name

    async def _claim(self, file_id: str, content: bytes) -> Claim | None:
        if not _FILE_ID.fullmatch(file_id):
            raise ValueError("claims are named by ids that the service made")
        path = self._uploads / f"{file_id}.claim"
        parsed: tuple[str, str, FileIdentity] | None = None

        def take() -> int | None:
            nonlocal parsed
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if content else 0)
            try:
                descriptor = os.open(path, flags, 0o600)
            except FileNotFoundError:
                return None
            try:
                device = self._import.stat().st_dev
                if not posix.try_lock(descriptor) or not posix.is_same_file(descriptor, path):
                    os.close(descriptor)
                    return None
                former = os.pread(descriptor, _MAX_CLAIM_BYTES, 0)
                parsed = _parsed(former, device)
                if parsed is None and content:
                    parsed = _parsed(content, device)
                    os.ftruncate(descriptor, 0)
                    posix.write_all(descriptor, 0, [content])
                    os.fsync(descriptor)
                    posix.sync_directory(self._uploads)
                elif parsed is None:
                    # Its writer was killed before it had answered anybody.
                    path.unlink()
                    os.close(descriptor)
                    return None
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor

        try:
            descriptor = await self._executor.open(take)
        except OSError as error:
            raise posix.storage_error(error) from error
        if descriptor is None:
            return None
        assert parsed is not None
        ingest_id, name, identity = parsed
        return Claim(file_id, ingest_id, name, identity, descriptor)

    def _return(self, claim: Claim) -> None:
        """What was taken away gets its name back, or one like it if that is taken now."""
        aside = self._aside(claim)
        name = Path(claim.name)
        for target in (name.name, f"{name.stem}-{claim.file_id}{name.suffix}"):
            try:
                # Not a rename, which would replace what lies there.
                os.link(aside, self._import / target, follow_symlinks=False)
            except FileNotFoundError:
                return
            except FileExistsError:
                continue
            posix.sync_directory(self._import)
            aside.unlink()
            return

    def _remove_source(self, claim: Claim) -> None:
        path = self._import / claim.name
        try:
            # Otherwise somebody has put another one there, or has written to this one since.
            if FileIdentity.of(path.stat(follow_symlinks=False)) == claim.identity:
                path.unlink()
                posix.sync_directory(self._import)
        except FileNotFoundError:
            return
        except OSError as error:
            _log.warning(
                "a file was taken in and cannot be removed from the import folder",
                extra={"file": claim.name, "detail": str(error)},
            )

    def _partial(self, claim: Claim) -> Path:
        return self._uploads / f"{claim.file_id}.part"

    def _aside(self, claim: Claim) -> Path:
        return self._uploads / f"{claim.file_id}.source"

    async def _run(self, call: Callable[[], _T]) -> _T:
        try:
            return await self._executor.run(call)
        except OSError as error:
            _log.exception("a file call on the import folder failed")
            raise posix.storage_error(error) from error


def _parsed(content: bytes, device: int) -> tuple[str, str, FileIdentity] | None:
    try:
        values = json.loads(content)
        ingest_id, name = values.pop("ingest"), values.pop("name")
        return ingest_id, name, FileIdentity(device=device, **values)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None

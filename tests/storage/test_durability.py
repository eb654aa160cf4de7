"""What reaches the disk, and in which order: the calls that the system sees.

Bytes that are not synced, or whose name is not, are gone after a power cut (security.md section 6), and no
test on a running machine can see that they are. So the calls themselves are watched.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingest_service.storage import FileExecutor, LocalBlobStore
from ingest_service.storage.posix import make_directory, write_durably
from ingest_service.vocabulary.errors import (
    IngestError,
    StorageFailed,
    StorageFull,
)
from tests.storage.conformance import ID, digest


class Calls(list[str]):
    """`<call> <path below the data directory>`, in the order in which they returned."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root = root
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, self._synced(name, getattr(os, name)))
        monkeypatch.setattr(os, "pwritev", self._written(os.pwritev))
        monkeypatch.setattr(Path, "rename", self._renamed(Path.rename))
        monkeypatch.setattr(Path, "unlink", self._unlinked(Path.unlink))

    def _name(self, descriptor: int) -> str:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(self._root))

    def _synced(self, name: str, real: Callable[[int], None]) -> Callable[[int], None]:
        def call(descriptor: int) -> None:
            real(descriptor)
            self.append(f"{name} {self._name(descriptor)}")

        return call

    def _written(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(descriptor: int, *rest: Any) -> int:
            written = real(descriptor, *rest)
            self.append(f"write {self._name(descriptor)}")
            return written

        return call

    def _renamed(self, real: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def call(path: Path, target: Path) -> Path:
            answer = real(path, target)
            self.append(f"rename {path.relative_to(self._root)} {target.relative_to(self._root)}")
            return answer

        return call

    def _unlinked(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(path: Path, missing_ok: bool = False) -> None:
            existed = path.exists()
            real(path, missing_ok=missing_ok)
            if existed:
                self.append(f"unlink {path.relative_to(self._root)}")

        return call


@pytest.fixture
def calls(data_dir: Path, store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(data_dir, monkeypatch)


async def test_the_first_sync_makes_bytes_and_name_durable_and_later_ones_the_bytes(
    store: LocalBlobStore, calls: Calls
) -> None:
    partial = await store.create_partial(ID)
    await partial.write(0, [b"one"])
    await partial.sync()
    assert calls == [f"write uploads/{ID}.part", f"fdatasync uploads/{ID}.part", "fsync uploads"]
    calls.clear()
    await partial.write(3, [b"two"])
    await partial.sync()
    assert calls == [f"write uploads/{ID}.part", f"fdatasync uploads/{ID}.part"]
    await partial.close()


async def test_a_name_whose_sync_failed_is_not_taken_for_durable(
    store: LocalBlobStore, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = await store.create_partial(ID)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(OSError(errno.EIO, "I/O error")))
        with pytest.raises(StorageFailed):
            await partial.sync()
    with pytest.raises(StorageFailed):
        await partial.sync()
    await partial.close()


async def test_a_publication_renames_and_then_makes_both_directories_durable(
    store: LocalBlobStore, calls: Calls
) -> None:
    partial = await store.create_partial(ID)
    await partial.write(0, [b"model"])
    await partial.sync()
    calls.clear()
    await store.publish(ID, digest(b"model"))
    blob = f"blobs/{digest(b'model').replace(':', '-')}"
    assert calls == [f"rename uploads/{ID}.part {blob}", "fsync blobs", "fsync uploads"]
    calls.clear()
    # Asked again after a crash: the rename may have been in the cache only.
    await store.publish(ID, digest(b"model"))
    assert calls == ["fsync blobs", "fsync uploads"]
    await partial.close()


async def test_a_publication_whose_directory_cannot_be_synced_is_a_failure(
    store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = await store.create_partial(ID)
    await partial.write(0, [b"model"])
    await partial.sync()
    await partial.close()
    monkeypatch.setattr(os, "fsync", failing(OSError(errno.EIO, "I/O error")))
    with pytest.raises(StorageFailed):
        await store.publish(ID, digest(b"model"))


async def test_a_removal_is_durable(store: LocalBlobStore, calls: Calls) -> None:
    await (await store.create_partial(ID)).close()
    await store.remove_partial(ID)
    assert calls == [f"unlink uploads/{ID}.part", "fsync uploads"]


def test_a_small_file_is_complete_or_not_there(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(data_dir, monkeypatch)
    write_durably(data_dir / "store-id", b"abc\n", 0o644)
    assert calls == ["write .store-id.tmp", "fsync .store-id.tmp", "rename .store-id.tmp store-id", "fsync ."]


def test_a_new_directory_and_its_name_are_durable(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(data_dir, monkeypatch)
    make_directory(data_dir / "blobs", 0o755)
    assert calls == ["fsync blobs", "fsync ."]
    calls.clear()
    # A former boot may have been killed between making it and making it durable.
    make_directory(data_dir / "blobs", 0o755)
    assert calls == ["fsync ."]


def failing(error: OSError) -> Callable[..., Any]:
    """A system call that always fails, and counts."""

    def call(*arguments: Any) -> Any:
        call.count += 1  # type: ignore[attr-defined]
        raise error

    call.count = 0  # type: ignore[attr-defined]
    return call


@pytest.mark.parametrize("first", ["write", "sync"])
async def test_after_a_failed_call_the_system_is_not_asked_again(
    store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """A second fsync after a failed one says "fine" about bytes that are gone."""
    partial = await store.create_partial(ID)
    await partial.write(0, [b"one"])
    await partial.sync()
    broken = failing(OSError(errno.EIO, "I/O error"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        patch.setattr(os, "pwritev", broken)
        with pytest.raises(StorageFailed):
            await (partial.sync() if first == "sync" else partial.write(3, [b"two"]))
        for _ in range(3):
            with pytest.raises(StorageFailed):
                await partial.sync()
            with pytest.raises(StorageFailed):
                await partial.write(3, [b"two"])
    assert broken.count == 1  # type: ignore[attr-defined]
    # Nor when the disk is well again.
    counted = Calls(store._uploads, monkeypatch)
    with pytest.raises(StorageFailed):
        await partial.sync()
    assert counted == []
    await partial.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
async def test_no_room_is_said_as_such(
    store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    partial = await store.create_partial(ID)
    monkeypatch.setattr(os, "pwritev", failing(OSError(number, os.strerror(number))))
    with pytest.raises(StorageFull):
        await partial.write(0, [b"one"])
    await partial.close()


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.EACCES])
async def test_the_systems_own_words_do_not_reach_the_client(
    store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    partial = await store.create_partial(ID)
    monkeypatch.setattr(os, "pwritev", failing(OSError(number, "secret", "/secret/path")))
    with pytest.raises(IngestError) as caught:
        await partial.write(0, [b"one"])
    assert "secret" not in caught.value.message
    await partial.close()


async def test_a_sync_that_was_queued_behind_a_failure_does_not_reach_the_system(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not if the caller of the failed call was cancelled and never heard of it."""
    import asyncio

    one_thread = FileExecutor(1)
    store = LocalBlobStore(data_dir, one_thread)
    await store.prepare()
    partial = await store.create_partial(ID)
    broken = failing(OSError(errno.EIO, "I/O error"))
    monkeypatch.setattr(os, "fdatasync", broken)
    cancelled = asyncio.create_task(partial.sync())
    queued = asyncio.create_task(partial.sync())
    await asyncio.sleep(0)
    cancelled.cancel()
    for task, error in ((cancelled, asyncio.CancelledError), (queued, StorageFailed)):
        with pytest.raises(error):
            await task
    with pytest.raises(StorageFailed):
        await partial.sync()
    assert broken.count == 1  # type: ignore[attr-defined]
    await partial.close()
    one_thread.close()

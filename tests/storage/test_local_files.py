"""What the local store looks like on the disk: modes, names, what it does with what others put there."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest_service.storage import FileExecutor, LocalBlobStore
from ingest_service.vocabulary.errors import (
    StorageFailed,
    StoreDown,
    WriterBusy,
)
from tests.storage.conformance import ID, OTHER, content, digest, stored
from tests.support.service import ROOT

HOLDER = """
import asyncio, sys
from pathlib import Path
from ingest_service.storage import FileExecutor, LocalBlobStore

async def main():
    store = LocalBlobStore(Path(sys.argv[1]), FileExecutor(2))
    partial = await store.open_partial(sys.argv[2])
    print("held" if partial else "nothing there", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Modes must not depend on the umask that the service was started under."""
    former = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(former)


@pytest.mark.usefixtures("open_umask")
async def test_blobs_can_be_read_by_others_and_uploads_cannot(data_dir: Path, executor: FileExecutor) -> None:
    store = LocalBlobStore(data_dir, executor)
    await store.prepare()
    assert mode(data_dir / "blobs") == 0o755
    assert mode(data_dir / "uploads") == 0o700
    partial = await store.create_partial(ID)
    assert mode(data_dir / "uploads" / f"{ID}.part") == 0o600
    await partial.close()
    sha256 = await stored(store, OTHER, b"model")
    assert mode(data_dir / "blobs" / sha256.replace(":", "-")) == 0o644


async def test_an_existing_directory_keeps_its_mode(data_dir: Path, executor: FileExecutor) -> None:
    (data_dir / "blobs").mkdir(mode=0o711)
    await LocalBlobStore(data_dir, executor).prepare()
    assert mode(data_dir / "blobs") == 0o711


async def test_a_file_where_a_directory_belongs_is_a_failure(data_dir: Path, executor: FileExecutor) -> None:
    (data_dir / "blobs").write_bytes(b"")
    with pytest.raises(StorageFailed):
        await LocalBlobStore(data_dir, executor).prepare()


async def test_another_process_cannot_write_a_partial_that_is_held(
    store: LocalBlobStore, data_dir: Path
) -> None:
    await (await store.create_partial(ID)).close()
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, str(data_dir), ID, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert other.stdout is not None
    assert await other.stdout.readline() == b"held\n"
    with pytest.raises(WriterBusy):
        await store.open_partial(ID)
    with pytest.raises(WriterBusy):
        await store.remove_partial(ID)
    assert await store.partial_ids() == [ID]
    other.kill()
    await other.communicate()
    # A killed process leaves no lock behind.
    assert await store.remove_partial(ID) is True


async def test_a_partial_that_is_removed_while_it_is_created_is_not_written(
    store: LocalBlobStore, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A booting process may find the new file before its maker has locked it, and take it for an orphan."""
    from ingest_service.storage import posix

    lock = posix.try_lock

    def removed_first(descriptor: int) -> bool:
        (data_dir / "uploads" / f"{ID}.part").unlink(missing_ok=True)
        return lock(descriptor)

    monkeypatch.setattr(posix, "try_lock", removed_first)
    with pytest.raises(WriterBusy):
        await store.create_partial(ID)


async def test_a_link_planted_in_place_of_a_partial_is_not_followed(
    store: LocalBlobStore, data_dir: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    victim.chmod(0o600)
    (data_dir / "uploads" / f"{ID}.part").symlink_to(victim)
    # To `create_partial` it is a partial that is there already.
    with pytest.raises(WriterBusy):
        await store.create_partial(ID)
    for call in (store.open_partial, store.remove_partial):
        with pytest.raises(StoreDown, match="A link is where"):
            await call(ID)
    with pytest.raises(StoreDown, match="A link is where"):
        await store.publish(ID, digest(b"mine"))
    assert victim.read_bytes() == b"mine"
    assert mode(victim) == 0o600
    assert await store.blob_size_bytes(digest(b"mine")) is None
    assert await store.partial_ids() == []


async def test_a_link_planted_in_place_of_a_blob_is_not_followed(
    store: LocalBlobStore, data_dir: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    sha256 = digest(b"mine")
    link = data_dir / "blobs" / sha256.replace(":", "-")
    link.symlink_to(victim)
    assert await store.blob_size_bytes(sha256) is None
    with pytest.raises(StoreDown, match="A link is where"):
        async with store.open_blob(sha256):
            pass
    with pytest.raises(StorageFailed):
        await store.publish(ID, sha256)
    # A publication of these very bytes puts the blob in the link's place.
    await stored(store, ID, b"mine")
    assert not link.is_symlink()
    assert await content(store, sha256) == b"mine"


async def test_a_link_planted_in_place_of_a_lock_is_not_followed(
    store: LocalBlobStore, data_dir: Path, tmp_path: Path
) -> None:
    sha256 = digest(b"model")
    (data_dir / "uploads" / ".locks" / sha256[7:9]).symlink_to(tmp_path / "victim")
    partial = await store.create_partial(ID)
    await partial.close()
    with pytest.raises(StoreDown, match="A link is where"):
        await store.publish(ID, sha256)
    assert not (tmp_path / "victim").exists()


async def test_what_is_no_partial_of_ours_is_not_listed(store: LocalBlobStore, data_dir: Path) -> None:
    uploads = data_dir / "uploads"
    (uploads / "model.gguf.part").write_bytes(b"somebody's")
    (uploads / ".hidden.part").write_bytes(b"somebody's")
    (uploads / f"{OTHER}.part").mkdir()
    await (await store.create_partial(ID)).close()
    assert await store.partial_ids() == [ID]


async def test_a_reader_keeps_its_bytes_when_the_name_is_removed(
    store: LocalBlobStore, data_dir: Path
) -> None:
    sha256 = await stored(store, ID, b"model")
    async with store.open_blob(sha256) as blob:
        (data_dir / "blobs" / sha256.replace(":", "-")).unlink()
        assert await blob.read(0, 100) == b"model"


async def test_a_probe_that_fails_says_so_and_cleans_up(
    store: LocalBlobStore, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(StorageFailed):
            await store.probe()
    assert [path.name for path in (data_dir / "uploads").iterdir()] == [".locks"]
    await store.probe()


@pytest.mark.parametrize("name", ["uploads", "blobs"])
async def test_a_probe_without_one_of_the_directories_fails(
    store: LocalBlobStore, data_dir: Path, name: str
) -> None:
    (data_dir / name).rename(data_dir / "elsewhere")
    with pytest.raises(StoreDown, match="A file or directory of it is missing"):
        await store.probe()

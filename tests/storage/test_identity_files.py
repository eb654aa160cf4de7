"""The store's id on the disk, and which file systems are refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ingest_service.storage.identity import (
    network_file_system,
    on_one_file_system,
    read_store_id,
    write_store_id,
)

LINE = "36 35 98:0 / {point} rw,noatime shared:1 master:2 - {kind} server:/export rw,vers=4"


def mounts_file(directory: Path, *mounts: tuple[str, str]) -> Path:
    path = directory / "mountinfo"
    lines = [LINE.format(point=point, kind=kind) for point, kind in mounts]
    path.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
    return path


def test_a_store_id_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_store_id(tmp_path) is None
    write_store_id(tmp_path, "abc123")
    assert read_store_id(tmp_path) == "abc123"


@pytest.mark.parametrize("content", [b"", b"\n", b"  \n"])
def test_an_empty_store_id_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "store-id").write_bytes(content)
    assert read_store_id(tmp_path) is None


def test_a_garbled_store_id_is_another_one_and_no_crash(tmp_path: Path) -> None:
    (tmp_path / "store-id").write_bytes(b"abc\xff\xfe\n")
    assert read_store_id(tmp_path) not in {None, "abc"}


@pytest.mark.parametrize(
    "kind",
    ["nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "lustre", "fuse.sshfs", "fuse.rclone", "fuse.glusterfs"],
)
def test_a_network_file_system_is_found(tmp_path: Path, kind: str) -> None:
    mounts = mounts_file(tmp_path, ("/", "ext4"), ("/data", kind))
    assert network_file_system(Path("/data/models"), mounts) == kind
    assert network_file_system(Path("/data"), mounts) == kind


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuse.ext2", "nfsd"])
def test_a_local_file_system_is_fine(tmp_path: Path, kind: str) -> None:
    mounts = mounts_file(tmp_path, ("/", "ext4"), ("/data", kind))
    assert network_file_system(Path("/data/models"), mounts) is None


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/net/models", "nfs4"),
        ("/net/local/models", None),
        ("/network", None),
        ("/elsewhere", None),
        ("/net/stacked/models", None),
    ],
)
def test_the_innermost_and_uppermost_mount_counts(tmp_path: Path, path: str, found: str | None) -> None:
    mounts = mounts_file(
        tmp_path,
        ("/net/local", "ext4"),
        ("/net/stacked", "nfs4"),
        ("/net/stacked", "ext4"),
        ("/", "ext4"),
        ("/net", "nfs4"),
    )
    assert network_file_system(Path(path), mounts) == found


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("/my\\040models", "/my models"),
        ("/back\\134slash", "/back\\slash"),
        ("/modèles", "/modèles"),
        ("/bad\udcff", "/bad\udcff"),
    ],
)
def test_a_mount_point_of_any_name_is_known(tmp_path: Path, written: str, path: str) -> None:
    mounts = mounts_file(tmp_path, ("/", "ext4"), (written, "nfs4"))
    assert network_file_system(Path(path) / "data", mounts) == "nfs4"


def test_a_link_into_a_network_file_system_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    mounts = mounts_file(tmp_path, ("/", "ext4"), (str(tmp_path / "there"), "nfs4"))
    assert network_file_system(tmp_path / "link", mounts) == "nfs4"


def test_a_system_without_mountinfo_is_taken_for_local(tmp_path: Path) -> None:
    assert network_file_system(tmp_path, tmp_path / "nothing") is None


def test_this_machines_own_mounts_can_be_read(tmp_path: Path) -> None:
    assert network_file_system(tmp_path) is None


def test_two_first_boots_at_once_both_find_the_id(tmp_path: Path) -> None:
    def write() -> None:
        for _ in range(100):
            write_store_id(tmp_path, "abc")

    with ThreadPoolExecutor(4) as pool:
        for written in [pool.submit(write) for _ in range(4)]:
            written.result()
    assert read_store_id(tmp_path) == "abc"


def test_another_writer_of_another_id_is_no_friend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_store_id(tmp_path, "abc")

    def taken(*_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "rename", taken)
    with pytest.raises(FileNotFoundError):
        write_store_id(tmp_path, "other")


def test_directories_on_two_file_systems_are_told_apart(tmp_path: Path) -> None:
    assert on_one_file_system(tmp_path, tmp_path.parent)
    assert not on_one_file_system(tmp_path, Path("/proc"))

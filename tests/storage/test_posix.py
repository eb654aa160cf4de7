"""The blocking file calls: complete in spite of short writes, careful about what is there already."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_service.storage import posix


def short_writes(lengths: Sequence[int]) -> Callable[[int, list[memoryview], int], int]:
    """pwritev as a busy disk does it: the n-th call writes at most `lengths[n]` bytes (at least one)."""
    calls = iter(lengths)

    def call(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        assert len(buffers) <= 1024, "the system takes no more"
        return os.pwrite(descriptor, b"".join(buffers)[: next(calls, 1_000_000)], offset)

    return call


@given(
    buffers=st.lists(st.binary(max_size=20), max_size=30),
    lengths=st.lists(st.integers(1, 40), max_size=200),
    offset=st.integers(0, 50),
)
def test_short_writes_are_gone_on_with(buffers: list[bytes], lengths: list[int], offset: int) -> None:
    with tempfile.TemporaryFile() as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwritev", short_writes(lengths))
        posix.write_all(file.fileno(), offset, buffers)
        data = b"".join(buffers)
        file.seek(0)
        assert file.read() == (bytes(offset) + data if data else b"")


def test_a_write_that_writes_nothing_is_a_failure_and_no_endless_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwritev", lambda *arguments: 0)
    with (
        posix.open_descriptor(tmp_path / "file", os.O_RDWR | os.O_CREAT) as descriptor,
        pytest.raises(OSError, match="wrote nothing"),
    ):
        posix.write_all(descriptor, 0, [b"bytes"])


def test_a_small_file_replaces_what_is_there_and_leftovers_of_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "small"
    path.write_bytes(b"old")
    (tmp_path / ".small.tmp").write_bytes(b"half of a former one, longer than the new one")
    posix.write_durably(path, b"new", 0o640)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["small"]


def test_a_small_file_follows_no_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / ".small.tmp").symlink_to(victim)
    (tmp_path / "small").symlink_to(victim)
    posix.write_durably(tmp_path / "small", b"new", 0o644)
    assert victim.read_bytes() == b"mine"
    assert (tmp_path / "small").read_bytes() == b"new"


@pytest.mark.parametrize("broken", ["pwritev", "fsync"])
def test_a_small_file_that_could_not_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def no_room(*arguments: Any) -> Any:
        raise OSError(28, "No space left on device")

    path = tmp_path / "small"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, broken, no_room)
    with pytest.raises(OSError, match="No space"):
        posix.write_durably(path, b"new", 0o644)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["small"]


def test_a_directory_below_one_that_may_not_be_read_is_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "data").mkdir()
    monkeypatch.setattr(posix, "sync_directory", forbidden)
    posix.make_directory(tmp_path / "data", 0o755)


def test_a_lock_is_one_descriptors_own(tmp_path: Path) -> None:
    flags = os.O_RDWR | os.O_CREAT
    with posix.open_descriptor(tmp_path / "lock", flags) as second:
        with posix.open_descriptor(tmp_path / "lock", flags) as first:
            assert posix.try_lock(first)
            assert not posix.try_lock(second)
        assert posix.try_lock(second)


def test_a_file_that_was_replaced_is_another(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with posix.open_descriptor(path, os.O_RDWR | os.O_CREAT) as descriptor:
        assert posix.is_same_file(descriptor, path)
        (tmp_path / "new").write_bytes(b"")
        (tmp_path / "new").rename(path)
        assert not posix.is_same_file(descriptor, path)
        path.unlink()
        assert not posix.is_same_file(descriptor, path)

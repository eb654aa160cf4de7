"""Remembered digests: a push of the same file reads nothing, and one that is wrong is found out.

Breaks when: an entry counts for a changed file or a young one, is written in place, is not given to
CreateIngest, a wrong one is not dropped, or a retry does not read anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from model_ingest import AsyncClient, Client, DigestError, Hashing, Update, Waiting
from model_ingest._digests import GRANULARITY_NS, MAX_ENTRIES, DigestCache
from model_ingest._memory import state_directory
from model_ingest._source import FileSource, Fingerprint
from model_ingest.v1.ingest_service_pb2 import Capabilities, WatchIngestResponse
from model_ingest.v1.resources_pb2 import File, Ingest, IngestStateChange

from tests.client.conftest import QUICK
from tests.client.scripted_server import Script, event, ingest, refuses, takes_everything

DIGEST = f"sha256:{hashlib.sha256(b'0123456789').hexdigest()}"
OTHER = f"sha256:{'0' * 64}"
HOUR_NS = 3600 * 10**9


@pytest.fixture
def settled(ten_bytes: Path) -> Path:
    """A file that was last written to an hour ago."""
    long_ago = time.time_ns() - HOUR_NS
    os.utime(ten_bytes, ns=(long_ago, long_ago))
    return ten_bytes


def fingerprint(path: Path) -> Fingerprint:
    return Fingerprint.of(path.stat())


def keep(path: Path, digest: str = DIGEST, checked_ns: int | None = None) -> None:
    mark = fingerprint(path)
    DigestCache().keep(path, mark, digest, time.time_ns() if checked_ns is None else checked_ns)


def known(path: Path) -> str:
    return DigestCache().known(path, fingerprint(path))


def entries() -> list[Path]:
    return list(state_directory().glob("*digest-*"))


def test_the_same_file_is_known_and_another_is_not(settled: Path, tmp_path: Path):
    assert known(settled) == ""
    keep(settled)
    assert known(settled) == DIGEST
    assert known(tmp_path / "model.gguf") == DIGEST
    other = tmp_path / "other.gguf"
    other.hardlink_to(settled)
    assert known(other) == ""
    assert {path.stat().st_mode & 0o077 for path in entries()} == {0}


@pytest.mark.parametrize("field", ["device", "inode", "size_bytes", "modified_ns", "changed_ns"])
def test_a_file_that_differs_in_anything_is_not_known(settled: Path, field: str):
    keep(settled)
    mark = fingerprint(settled)
    changed = replace(mark, **{field: getattr(mark, field) - 1})
    assert DigestCache().known(settled, changed) == ""


def test_a_time_that_was_put_back_does_not_fool_it(settled: Path):
    keep(settled)
    status = settled.stat()
    settled.write_bytes(b"9876543210")
    os.utime(settled, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert settled.stat().st_mtime_ns == status.st_mtime_ns
    assert known(settled) == ""


def test_a_file_as_young_as_the_clocks_step_is_not_remembered(settled: Path):
    written_ns = settled.stat().st_mtime_ns
    keep(settled, checked_ns=written_ns + GRANULARITY_NS)
    assert entries() == []
    keep(settled, checked_ns=written_ns + GRANULARITY_NS + 1)
    assert known(settled) == DIGEST


@pytest.mark.parametrize("content", ["", "{", "[]", '{"sha256": 1}', "null"])
def test_an_entry_that_is_damaged_counts_for_nothing(settled: Path, content: str):
    keep(settled)
    (entry,) = entries()
    entry.write_text(content)
    assert known(settled) == ""
    keep(settled)
    assert known(settled) == DIGEST


def test_a_digest_that_is_none_is_not_declared(settled: Path):
    keep(settled, "sha256:short")
    assert known(settled) == ""


def test_the_longest_unused_go(settled: Path):
    keep(settled)
    (kept,) = entries()
    os.utime(kept, (10, 10))
    for number in range(MAX_ENTRIES):
        path = state_directory() / f"digest-{number}.json"
        path.touch()
        os.utime(path, (20 + number, 20 + number))
    assert known(settled) == DIGEST
    other = settled.with_name("other")
    other.write_bytes(b"x")
    keep(other, checked_ns=time.time_ns() + HOUR_NS)
    assert len(entries()) == MAX_ENTRIES
    assert known(settled) == DIGEST, "it was used just now"
    assert not (state_directory() / "digest-0.json").exists()


def test_an_entry_is_replaced_as_a_whole(settled: Path, tmp_path: Path):
    """Whoever reads it while it is written sees the former one, never a part of the new one."""
    keep(settled, OTHER)
    (entry,) = entries()
    former = tmp_path / "former"
    former.hardlink_to(entry)
    content = former.read_bytes()
    keep(settled)
    assert former.read_bytes() == content
    assert known(settled) == DIGEST
    assert entries() == [entry]


def test_without_a_state_directory_nothing_is_remembered_and_nothing_fails(
    settled: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null")
    keep(settled)
    assert known(settled) == ""


class Service:
    """Takes bytes and compares the digest with that of DIGEST's; says stored when that is declared."""

    def __init__(self, script: Script, *, has_it: bool) -> None:
        self.script = script
        self.has_it = has_it
        self.ended = asyncio.Event()
        script.answers("GetCapabilities", Capabilities(resumable=True))
        script.on("CreateIngest", self._create)
        script.on("Upload", self._upload)
        script.on("WatchIngest", self._watch)
        script.answers("GetIngest", ingest(Ingest.STATE_STORED, done=True))

    @property
    def declared(self) -> list[str]:
        return [request.files[0].sha256 for request in self.script.seen("CreateIngest")]

    async def _create(self, request: Any, context: Any) -> Ingest:
        self.ended.clear()
        if self.has_it and request.files[0].sha256 == DIGEST:
            file = File(name="ingests/i1/files/model.gguf", state=File.STATE_STORED, deduplicated=True)
            return ingest(Ingest.STATE_STORED, done=True, files=[file])
        return ingest(last_sequence=1)

    async def _upload(self, messages: Any, context: Any) -> Any:
        file = await takes_everything(messages, context)
        if {file.sha256, self.declared[-1] or file.sha256} != {DIGEST}:
            refuse = refuses(grpc.StatusCode.INVALID_ARGUMENT, "DIGEST_MISMATCH", "other bytes")
            return await refuse(messages, context)
        self.ended.set()
        return file

    async def _watch(self, request: Any, context: Any) -> AsyncIterator[WatchIngestResponse]:
        await self.ended.wait()
        yield event(9, ingest_state=IngestStateChange(state=Ingest.STATE_STORED, done=True))


@pytest.fixture
def read_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of all reads of files that are pushed."""
    lengths: list[int] = []
    whole = FileSource._read

    def note(self: FileSource, offset: int, length: int) -> bytes:
        lengths.append(length)
        return whole(self, offset, length)

    monkeypatch.setattr(FileSource, "_read", note)
    return lengths


async def test_a_second_push_declares_what_the_first_computed_and_reads_nothing(
    script: Script, client: AsyncClient, settled: Path, read_bytes: list[int]
):
    service = Service(script, has_it=True)
    await client.push(settled, name="m")
    assert sum(read_bytes) == 10, "one read"
    uploads = len(script.seen("Upload"))
    updates: list[Update] = []
    await client.push(settled, name="m", on_update=updates.append)
    await client.push(settled, name="m", declare_digest=True, on_update=updates.append)
    assert service.declared == ["", DIGEST, DIGEST]
    assert sum(read_bytes) == 10
    assert len(script.seen("Upload")) == uploads
    assert not [update for update in updates if isinstance(update, Hashing)]


async def test_a_file_of_known_digest_that_is_not_there_is_sent_and_read_once(
    script: Script, client: AsyncClient, settled: Path, read_bytes: list[int]
):
    service = Service(script, has_it=False)
    keep(settled)
    await client.push(settled, name="m")
    assert service.declared == [DIGEST]
    assert sum(read_bytes) == 10


async def test_what_was_hashed_first_is_remembered_as_well(
    script: Script, client: AsyncClient, settled: Path, read_bytes: list[int]
):
    service = Service(script, has_it=True)
    await client.push(settled, name="m", declare_digest=True)
    await client.push(settled, name="m")
    assert service.declared == [DIGEST, DIGEST]
    assert sum(read_bytes) == 10


async def test_no_cache_neither_uses_nor_keeps(script: Script, client: AsyncClient, settled: Path):
    service = Service(script, has_it=True)
    await client.push(settled, name="m", digest_cache=False)
    assert entries() == []
    keep(settled)
    await client.push(settled, name="m", digest_cache=False)
    assert service.declared == ["", ""]


async def test_a_file_that_was_just_written_is_not_remembered(
    script: Script, client: AsyncClient, ten_bytes: Path
):
    Service(script, has_it=True)
    await client.push(ten_bytes, name="m")
    assert entries() == []


async def test_a_wrong_digest_is_dropped_and_the_file_read_anew(
    script: Script, client: AsyncClient, settled: Path
):
    service = Service(script, has_it=False)
    keep(settled, OTHER)
    updates: list[Update] = []
    result = await client.push(settled, name="m", on_update=updates.append)
    assert result.state == Ingest.STATE_STORED
    assert service.declared == [OTHER, ""]
    first, second = script.seen("CreateIngest")
    assert first.request_id != second.request_id
    (waiting,) = [update for update in updates if isinstance(update, Waiting)]
    assert "remembered sha256 of model.gguf was wrong" in waiting.error.message
    assert known(settled) == DIGEST


@pytest.mark.extended
async def test_bytes_that_are_wrong_either_way_are_tried_once_more_only(
    script: Script, client: AsyncClient, settled: Path
):
    Service(script, has_it=False)
    script.on("Upload", refuses(grpc.StatusCode.INVALID_ARGUMENT, "DIGEST_MISMATCH", "other bytes"))
    keep(settled, OTHER)
    with pytest.raises(DigestError):
        await client.push(settled, name="m")
    assert len(script.seen("CreateIngest")) == 2
    assert entries() == []


async def test_without_a_remembered_digest_a_mismatch_is_final(
    script: Script, client: AsyncClient, settled: Path
):
    Service(script, has_it=False)
    script.on("Upload", refuses(grpc.StatusCode.INVALID_ARGUMENT, "DIGEST_MISMATCH", "other bytes"))
    with pytest.raises(DigestError):
        await client.push(settled, name="m")
    assert len(script.seen("CreateIngest")) == 1


async def test_the_blocking_face_remembers_too(script: Script, settled: Path):
    service = Service(script, has_it=True)

    def push_twice() -> None:
        with Client(script.address, limits=QUICK) as client:
            client.push(settled, name="m")
            client.push(settled, name="m")
            client.push(settled, name="m", digest_cache=False)

    await asyncio.to_thread(push_twice)
    assert service.declared == ["", DIGEST, ""]

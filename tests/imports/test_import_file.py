"""ImportFile: what is taken in and how, what is refused, and what becomes of the file.

Breaks when: a file leaves the folder before its bytes are stored, one copy of bytes stays open to writers, a
refusal comes after an ingest was made, or a call that is repeated makes a second ingest.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from model_ingest.v1 import resources_pb2
from model_ingest.v1.catalog_service_pb2 import GetModelRequest

from tests.conftest import StartService
from tests.imports.folder import (
    blob,
    boot_is_over,
    check_taken_in,
    claims,
    drop,
    ended,
    import_file,
    imported,
    ingests,
)
from tests.ollama_emulator import OllamaEmulator
from tests.rpc.refusals import Refusal, read_refusal
from tests.support.files import MEBIBYTE, digest, gguf, push
from tests.support.models import ADAPTER, model, shard
from tests.support.service import RunningService

pytestmark = pytest.mark.extended_when("postgresql")

DATA = gguf(2 * MEBIBYTE + 5)


@pytest.fixture
async def storing(start_service: StartService) -> RunningService:
    """A service without targets."""
    running: RunningService = await start_service(import_at_boot="false")
    return running


async def refusal_of(service: RunningService, **fields: str) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await import_file(service, **fields)
    return read_refusal(caught.value)


async def test_a_file_is_moved_without_a_copy_and_forwarded(
    start_service: StartService, database_url: str, emulator: OllamaEmulator, tmp_path: Path
) -> None:
    target = f"default={emulator.url}"
    service = await start_service(target, database_url=database_url, import_at_boot="false")
    path = drop(tmp_path / "data", DATA)
    inode = path.stat().st_ino
    ingest = await imported(service, request_id="one")
    assert ingest.state == resources_pb2.Ingest.STATE_READY
    assert [file.sha256 for file in ingest.files] == [digest(DATA)]
    check_taken_in(tmp_path / "data", DATA)
    assert blob(tmp_path / "data", DATA).stat().st_ino == inode
    listed = await service.catalog.GetModel(GetModelRequest(name="models/test"))
    assert [file.sha256 for file in listed.files] == [digest(DATA)]
    # Repeated when the file has gone: the same ingest.
    assert (await import_file(service, request_id="one")).name == ingest.name
    assert (await refusal_of(service, request_id="one", model="other")).reason == "REQUEST_ID_REUSED"


async def test_a_file_that_needs_no_room_is_taken_in_by_a_full_store(
    start_service: StartService, tmp_path: Path
) -> None:
    service = await start_service(import_at_boot="false", free_floor_bytes=2**60)
    path = drop(tmp_path / "data", DATA)
    os.link(path, tmp_path / "other")
    # It would have to be copied.
    assert (await refusal_of(service)).reason == "STORAGE_FULL"
    (tmp_path / "other").unlink()
    await imported(service)
    check_taken_in(tmp_path / "data", DATA)


def linked(path: Path, tmp_path: Path) -> None:
    os.link(path, tmp_path / "other")


def young(path: Path, tmp_path: Path) -> None:
    os.utime(path)


def of_another_owner(path: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(path, 12345, 12345)


@pytest.mark.extended_unless("linked")
@pytest.mark.parametrize("how", [linked, young, of_another_owner])
async def test_a_file_that_somebody_could_write_to_is_copied(
    storing: RunningService, tmp_path: Path, how: Callable[[Path, Path], None]
) -> None:
    path = drop(tmp_path / "data", DATA)
    inode = path.stat().st_ino
    how(path, tmp_path)
    await imported(storing)
    check_taken_in(tmp_path / "data", DATA)
    assert blob(tmp_path / "data", DATA).stat().st_ino != inode


async def test_a_file_that_is_open_for_writing_is_copied(storing: RunningService, tmp_path: Path) -> None:
    path = drop(tmp_path / "data", DATA)
    with path.open("r+b", buffering=0) as writer:
        await imported(storing)
        writer.seek(100_000)
        writer.write(b"something else")
    check_taken_in(tmp_path / "data", DATA)


async def test_a_file_on_another_file_system_is_copied(storing: RunningService, tmp_path: Path) -> None:
    shm, folder = Path("/dev/shm"), tmp_path / "data" / "import"
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system here")
    elsewhere = shm / f"model-ingest-{os.getpid()}-{tmp_path.name}"
    elsewhere.mkdir()
    folder.rmdir()
    folder.symlink_to(elsewhere)
    try:
        drop(tmp_path / "data", DATA)
        await imported(storing)
        check_taken_in(tmp_path / "data", DATA)
    finally:
        (elsewhere / "model.gguf").unlink(missing_ok=True)
        elsewhere.rmdir()


NAMES = [
    "",
    ".",
    "..",
    "../ingest.db",
    "/etc/passwd",
    "a/b.gguf",
    ".hidden.gguf",
    "a\0b",
    "-x.gguf",
    "ü.gguf",
]


@pytest.mark.extended_unless("passwd", "hidden")
@pytest.mark.parametrize("name", NAMES)
async def test_a_hostile_name_is_refused(storing: RunningService, name: str) -> None:
    refusal = await refusal_of(storing, name=name)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FILE_NAME_INVALID")
    assert refusal.fields == ("file_name",)


def missing(path: Path, tmp_path: Path) -> None:
    pass


def fifo(path: Path, tmp_path: Path) -> None:
    os.mkfifo(path)


def directory(path: Path, tmp_path: Path) -> None:
    path.mkdir()


def link(path: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(DATA)
    path.symlink_to(tmp_path / "secret")


def unix_socket(path: Path, tmp_path: Path) -> None:
    # Bound by a short name: a socket's path has at most 107 bytes.
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(here)


def device(path: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a device")
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))


@pytest.mark.extended_unless("link", "fifo")
@pytest.mark.parametrize("kind", [missing, fifo, directory, link, unix_socket, device])
async def test_what_is_no_plain_file_is_not_there(
    storing: RunningService, tmp_path: Path, kind: Callable[[Path, Path], None]
) -> None:
    kind(tmp_path / "data" / "import" / "model.gguf", tmp_path)
    refusal = await refusal_of(storing)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "FILE_NOT_FOUND")
    # The same words for all of them: nothing tells what lies there.
    assert refusal.message == "There is no such file in the import folder."
    assert await ingests(storing) == []


@pytest.mark.extended_unless("HTML", "push all")
@pytest.mark.parametrize(
    ("name", "data", "reason", "said"),
    [
        ("model.gguf", b"<!DOCTYPE html><html>", "FORMAT_INVALID", "HTML"),
        ("model.gguf", DATA[:-1], "FORMAT_INVALID", "bytes"),
        ("model.gguf", DATA[:100], "FORMAT_INVALID", ""),
        ("model.gguf", b"", "SIZE_LIMIT", "0"),
        ("model.gguf", model(kv=ADAPTER), "FORMAT_INVALID", "adapter"),
        ("m-00001-of-00002.gguf", model(kv=shard(0, 2, 2)), "FORMAT_INVALID", "push all"),
        ("model.safetensors", DATA, "OPTION_UNSUPPORTED", "push the files"),
    ],
)
async def test_a_file_that_is_no_model_is_refused_before_anything_is_made_and_stays(
    storing: RunningService, tmp_path: Path, name: str, data: bytes, reason: str, said: str
) -> None:
    path = drop(tmp_path / "data", data, name)
    refusal = await refusal_of(storing, name=name)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert said in refusal.message
    assert path.read_bytes() == data
    assert await ingests(storing) == []
    assert claims(tmp_path / "data") == []


async def test_two_imports_of_one_file_at_once_store_it_once_and_lose_nothing(
    storing: RunningService, tmp_path: Path
) -> None:
    drop(tmp_path / "data", DATA)
    begun = await asyncio.gather(
        import_file(storing, model="one"), import_file(storing, model="two"), return_exceptions=True
    )
    taken = [ingest for ingest in begun if isinstance(ingest, resources_pb2.Ingest)]
    # One that came when the file had left for the store may find none.
    assert taken
    for ingest in taken:
        assert (await ended(storing, ingest)).state == resources_pb2.Ingest.STATE_STORED
    check_taken_in(tmp_path / "data", DATA)


async def test_the_same_call_twice_at_once_is_one_ingest(storing: RunningService, tmp_path: Path) -> None:
    drop(tmp_path / "data", DATA)
    begun = await asyncio.gather(*(import_file(storing, request_id="same") for _ in range(4)))
    assert len({ingest.name for ingest in begun}) == 1
    await ended(storing, begun[0])
    check_taken_in(tmp_path / "data", DATA)


async def test_bytes_that_are_stored_already_are_taken_in_again(
    storing: RunningService, tmp_path: Path
) -> None:
    await push(storing.ingests, DATA, "pushed")
    drop(tmp_path / "data", DATA)
    await imported(storing)
    check_taken_in(tmp_path / "data", DATA)


async def test_imports_need_no_boot_to_have_been_at_it(storing: RunningService) -> None:
    await boot_is_over(storing)

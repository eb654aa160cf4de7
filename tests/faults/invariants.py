"""What must hold after every fault; looked at on the disk and through the API, not by the code under test."""

from __future__ import annotations

from pathlib import Path

from model_ingest.v1 import resources_pb2

from tests.faults.client import PENDING, STORED, UPLOADING, Told, events_of, get, messages, upload
from tests.support.files import create_request, digest, stored_blobs
from tests.support.stubs import IngestStub


def blob_names(data_dir: Path) -> set[str]:
    return {path.name for path in stored_blobs(data_dir)}


def quarantined(data_dir: Path) -> list[str]:
    directory = data_dir / "quarantine"
    return [path.name for path in directory.iterdir()] if directory.exists() else []


def partials(data_dir: Path) -> list[str]:
    return [path.name for path in (data_dir / "uploads").glob("*.part")]


def check_promises_kept(file: resources_pb2.File, told: Told, data: bytes, data_dir: Path) -> None:
    """Right after a restart: nothing acknowledged is lost, what there is are the right bytes."""
    assert file.state in {PENDING, UPLOADING, STORED}, resources_pb2.File.State.Name(file.state)
    assert file.committed_size >= told.most, f"acknowledged {told.most}, there are {file.committed_size}"
    if told.stored:
        assert file.state == STORED, "an acknowledged file was lost"
    if file.state == STORED:
        assert file.sha256 == digest(data)
        assert (data_dir / "blobs" / digest(data).replace(":", "-")).read_bytes() == data
    elif file.committed_size:
        (partial,) = (data_dir / "uploads").glob("*.part")
        assert partial.read_bytes() == data[: file.committed_size], "committed bytes are not the sent ones"


async def check_ends_well(
    stub: IngestStub, told: Told, data: bytes, data_dir: Path, *, request_id: str, from_start: bool = False
) -> None:
    """The same push again: the same ingest, STORED, the right bytes, nothing left behind."""
    ingest = await stub.CreateIngest(create_request(data, request_id=request_id), timeout=30)
    assert told.file_name in {"", ingest.files[0].name}, "the same request_id made another ingest"
    file = ingest.files[0]
    if file.state != STORED:
        start = 0 if from_start else file.committed_size
        file = await upload(stub, messages(file.name, data, start=start))
    assert (file.state, file.sha256, file.committed_size) == (STORED, digest(data), len(data))
    after = await get(stub, file.name)
    assert after.state == resources_pb2.Ingest.STATE_STORED
    assert (data_dir / "blobs" / digest(data).replace(":", "-")).read_bytes() == data
    assert blob_names(data_dir) == {digest(data).replace(":", "-")}
    assert partials(data_dir) == []
    assert quarantined(data_dir) == []
    assert await events_of(stub, file.name) == list(range(1, after.last_sequence + 1))

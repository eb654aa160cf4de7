"""Uploads: what is sent, what a broken stream leads to, and that the truth is told."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import google_crc32c
import grpc
import pytest
from model_ingest import (
    AsyncClient,
    ChecksumError,
    ConnectionLostError,
    DigestError,
    FileChangedError,
    FormatError,
    IngestError,
    InvalidRequestError,
    PreconditionError,
    UploadInterruptedError,
)
from model_ingest._upload import chunk_bytes_for
from model_ingest.v1.errors_pb2 import Failure, Reason
from model_ingest.v1.ingest_service_pb2 import Capabilities
from model_ingest.v1.resources_pb2 import File, Ingest

from tests.client.scripted_server import FILE, NAME, Script, ingest, refusal, refuses, takes_everything

MIB = 1024 * 1024


class Receiver:
    """An Upload handler that keeps what it got, and may break off after so many bytes of a stream."""

    def __init__(self, *breaks_after_bytes: int, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        self.bytes = bytearray()
        self.messages: list[str] = []
        self.starts: list[int] = []
        self.sha256 = ""
        self._breaks = list(breaks_after_bytes)
        self._code = code

    async def __call__(self, messages, context):
        limit = self._breaks.pop(0) if self._breaks else None
        got = 0
        first = True
        async for message in messages:
            self.messages.append(message.WhichOneof("message"))
            if message.HasField("chunk"):
                chunk = message.chunk
                if first:
                    self.starts.append(chunk.offset)
                    first = False
                assert chunk.HasField("crc32c")
                assert chunk.crc32c == google_crc32c.value(chunk.data)
                assert chunk.offset <= len(self.bytes)
                self.bytes[chunk.offset :] = chunk.data
                got += len(chunk.data)
            if message.HasField("finish"):
                self.sha256 = message.finish.sha256
            if limit is not None and got >= limit:
                await context.abort(self._code, "cut")
        return self.file(File.STATE_STORED)

    def file(self, state: File.State.ValueType = File.STATE_UPLOADING) -> File:
        return File(
            name=FILE, file_name="model.gguf", state=state, committed_size=len(self.bytes), size_bytes=10
        )

    async def get_ingest(self, request, context) -> Ingest:
        return ingest(files=[self.file()])


def _resumable(script: Script) -> None:
    script.answers("GetCapabilities", Capabilities(resumable=True))


async def test_one_stream(script: Script, client: AsyncClient, big_file: Path):
    receiver = Receiver()
    script.on("Upload", receiver)
    file = await client.upload(FILE, big_file)
    assert file.state == File.STATE_STORED
    assert bytes(receiver.bytes) == big_file.read_bytes()
    assert receiver.messages == ["start", *["chunk"] * 6, "finish"]
    assert receiver.sha256 == f"sha256:{hashlib.sha256(big_file.read_bytes()).hexdigest()}"


async def test_the_server_wants_smaller_chunks(script: Script, client: AsyncClient, ten_bytes: Path):
    receiver = Receiver()
    script.on("Upload", receiver)
    script.answers("GetCapabilities", Capabilities(max_chunk_bytes=3))
    await client.upload(FILE, ten_bytes)
    assert receiver.messages.count("chunk") == 4
    assert chunk_bytes_for(Capabilities()) == MIB
    assert chunk_bytes_for(Capabilities(recommended_chunk_bytes=8 * MIB, max_chunk_bytes=8 * MIB)) == MIB


async def test_it_goes_on_where_the_server_is(script: Script, client: AsyncClient, big_file: Path):
    receiver = Receiver(MIB, 2 * MIB, MIB)
    script.on("Upload", receiver)
    script.on("GetIngest", receiver.get_ingest)
    _resumable(script)
    await client.upload(FILE, big_file)
    assert bytes(receiver.bytes) == big_file.read_bytes()
    assert receiver.starts == [0, MIB, 3 * MIB, 4 * MIB]
    assert receiver.sha256 == f"sha256:{hashlib.sha256(big_file.read_bytes()).hexdigest()}"
    assert len(script.seen("GetIngest")) == 3


async def test_it_goes_back_when_the_server_lost_bytes(script: Script, client: AsyncClient, big_file: Path):
    receiver = Receiver(3 * MIB)
    script.on("Upload", receiver)
    _resumable(script)

    async def forgetful(request, context):
        del receiver.bytes[MIB:]
        return ingest(files=[receiver.file()])

    script.on("GetIngest", forgetful)
    await client.upload(FILE, big_file)
    assert receiver.starts == [0, MIB]
    assert receiver.sha256 == f"sha256:{hashlib.sha256(big_file.read_bytes()).hexdigest()}"


async def test_this_version_does_not_resume_and_says_so(script: Script, client: AsyncClient, big_file: Path):
    receiver = Receiver(MIB)
    script.on("Upload", receiver)
    script.on("GetIngest", receiver.get_ingest)
    with pytest.raises(UploadInterruptedError, match="does not resume") as caught:
        await client.upload(FILE, big_file)
    assert caught.value.exit_code == 5
    assert len(script.seen("Upload")) == 1


async def test_the_reason_that_the_server_noted_is_told(script: Script, client: AsyncClient, big_file: Path):
    script.on("Upload", Receiver(MIB))
    failed = ingest(Ingest.STATE_FAILED, done=True)
    failed.files[0].state = File.STATE_FAILED
    failed.files[0].failure.CopyFrom(
        Failure(reason=Reason.UPLOAD_INTERRUPTED, message="the stream ended early")
    )
    script.answers("GetIngest", failed)
    with pytest.raises(UploadInterruptedError, match="the stream ended early") as caught:
        await client.upload(FILE, big_file)
    assert caught.value.reason == "UPLOAD_INTERRUPTED"
    assert caught.value.ingest == failed


@pytest.mark.parametrize("state", [File.STATE_VERIFYING, File.STATE_PUBLISHING, File.STATE_STORED])
async def test_a_lost_answer_is_harmless(script: Script, client: AsyncClient, ten_bytes: Path, state):
    async def takes_and_is_lost(messages, context):
        await takes_everything(messages, context)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")

    script.on("Upload", takes_and_is_lost)
    script.answers("GetIngest", ingest(files=[File(name=FILE, state=state)]))
    assert (await client.upload(FILE, ten_bytes)).state == state
    assert len(script.seen("Upload")) == 1


async def test_after_finish_an_unsettled_file_is_waited_for(
    script: Script, client: AsyncClient, ten_bytes: Path
):
    async def takes_and_is_lost(messages, context):
        await takes_everything(messages, context)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")

    script.on("Upload", takes_and_is_lost)
    uploading, stored = (
        ingest(files=[File(name=FILE, state=s)]) for s in (File.STATE_UPLOADING, File.STATE_STORED)
    )
    script.answers("GetIngest", uploading, uploading, stored)
    assert (await client.upload(FILE, ten_bytes)).state == File.STATE_STORED


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "FORMAT_INVALID", FormatError),
        (grpc.StatusCode.INVALID_ARGUMENT, "DIGEST_MISMATCH", DigestError),
        (grpc.StatusCode.OUT_OF_RANGE, "SIZE_MISMATCH", InvalidRequestError),
        (grpc.StatusCode.FAILED_PRECONDITION, "WRITER_SUPERSEDED", PreconditionError),
        (grpc.StatusCode.FAILED_PRECONDITION, "UPLOAD_CLOSED", PreconditionError),
    ],
)
async def test_an_early_answer_is_the_truth(
    script: Script, client: AsyncClient, big_file: Path, code, reason, kind
):
    """P4: write() says INTERNAL then; only the call itself knows."""

    async def refuse_early(messages, context):
        async for message in messages:
            if message.HasField("chunk"):
                await context.abort_with_status(refusal(code, reason, "said early"))

    script.on("Upload", refuse_early)
    _resumable(script)
    with pytest.raises(kind, match="said early") as caught:
        await client.upload(FILE, big_file)
    assert caught.value.reason == reason
    assert len(script.seen("Upload")) == 1
    assert not script.seen("GetIngest")


async def test_an_early_answer_is_never_taken_for_a_fault(
    script: Script, client: AsyncClient, ten_bytes: Path
):
    """The write that fails and the status that arrives race: see _truth.py."""
    answered = 0

    async def refuse_sooner_or_later(messages, context):
        nonlocal answered
        answered += 1
        for _ in range(answered % 4):
            await anext(aiter(messages))
        await context.abort_with_status(refusal(grpc.StatusCode.INVALID_ARGUMENT, "FORMAT_INVALID"))

    script.on("Upload", refuse_sooner_or_later)
    script.answers("GetCapabilities", Capabilities(max_chunk_bytes=2))
    for _ in range(60):
        with pytest.raises(FormatError):
            await client.upload(FILE, ten_bytes)
    assert not script.seen("GetIngest")


async def test_an_early_ok_is_believed(script: Script, client: AsyncClient, big_file: Path):
    async def knows_already(messages, context):
        return File(name=FILE, state=File.STATE_STORED, deduplicated=True)

    script.on("Upload", knows_already)
    assert (await client.upload(FILE, big_file)).deduplicated


async def test_a_wrong_checksum_is_resumed_three_times_then_told(
    script: Script, client: AsyncClient, ten_bytes: Path
):
    script.on("Upload", refuses(grpc.StatusCode.ABORTED, "CHUNK_CHECKSUM_MISMATCH"))
    script.on("GetIngest", Receiver().get_ingest)
    _resumable(script)
    with pytest.raises(ChecksumError):
        await client.upload(FILE, ten_bytes)
    assert len(script.seen("Upload")) == 4


async def test_too_many_uploads_waits_its_turn(script: Script, client: AsyncClient, ten_bytes: Path):
    busy = refuses(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_UPLOADS", retry_after_seconds=1)
    script.answers("Upload", busy, takes_everything)
    script.on("GetIngest", Receiver().get_ingest)
    _resumable(script)
    assert (await client.upload(FILE, ten_bytes)).committed_size == 10


async def test_a_server_that_stops_reading_is_given_up(
    script: Script, impatient: AsyncClient, tmp_path: Path
):
    async def never_reads(messages, context):
        await asyncio.sleep(3600)

    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    script.on("Upload", never_reads)
    script.on("GetIngest", Receiver().get_ingest)
    _resumable(script)
    async with asyncio.timeout(60):
        with pytest.raises(ConnectionLostError, match="took no bytes for 1 s"):
            await impatient.upload(FILE, path)


async def test_a_file_that_changes_is_never_finished(script: Script, client: AsyncClient, big_file: Path):
    receiver = Receiver()

    async def change_it(messages, context):
        with big_file.open("ab") as file:
            file.write(b"more")
        return await receiver(messages, context)

    script.on("Upload", change_it)
    with pytest.raises(FileChangedError):
        await client.upload(FILE, big_file)
    await asyncio.sleep(0.1)
    assert "finish" not in receiver.messages


async def test_cancelling_ends_the_stream(script: Script, client: AsyncClient, big_file: Path):
    reading = asyncio.Event()
    ended = asyncio.Event()

    async def slow(messages, context):
        try:
            reading.set()
            await asyncio.sleep(3600)
        finally:
            ended.set()

    script.on("Upload", slow)
    task = asyncio.create_task(client.upload(FILE, big_file))
    await reading.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(ended.wait(), 5)


async def test_a_file_that_the_ingest_lacks(script: Script, client: AsyncClient, ten_bytes: Path):
    script.on("Upload", Receiver(1))
    script.answers("GetIngest", ingest(files=[]))
    with pytest.raises(IngestError, match="has no file"):
        await client.upload(f"{NAME}/files/other", ten_bytes)

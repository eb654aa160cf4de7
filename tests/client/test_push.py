"""A whole push against a scripted server."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import grpc
import pytest
from model_ingest import (
    Accepted,
    AsyncClient,
    FormatError,
    Hashing,
    LocalFileError,
    Moved,
    NoRoomError,
    TargetError,
    UnreachableError,
    Update,
    UploadInterruptedError,
)
from model_ingest.v1.errors_pb2 import Failure, Reason
from model_ingest.v1.ingest_service_pb2 import Capabilities, WatchIngestResponse
from model_ingest.v1.resources_pb2 import (
    Deployment,
    DeploymentStateChange,
    File,
    FileStateChange,
    Ingest,
    IngestStateChange,
)

from tests.client.scripted_server import Script, event, ingest, refuses, takes_everything

DIGEST = f"sha256:{hashlib.sha256(b'0123456789').hexdigest()}"


def stores(script: Script, *more: WatchIngestResponse, last: Ingest | None = None) -> None:
    """The service takes the bytes; then `more` happens; `last` is how it ends."""
    uploaded = asyncio.Event()

    async def upload(messages, context):
        file = await takes_everything(messages, context)
        uploaded.set()
        return file

    async def watch(request, context):
        yield event(2, file_state=FileStateChange(file_name="model.gguf", state=File.STATE_UPLOADING))
        await uploaded.wait()
        stored = FileStateChange(
            file_name="model.gguf", state=File.STATE_STORED, committed_size=10, sha256=DIGEST
        )
        yield event(3, file_state=stored)
        for response in more:
            yield response
        state = IngestStateChange(state=last.state if last else Ingest.STATE_STORED, done=True)
        yield event(9, ingest_state=state)

    script.answers("GetCapabilities", Capabilities())
    script.answers("CreateIngest", ingest(last_sequence=1))
    script.on("Upload", upload)
    script.on("WatchIngest", watch)
    script.answers("GetIngest", last or ingest(Ingest.STATE_STORED, done=True))


async def test_stored(script: Script, client: AsyncClient, ten_bytes: Path):
    stores(script)
    updates: list[Update] = []
    result = await client.push(ten_bytes, name="m", on_update=updates.append)
    assert result.state == Ingest.STATE_STORED
    assert isinstance(updates[0], Accepted)
    moves = [update for update in updates if isinstance(update, Moved)]
    assert [move.event.sequence for move in moves if move.event] == [2, 3, 9]
    request = script.seen("CreateIngest")[0]
    assert (request.model, request.files[0].file_name, request.files[0].size_bytes) == ("m", "model.gguf", 10)
    assert request.files[0].sha256 == ""
    assert len(request.request_id) == 36


async def test_declared_and_stored_already(script: Script, client: AsyncClient, ten_bytes: Path):
    file = File(name="ingests/i1/files/model.gguf", state=File.STATE_STORED, deduplicated=True, size_bytes=10)
    script.answers("CreateIngest", ingest(Ingest.STATE_STORED, done=True, files=[file]))
    updates: list[Update] = []
    await client.push(ten_bytes, name="m", declare_digest=True, on_update=updates.append)
    assert script.seen("CreateIngest")[0].files[0].sha256 == DIGEST
    assert not script.seen("Upload")
    assert isinstance(updates[0], Hashing)
    assert updates[0].hashed_bytes == 10


async def test_a_target_that_fails(script: Script, client: AsyncClient, ten_bytes: Path):
    last = ingest(Ingest.STATE_FAILED, done=True)
    failure = Failure(reason=Reason.TARGET_REFUSED, message="unsupported architecture")
    last.deployments.add(target="a", state=Deployment.STATE_FAILED).failure.CopyFrom(failure)
    change = DeploymentStateChange(target="a", state=Deployment.STATE_FAILED, failure=failure)
    stores(script, event(4, deployment_state=change), last=last)
    with pytest.raises(TargetError, match="target a: unsupported architecture") as caught:
        await client.push([ten_bytes], name="m")
    assert caught.value.ingest == last


async def test_detached_it_does_not_wait_for_targets(script: Script, client: AsyncClient, ten_bytes: Path):
    stores(script)

    async def endless(request, context):
        await asyncio.sleep(3600)
        yield

    script.on("WatchIngest", endless)
    script.answers("GetIngest", ingest(Ingest.STATE_FORWARDING))
    result = await client.push(ten_bytes, name="m", detach=True)
    assert not result.done


async def test_bytes_that_are_refused(script: Script, client: AsyncClient, ten_bytes: Path):
    stores(script)
    script.on("Upload", refuses(grpc.StatusCode.INVALID_ARGUMENT, "FORMAT_INVALID", "no GGUF"))
    with pytest.raises(FormatError, match="no GGUF") as caught:
        await client.push(ten_bytes, name="m")
    assert caught.value.ingest is not None


async def test_refused_before_a_byte_is_sent(script: Script, client: AsyncClient, ten_bytes: Path):
    stores(script)
    script.on("CreateIngest", refuses(grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL"))
    with pytest.raises(NoRoomError):
        await client.push(ten_bytes, name="m")
    assert not script.seen("Upload")


async def test_create_is_repeated_with_the_same_id(script: Script, client: AsyncClient, ten_bytes: Path):
    stores(script)
    lost = refuses(grpc.StatusCode.UNAVAILABLE, "", "cut")
    script.answers("CreateIngest", lost, ingest(last_sequence=1))
    await client.push(ten_bytes, name="m")
    first, second = script.seen("CreateIngest")
    assert first == second


async def test_a_broken_upload_tells_what_the_server_noted(
    script: Script, client: AsyncClient, ten_bytes: Path
):
    failed = ingest(Ingest.STATE_FAILED, done=True)
    failed.failure.CopyFrom(Failure(reason=Reason.UPLOAD_INTERRUPTED, message="ended early"))
    failed.files[0].state = File.STATE_FAILED
    failed.files[0].failure.CopyFrom(failed.failure)
    stores(script, last=failed)
    script.on("Upload", refuses(grpc.StatusCode.UNAVAILABLE, "", "cut"))
    with pytest.raises(UploadInterruptedError, match="ended early"):
        await client.push(ten_bytes, name="m")


async def test_a_lost_watch_stops_no_upload(script: Script, client: AsyncClient, ten_bytes: Path):
    stores(script)
    watch = script.handlers["WatchIngest"]
    calls = 0

    async def first_refused(request, context):
        nonlocal calls
        calls += 1
        if calls == 1:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        async for response in watch(request, context):
            yield response

    script.on("WatchIngest", first_refused)
    assert (await client.push(ten_bytes, name="m")).done


async def test_a_callback_that_raises_is_heard(script: Script, client: AsyncClient, ten_bytes: Path):
    stores(script)

    def broken(update: Update) -> None:
        if isinstance(update, Moved):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await client.push(ten_bytes, name="m", on_update=broken)


async def test_local_faults_come_before_any_call(script: Script, client: AsyncClient, ten_bytes: Path):
    with pytest.raises(LocalFileError):
        await client.push(ten_bytes.parent / "none", name="m")
    with pytest.raises(LocalFileError, match="both be called"):
        await client.push([ten_bytes, ten_bytes], name="m")
    assert not script.requests


async def test_nobody_there(ten_bytes: Path):
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(UnreachableError):
            await client.push(ten_bytes, name="m")


async def test_cancelled_it_leaves_no_task_behind(script: Script, client: AsyncClient, ten_bytes: Path):
    stores(script)

    async def hang(messages, context):
        await asyncio.sleep(3600)

    script.on("Upload", hang)
    before = asyncio.all_tasks()
    pushing = asyncio.create_task(client.push(ten_bytes, name="m"))
    while not script.seen("Upload"):
        await asyncio.sleep(0.01)
    pushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pushing
    await asyncio.sleep(0.1)
    left = {task for task in asyncio.all_tasks() - before if "model_ingest" in str(task.get_coro())}
    assert not left

"""A watch survives broken streams, loses and doubles nothing, and ends."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest
from model_ingest import (
    AsyncClient,
    BusyError,
    ConnectionLostError,
    IngestError,
    InvalidRequestError,
    Moved,
    NotFoundError,
    OnUpdate,
    Update,
)
from model_ingest._snapshot import apply
from model_ingest.v1.errors_pb2 import Failure, Reason
from model_ingest.v1.ingest_service_pb2 import (
    DeploymentProgress,
    FileProgress,
    Heartbeat,
    Progress,
    WatchIngestResponse,
)
from model_ingest.v1.resources_pb2 import (
    Deployment,
    DeploymentStateChange,
    DeploymentStatus,
    File,
    FileStateChange,
    Ingest,
    IngestStateChange,
    Notice,
)

from tests.client.conftest import IMPATIENT, QUICK
from tests.client.scripted_server import Script, event, ingest, serve

NOTES = [event(n, notice=Notice(message=f"n{n}")) for n in range(1, 7)]


async def _sequences(client: AsyncClient, after_sequence: int = 0) -> list[int]:
    watched = client.watch("i1", after_sequence=after_sequence)
    return [response.event.sequence async for response in watched if response.HasField("event")]


async def test_a_broken_stream_is_taken_up_without_a_gap(script: Script, client: AsyncClient):
    async def two_then_lost(request, context):
        for response in NOTES[request.after_sequence : request.after_sequence + 2]:
            yield response
        if request.after_sequence + 2 < len(NOTES):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Cancelling all calls")

    script.on("WatchIngest", two_then_lost)
    assert await _sequences(client) == [1, 2, 3, 4, 5, 6]
    assert [request.after_sequence for request in script.seen("WatchIngest")] == [0, 2, 4]


async def test_progress_renews_the_patience(script: Script, impatient: AsyncClient):
    rounds = 0

    async def alive_then_lost(request, context):
        nonlocal rounds
        rounds += 1
        await asyncio.sleep(0.3)
        yield WatchIngestResponse(heartbeat=Heartbeat())
        if rounds < 8:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")

    script.on("WatchIngest", alive_then_lost)
    started = time.monotonic()
    await _sequences(impatient)
    assert time.monotonic() - started > IMPATIENT.patience_seconds


async def test_a_silent_stream_is_cut_and_in_the_end_given_up(script: Script, impatient: AsyncClient):
    async def silence(request, context):
        if request.after_sequence == 0:
            yield NOTES[0]
        await asyncio.sleep(3600)

    script.on("WatchIngest", silence)
    async with asyncio.timeout(60):
        with pytest.raises(ConnectionLostError, match="silent for 1 s"):
            await _sequences(impatient)
    assert len(script.seen("WatchIngest")) >= 2


async def test_the_service_is_restarted():
    script = Script()
    seen: list[int] = []

    async def two_then_nothing(request, context):
        yield NOTES[0]
        yield NOTES[1]
        await asyncio.sleep(3600)

    script.on("WatchIngest", two_then_nothing)
    async with serve(script):
        client = await AsyncClient(script.address, limits=QUICK).__aenter__()
        watching = asyncio.create_task(_collect(client, seen))
        while len(seen) < 2:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.5)
    script.streams(*NOTES)
    async with serve(script, int(script.address.rpartition(":")[2])):
        await watching
        await client.close()
    assert seen == [1, 2, 3, 4, 5, 6]


async def _collect(client: AsyncClient, seen: list[int]) -> None:
    async for response in client.watch("i1"):
        seen += [response.event.sequence]


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, "INGEST_NOT_FOUND", NotFoundError),
        (grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_EXPIRED", InvalidRequestError),
    ],
)
async def test_a_refusal_ends_it(script: Script, client: AsyncClient, code, reason, kind):
    from tests.client.scripted_server import refusal

    async def refuse(request, context):
        await context.abort_with_status(refusal(code, reason))
        yield

    script.on("WatchIngest", refuse)
    with pytest.raises(kind):
        await _sequences(client)
    assert len(script.seen("WatchIngest")) == 1


async def test_too_many_watches_waits_its_turn(script: Script, client: AsyncClient):
    from tests.client.scripted_server import refusal

    async def first_busy(request, context):
        if len(script.seen("WatchIngest")) == 1:
            await context.abort_with_status(
                refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHES", retry_after_seconds=1)
            )
        yield NOTES[0]

    script.on("WatchIngest", first_busy)
    assert await _sequences(client) == [1]
    assert issubclass(BusyError, ConnectionLostError)


async def test_a_planned_end_is_hidden_and_costs_no_wait(
    script: Script, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    from model_ingest._backoff import Backoff

    from tests.client.scripted_server import refusal

    def never(backoff: Backoff, error: Exception) -> float:
        raise AssertionError("a planned end was counted as a failure")

    monkeypatch.setattr(Backoff, "after", never)

    async def one_each(request, context):
        yield NOTES[request.after_sequence]
        if request.after_sequence + 1 < len(NOTES):
            end = refusal(grpc.StatusCode.UNAVAILABLE, "DRAINING", retry_after_seconds=0)
            await context.abort_with_status(end)

    script.on("WatchIngest", one_each)
    assert await _sequences(client) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("retry_after_seconds", [0, 1], ids=["a stream that brought nothing", "a drain"])
async def test_another_end_is_waited_for(script: Script, client: AsyncClient, retry_after_seconds: int):
    from tests.client.scripted_server import refusal

    async def drains(request, context):
        if len(script.seen("WatchIngest")) == 1:
            if retry_after_seconds:
                yield NOTES[0]
            status = refusal(grpc.StatusCode.UNAVAILABLE, "DRAINING", retry_after_seconds=retry_after_seconds)
            await context.abort_with_status(status)
        yield NOTES[request.after_sequence]

    script.on("WatchIngest", drains)
    waits: list[float] = []
    from model_ingest._backoff import Backoff

    real = Backoff.after

    def after(backoff: Backoff, error: IngestError) -> float:
        waits.append(real(backoff, error))
        return waits[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Backoff, "after", after)
        await _sequences(client)
    assert len(waits) == 1
    assert waits[0] > retry_after_seconds


async def test_leaving_early_ends_the_call(script: Script, client: AsyncClient):
    ended = asyncio.Event()

    async def endless(request, context):
        try:
            yield NOTES[0]
            await asyncio.sleep(3600)
        finally:
            ended.set()

    script.on("WatchIngest", endless)
    watched = client.watch("i1")
    await anext(watched)
    await watched.aclose()  # type: ignore[attr-defined]
    await asyncio.wait_for(ended.wait(), 5)


async def test_wait_follows_to_the_truth(script: Script, client: AsyncClient):
    start = ingest(last_sequence=1)
    done = ingest(Ingest.STATE_STORED, done=True, last_sequence=3)
    script.answers("GetIngest", start, done)
    script.streams(
        NOTES[0],
        event(2, file_state=FileStateChange(file_name="model.gguf", state=File.STATE_STORED)),
        event(3, ingest_state=IngestStateChange(state=Ingest.STATE_STORED, done=True)),
    )
    moves: list[Moved] = []
    result = await client.wait("i1", on_update=_only_moves(moves))
    assert result == done
    assert [move.event.sequence for move in moves if move.event] == [2, 3]
    assert moves[-1].ingest.state == Ingest.STATE_STORED
    assert moves[0].ingest.state == Ingest.STATE_UPLOADING, "snapshots are copies"


def _only_moves(moves: list[Moved]) -> OnUpdate:
    def note(update: Update) -> None:
        assert isinstance(update, Moved)
        moves.append(update)

    return note


def test_a_snapshot_follows_events_and_progress():
    one = ingest()
    one.deployments.add(target="a", state=Deployment.STATE_PENDING)
    apply(one, WatchIngestResponse(progress=Progress(files=[_file_progress(7)])))
    apply(one, WatchIngestResponse(progress=Progress(files=[_file_progress(3)])))
    assert one.files[0].committed_size == 7, "durable bytes never become fewer"

    apply(
        one, event(1, file_state=FileStateChange(file_name="model.gguf", state=File.STATE_STORED, sha256="s"))
    )
    failed = DeploymentStateChange(
        target="a",
        state=Deployment.STATE_PENDING,
        attempts=1,
        failure=Failure(reason=Reason.TARGET_UNREACHABLE, message="refused"),
    )
    failed.next_attempt_time.seconds = 5
    apply(one, event(2, deployment_state=failed))
    assert one.deployments[0].failure.message == "refused"
    apply(one, event(3, deployment_state=DeploymentStateChange(target="a", state=Deployment.STATE_PUSHING)))
    assert not one.deployments[0].HasField("failure")
    assert not one.deployments[0].HasField("next_attempt_time")
    moving = DeploymentProgress(target="a", state=Deployment.STATE_PUSHING, bytes=5, total_bytes=10)
    apply(one, WatchIngestResponse(progress=Progress(deployments=[moving])))
    assert (one.deployments[0].progress_bytes, one.deployments[0].progress_total_bytes) == (5, 10)
    apply(one, event(4, deployment_status=DeploymentStatus(target="a", status="parsing GGUF")))
    assert one.deployments[0].status == "parsing GGUF"
    apply(one, event(2, notice=Notice(message="old")))
    assert one.last_sequence == 4
    apply(one, event(5, ingest_state=IngestStateChange(state=Ingest.STATE_READY, done=True)))
    assert (one.state, one.done) == (Ingest.STATE_READY, True)


def _file_progress(size: int) -> FileProgress:
    return FileProgress(file_name="model.gguf", committed_size=size, size_bytes=10)

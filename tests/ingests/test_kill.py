"""`kill -9` at random moments of uploads: no acknowledged byte is lost, nothing is left behind."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import grpc
import pytest
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import GetIngestRequest

from tests.ingests.calls import UploadCall
from tests.support.files import MEBIBYTE, create_request, digest, gguf, push, send, upload_messages
from tests.support.service import ServiceProcess, environment
from tests.support.stubs import IngestStub, ingest_stub

KILLS = {"sqlite": 7, "postgresql": 3}
CHUNK_BYTES = 128 * 1024


def channel(process: ServiceProcess) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(process.address, options=[("grpc.use_local_subchannel_pool", 1)])


async def killed_upload(process: ServiceProcess, data: bytes, source: random.Random) -> tuple[str, bool]:
    """An upload whose server is killed on the way; answers the ingest's name and if it was acknowledged."""
    async with channel(process) as opened:
        stub = ingest_stub(opened)
        ingest = await stub.CreateIngest(create_request(data))
        messages = upload_messages(ingest.files[0].name, data, chunk_bytes=CHUNK_BYTES)
        call = UploadCall(stub)
        # Half of the kills come somewhere in the stream, half between `finish` and its answer.
        await call.send(messages[: source.choice([source.randrange(1, len(messages)), len(messages)])])
        # The moment itself is the random input; nothing is asserted about how long anything takes.
        await asyncio.sleep(source.uniform(0, source.choice([0.0, 0.05, 0.5])))
        await process.kill()
        try:
            file = await call.answer()
        except grpc.aio.AioRpcError:
            return ingest.name, False
        return ingest.name, file.state == resources_pb2.File.STATE_STORED


async def check(stub: IngestStub, name: str, data: bytes, data_dir: Path, *, acknowledged: bool) -> str:
    """After the restart: stored and intact, or as it was at its last checkpoint, from which it goes on."""
    ingest = await stub.GetIngest(GetIngestRequest(name=name))
    file = ingest.files[0]
    blob = data_dir / "blobs" / digest(data).replace(":", "-")
    if file.state == resources_pb2.File.STATE_STORED:
        assert ingest.state == resources_pb2.Ingest.STATE_STORED
        assert file.sha256 == digest(data)
        assert digest(blob.read_bytes()) == file.sha256
        return "stored"
    assert not acknowledged, "an acknowledged file was lost"
    if file.state == resources_pb2.File.STATE_PENDING:
        return "not begun"
    assert (ingest.state, file.state) == (
        resources_pb2.Ingest.STATE_UPLOADING,
        resources_pb2.File.STATE_UPLOADING,
    )
    kept = b"".join(path.read_bytes() for path in (data_dir / "uploads").glob("*.part"))
    assert kept == data[: file.committed_size]
    first, *chunks, finish = upload_messages(file.name, data, chunk_bytes=CHUNK_BYTES)
    rest = [message for message in chunks if message.chunk.offset + CHUNK_BYTES > file.committed_size]
    assert (await send(stub, [first, *rest, finish])).sha256 == digest(data)
    assert digest(blob.read_bytes()) == digest(data)
    return f"went on at {file.committed_size}"


@pytest.mark.extended
async def test_a_server_that_is_killed_at_any_moment_of_an_upload_loses_nothing(
    tmp_path: Path, database_url: str
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    source = random.Random(seed)
    data_dir = tmp_path / "data"
    variables = environment(data_dir, database_url, checkpoint_bytes=MEBIBYTE, log_level="WARNING")
    process = ServiceProcess(variables, tmp_path / "log")
    await process.start()
    stored: dict[str, bytes] = {}
    ends = []
    try:
        for number in range(KILLS[database_url.partition("+")[0]]):
            data = gguf(source.randrange(1, 6 * MEBIBYTE), seed=number)
            name, acknowledged = await killed_upload(process, data, source)
            await process.start()
            async with channel(process) as opened:
                stub = ingest_stub(opened)
                ends.append(await check(stub, name, data, data_dir, acknowledged=acknowledged))
                again = await push(stub, data, "again")
                assert again.state == resources_pb2.Ingest.STATE_STORED
                stored[again.name] = data
                assert not list((data_dir / "uploads").glob("*.part"))
                # And what was stored before is still what it was.
                for former, bytes_ in stored.items():
                    assert await check(stub, former, bytes_, data_dir, acknowledged=True) == "stored"
        print(f"ends: {ends}")
        assert "Traceback" not in process.log.read_text()
    finally:
        await process.kill()

"""Two services in processes of their own on one PostgreSQL, and a target that only one of them has.

Breaks when: a deployment fails while a process that serves its target restarts, or waits on once none does.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from model_ingest.v1 import resources_pb2
from model_ingest.v1.errors_pb2 import Reason
from model_ingest.v1.ingest_service_pb2 import GetIngestRequest

from tests.faults.children import Child
from tests.support.files import create_request, gguf, send, upload_messages
from tests.support.postgres import PostgresCluster
from tests.support.service import environment
from tests.support.stubs import ingest_stub

pytestmark = pytest.mark.extended

_FAILED = resources_pb2.Deployment.STATE_FAILED
_KEPT = "kept=http://127.0.0.1:9"
_GONE, _GONE_EARLIER = "gone=http://127.0.0.1:19", "earlier=http://127.0.0.1:29"
#: The real command, whose processes say which targets they have twice a second.
_SERVE = """
import sys
from functools import partial
from ingest_service import app
from ingest_service.__main__ import main
app.ForwardingSettings = partial(app.ForwardingSettings, announce_seconds=0.5, max_backoff_seconds=1.0)
sys.argv[1:] = ["serve"]
sys.exit(main())
"""


async def _waiting(process: Child, target: str) -> str:
    data = gguf(2000)
    async with process.channel() as channel:
        stub = ingest_stub(channel)
        ingest = await stub.CreateIngest(create_request(data, target, targets=[target]))
        if ingest.files[0].state != resources_pb2.File.STATE_STORED:
            await send(stub, upload_messages(ingest.files[0].name, data))
    return ingest.name


async def test_a_target_is_nobodys_once_each_process_has_said_so_and_not_before(
    tmp_path: Path, postgres: PostgresCluster
) -> None:
    url = await asyncio.to_thread(postgres.create_database, "unserved", "migrated")

    def serving(*targets: str) -> Child:
        variables = environment(tmp_path / "data", url, ",".join(targets), lease_seconds=10)
        return Child(variables, tmp_path / "log", "-c", _SERVE)

    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, postgres.drop_database, "unserved")

        async def started(process: Child) -> Child:
            stack.push_async_callback(process.kill)
            await process.start()
            return process

        stays = await started(serving(_KEPT))
        changes = await started(serving(_KEPT, _GONE, _GONE_EARLIER))
        earlier, gone = await _waiting(changes, "earlier"), await _waiting(changes, "gone")
        channel = await stack.enter_async_context(stays.channel())
        stub = ingest_stub(channel)

        async def deployment(name: str) -> resources_pb2.Deployment:
            return (await stub.GetIngest(GetIngestRequest(name=name))).deployments[0]

        async def failed(name: str) -> resources_pb2.Deployment:
            async with asyncio.timeout(120):
                while (found := await deployment(name)).state != _FAILED:
                    await asyncio.sleep(0.1)
            return found

        await changes.kill()
        changes = await started(serving(_KEPT, _GONE))
        ended = await failed(earlier)
        assert ended.failure.reason == Reason.TARGET_UNREACHABLE
        assert "in its settings" in ended.failure.message
        # Since then the other process has judged every target; this one was away for as long as a boot takes.
        assert (await deployment(gone)).state != _FAILED
        await changes.kill()
        await started(serving(_KEPT))
        assert "in its settings" in (await failed(gone)).failure.message

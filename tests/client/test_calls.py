"""Every call of the API has a thin method, in both faces."""

from __future__ import annotations

import asyncio
import inspect
import threading
from pathlib import Path

import pytest
from model_ingest import AsyncClient, Client, FileSpec, NotServedError, Update
from model_ingest._loop_thread import LoopThread
from model_ingest.v1.catalog_service_pb2 import (
    DeleteModelResponse,
    ListModelsResponse,
    ListTargetsResponse,
    VerifyModelResponse,
)
from model_ingest.v1.ingest_service_pb2 import Capabilities, ListIngestsResponse
from model_ingest.v1.resources_pb2 import Ingest, Model, Target

from tests.client.conftest import QUICK
from tests.client.scripted_server import Script, ingest
from tests.client.test_push import stores


def test_both_faces_have_the_same_methods():
    def public(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(function).parameters)
            for name, function in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    assert public(AsyncClient) == public(Client)


async def test_pages_are_turned(script: Script, client: AsyncClient):
    first = ListIngestsResponse(ingests=[ingest(), ingest()], next_page_token="t")
    script.answers("ListIngests", first, ListIngestsResponse(ingests=[ingest()]))
    assert len(await client.list_ingests(model="m", states=[Ingest.STATE_READY])) == 3
    assert [request.page_token for request in script.seen("ListIngests")] == ["", "t"]

    script.answers("ListModels", ListModelsResponse(models=[Model(), Model()], next_page_token="t"))
    assert len(await client.list_models(limit=3)) == 3
    assert [request.page_size for request in script.seen("ListModels")] == [3, 3]


async def test_the_thin_ones(script: Script, client: AsyncClient):
    script.answers("CreateIngest", ingest())
    await client.create_ingest("m", [FileSpec(file_name="f", size_bytes=1)], targets=["a"], request_id="r")
    assert script.seen("CreateIngest")[0].request_id == "r"
    script.answers("CancelIngest", ingest())
    await client.cancel("i1")
    assert script.seen("CancelIngest")[0].name == "ingests/i1"
    script.answers("RetryIngest", ingest())
    await client.retry("ingests/i1", targets=["a"])
    assert script.seen("RetryIngest")[0].targets == ["a"]
    script.answers("GetCapabilities", Capabilities(version="9"))
    assert (await client.capabilities()).version == "9"
    script.answers("GetModel", Model(name="models/m:latest"))
    assert (await client.get_model("M")).name == "models/m:latest"
    assert script.seen("GetModel")[0].name == "models/M"
    script.answers("DeleteModel", DeleteModelResponse(model=Model(name="models/m")))
    assert (await client.delete_model("m", all_targets=True)).model.name == "models/m"
    script.answers("DeployModel", ingest())
    await client.deploy("m", targets=["a"])
    assert script.seen("DeployModel")[0].request_id
    script.answers("ImportFile", ingest())
    await client.import_file("f.gguf", name="m")
    assert script.seen("ImportFile")[0].model == "m"
    script.answers("ListTargets", ListTargetsResponse(targets=[Target(name="targets/a")]))
    assert [target.name for target in await client.list_targets()] == ["targets/a"]


async def test_verify_streams(script: Script, client: AsyncClient):
    async def verify(request, context):
        yield VerifyModelResponse(file_name="f", verified_bytes=1, size_bytes=2)
        yield VerifyModelResponse(file_name="f", verified_bytes=2, size_bytes=2)

    with pytest.raises(NotServedError):
        async for _ in client.verify("m"):
            pass
    script.on("VerifyModel", verify)
    assert [seen.verified_bytes async for seen in client.verify("m")] == [1, 2]


async def test_the_sync_face(script: Script, ten_bytes: Path):
    stores(script)
    threads: set[str] = set()

    def note(update: Update) -> None:
        threads.add(threading.current_thread().name)

    def use() -> tuple[Ingest, int]:
        with Client(script.address, limits=QUICK) as client, Client(script.address) as other:
            assert other._thread is client._thread
            pushed = client.push(ten_bytes, name="m", on_update=note)
            script.streams()
            assert list(client.watch("i1")) == []
            with pytest.raises(NotServedError):
                client.list_targets()
            with pytest.raises(NotServedError):
                list(client.verify("m"))
            return pushed, client.get_ingest("i1").last_sequence

    pushed, _ = await asyncio.to_thread(use)
    assert pushed.done
    assert threads == {"model-ingest-loop"}
    assert LoopThread._shared is None


def test_the_sync_face_outside_of_with():
    with pytest.raises(RuntimeError, match="with"):
        Client().capabilities()


async def test_the_sync_face_refuses_to_start_where_a_loop_runs(script: Script):
    with pytest.raises(RuntimeError, match="use AsyncClient"):
        Client(script.address).__enter__()
    assert LoopThread._shared is None
    # A thread without a loop of its own may use it meanwhile.
    await asyncio.to_thread(_list_targets, script.address)


def _list_targets(address: str) -> None:
    with Client(address, limits=QUICK) as client, pytest.raises(NotServedError):
        client.list_targets()

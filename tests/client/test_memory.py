"""A push that is run again: what it goes on with, and when it begins anew.

Breaks when: an id is sent before it is remembered (a lost answer then makes a second ingest), an ingest that
is gone or done is gone on with, two different pushes share a memory, or a bad memory stops a push.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from model_ingest import AsyncClient, InvalidRequestError
from model_ingest._memory import PushMemory, Remembered, state_directory
from model_ingest.v1.ingest_service_pb2 import Capabilities, WatchIngestResponse
from model_ingest.v1.resources_pb2 import File, Ingest, IngestStateChange

from tests.client.conftest import QUICK
from tests.client.scripted_server import Script, event, refuses, serve, takes_everything

NEVER = 3600.0


@dataclass
class Service:
    """Makes ingests 1, 2, 3 ... and, while it `hangs`, takes no bytes."""

    script: Script
    hangs: bool = True
    taken: set[str] = field(default_factory=set)
    #: What GetIngest says of an ingest that is no longer what it was.
    found: dict[str, Callable[[Any, Any], Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.script.answers("GetCapabilities", Capabilities(resumable=True))
        for method, handler in (
            ("CreateIngest", self._create), ("GetIngest", self._get),
            ("Upload", self._upload), ("WatchIngest", self._watch),
        ):  # fmt: skip
            self.script.on(method, handler)

    @property
    def request_ids(self) -> list[str]:
        return [request.request_id for request in self.script.seen("CreateIngest")]

    async def _create(self, request: Any, context: Any) -> Ingest:
        return _ingest(f"ingests/{len(self.request_ids)}", Ingest.STATE_UPLOADING)

    async def _get(self, request: Any, context: Any) -> Any:
        if request.name in self.found:
            return await self.found[request.name](request, context)
        if not request.name.startswith("ingests/"):
            return await refuses(grpc.StatusCode.INVALID_ARGUMENT, "", "no such name")(request, context)
        state = Ingest.STATE_STORED if request.name in self.taken else Ingest.STATE_UPLOADING
        return _ingest(request.name, state)

    async def _upload(self, messages: Any, context: Any) -> File:
        if self.hangs:
            await asyncio.sleep(NEVER)
        first = await anext(aiter(messages))
        file = await takes_everything(messages, context)
        self.taken.add(first.start.file.partition("/files/")[0])
        return file

    async def _watch(self, request: Any, context: Any) -> AsyncIterator[WatchIngestResponse]:
        while request.name not in self.taken:
            await asyncio.sleep(0.01)
        yield event(9, ingest_state=IngestStateChange(state=Ingest.STATE_STORED, done=True))


def _ingest(name: str, state: Ingest.State.ValueType) -> Ingest:
    is_stored = state == Ingest.STATE_STORED
    file = File(
        name=f"{name}/files/model.gguf",
        file_name="model.gguf",
        state=File.STATE_STORED if is_stored else File.STATE_PENDING,
        size_bytes=10,
    )
    return Ingest(name=name, state=state, done=is_stored, files=[file])


@pytest.fixture
def service(script: Script) -> Service:
    return Service(script)


def remembered() -> list[dict[str, str]]:
    """All that is remembered, of every push."""
    return [json.loads(path.read_text()) for path in state_directory().glob("push-*.json")]


async def broken_off(client: AsyncClient, service: Service, path: Path, at: str = "Upload") -> None:
    """A push that is interrupted (Ctrl-C) while the service is busy with `at`."""
    before = len(service.script.seen(at))
    pushing = asyncio.create_task(client.push(path, name="m"))
    async with asyncio.timeout(30):
        while len(service.script.seen(at)) == before:
            await asyncio.sleep(0.01)
    pushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pushing


async def pushed(client: AsyncClient, service: Service, path: Path, **options: Any) -> str:
    """A push that ends well; answers its ingest."""
    service.hangs = False
    return (await client.push(path, **({"name": "m"} | options))).name


async def hang(request: Any, context: Any) -> None:
    await asyncio.sleep(NEVER)


async def test_it_goes_on_with_the_ingest_that_it_began(
    client: AsyncClient, service: Service, ten_bytes: Path
) -> None:
    await broken_off(client, service, ten_bytes)
    (kept,) = remembered()
    assert kept == {"request_id": service.request_ids[0], "ingest": "ingests/1"}
    assert await pushed(client, service, ten_bytes) == "ingests/1"
    assert len(service.request_ids) == 1
    assert remembered() == []


async def test_it_asks_with_the_same_id_if_the_answer_was_lost(
    client: AsyncClient, service: Service, ten_bytes: Path
) -> None:
    create = service.script.handlers["CreateIngest"]
    service.script.on("CreateIngest", hang)
    await broken_off(client, service, ten_bytes, at="CreateIngest")
    assert remembered() == [{"request_id": service.request_ids[0], "ingest": ""}]
    service.script.on("CreateIngest", create)
    await pushed(client, service, ten_bytes)
    assert len(service.request_ids) == 2
    assert len(set(service.request_ids)) == 1


@pytest.mark.parametrize("end", ["gone", "done"])
async def test_an_ingest_that_is_gone_or_done_is_not_gone_on_with(
    end: str, client: AsyncClient, service: Service, ten_bytes: Path
) -> None:
    await broken_off(client, service, ten_bytes)

    async def done(request: Any, context: Any) -> Ingest:
        return Ingest(name="ingests/1", state=Ingest.STATE_CANCELLED, done=True)

    gone = refuses(grpc.StatusCode.NOT_FOUND, "INGEST_NOT_FOUND")
    service.found["ingests/1"] = gone if end == "gone" else done
    assert await pushed(client, service, ten_bytes) == "ingests/2"
    assert len(set(service.request_ids)) == 2


@pytest.mark.parametrize("answer", ["reused", "done"])
async def test_a_new_id_is_remembered_before_it_is_sent(
    answer: str, client: AsyncClient, service: Service, ten_bytes: Path
) -> None:
    """The former id is of no use any more; the answer to the new one is lost as well."""
    create = service.script.handlers["CreateIngest"]
    service.script.on("CreateIngest", hang)
    await broken_off(client, service, ten_bytes, at="CreateIngest")
    (old,) = service.request_ids
    when_sent: list[list[dict[str, str]]] = []

    async def of_no_use(request: Any, context: Any) -> Any:
        if request.request_id != old:
            when_sent.append(remembered())
            await asyncio.sleep(NEVER)
        if answer == "done":
            return Ingest(name="ingests/old", state=Ingest.STATE_STORED, done=True)
        return await refuses(grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")(request, context)

    service.script.on("CreateIngest", of_no_use)
    pushing = asyncio.create_task(client.push(ten_bytes, name="m"))
    async with asyncio.timeout(30):
        while not when_sent:
            await asyncio.sleep(0.01)
    pushing.cancel()
    await asyncio.gather(pushing, return_exceptions=True)
    new = service.request_ids[-1]
    assert new != old
    assert when_sent == [[{"request_id": new, "ingest": ""}]]
    service.script.on("CreateIngest", create)
    await pushed(client, service, ten_bytes)
    assert service.request_ids == [old, old, new, new]
    assert remembered() == []


async def test_a_create_that_is_refused_is_forgotten(
    client: AsyncClient, service: Service, ten_bytes: Path
) -> None:
    service.script.on("CreateIngest", refuses(grpc.StatusCode.INVALID_ARGUMENT, "NAME_INVALID"))
    with pytest.raises(InvalidRequestError):
        await client.push(ten_bytes, name="m")
    assert remembered() == []


@pytest.mark.extended_unless('"ingest": 7', "null")
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b"7", b"{}", b'{"request_id": "r"}',
     b'{"request_id": null, "ingest": null}', b'{"request_id": 7, "ingest": 7}',
     b'{"request_id": "", "ingest": ""}',
     b'{"request_id": "r", "ingest": "models/m"}'],
)  # fmt: skip
async def test_a_memory_that_cannot_be_read_costs_only_the_memory(
    content: bytes, client: AsyncClient, service: Service, ten_bytes: Path
) -> None:
    await broken_off(client, service, ten_bytes)
    (path,) = state_directory().glob("push-*.json")
    path.write_bytes(content)
    assert await pushed(client, service, ten_bytes) == "ingests/2"
    first, second = service.request_ids
    assert second not in {first, "r", "7", "None", ""}
    assert remembered() == []


async def test_a_state_directory_that_cannot_be_written_costs_only_the_memory(
    client: AsyncClient, service: Service, ten_bytes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Below a file: that stops root as well.
    monkeypatch.setenv("XDG_STATE_HOME", str(ten_bytes))
    await broken_off(client, service, ten_bytes)
    assert await pushed(client, service, ten_bytes) == "ingests/2"
    assert len(set(service.request_ids)) == 2


def touched(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def longer(path: Path) -> None:
    status = path.stat()
    path.write_bytes(path.read_bytes() + b"!")
    os.utime(path, ns=(0, status.st_mtime_ns))


def replaced(path: Path) -> None:
    copy = path.with_suffix(".copy")
    shutil.copy2(path, copy)
    copy.replace(path)


@pytest.mark.parametrize("change", [touched, longer, replaced])
async def test_another_file_is_another_push(
    change: Callable[[Path], None], client: AsyncClient, service: Service, ten_bytes: Path
) -> None:
    await broken_off(client, service, ten_bytes)
    change(ten_bytes)
    assert await pushed(client, service, ten_bytes) == "ingests/2"


@pytest.mark.parametrize("options", [{"name": "other"}, {"targets": ["a"]}, {"store_only": True}])
async def test_other_options_are_another_push(
    options: dict[str, Any], client: AsyncClient, service: Service, ten_bytes: Path
) -> None:
    await broken_off(client, service, ten_bytes)
    assert await pushed(client, service, ten_bytes, **options) == "ingests/2"
    # The first one can still be gone on with.
    assert [kept["ingest"] for kept in remembered()] == ["ingests/1"]
    assert await pushed(client, service, ten_bytes) == "ingests/1"


async def test_another_path_is_another_push(client: AsyncClient, service: Service, ten_bytes: Path) -> None:
    await broken_off(client, service, ten_bytes)
    other = ten_bytes.parent / "other" / ten_bytes.name
    other.parent.mkdir()
    other.hardlink_to(ten_bytes)
    assert await pushed(client, service, other) == "ingests/2"


async def test_another_server_is_another_push(client: AsyncClient, service: Service, ten_bytes: Path) -> None:
    await broken_off(client, service, ten_bytes)
    async with serve(Script()) as script, AsyncClient(script.address, limits=QUICK) as other:
        elsewhere = Service(script)
        await pushed(other, elsewhere, ten_bytes)
        assert len(elsewhere.request_ids) == 1
        assert elsewhere.request_ids != service.request_ids
    assert await pushed(client, service, ten_bytes) == "ingests/1"


def test_what_is_old_goes_and_what_goes_meanwhile_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = PushMemory.of("server", [], {})
    memory.save(Remembered("r", "ingests/1"))
    (mine,) = state_directory().glob("push-*.json")
    assert mine.stat().st_mode & 0o077 == 0
    old, young = state_directory() / "push-old.json", state_directory() / "push-young.json"
    # Its name is there, and a look at it fails: another push has just forgotten it.
    (state_directory() / "push-gone.json").symlink_to("nowhere")
    for path, days in ((old, 31), (young, 29)):
        path.write_text("{}")
        os.utime(path, (time.time() - days * 86400,) * 2)
    memory.save(Remembered("r", "ingests/2"))
    assert memory.load() == Remembered("r", "ingests/2")
    assert (old.exists(), young.exists()) == (False, True)


def test_a_user_without_a_home_only_loses_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", none)
    memory = PushMemory.of("server", [], {})
    memory.save(Remembered("id", ""))
    assert memory.load() is None
    memory.forget()

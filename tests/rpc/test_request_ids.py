"""The same request_id: the same ingest for the same body, whatever its state; another body is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import CancelIngestRequest, CreateIngestRequest

from tests.conftest import StartService
from tests.ollama_emulator import OllamaEmulator
from tests.rpc.refusals import refused
from tests.rpc.uploading import upload
from tests.support.files import create_request, digest, gguf, push, upload_messages
from tests.support.service import RunningService

DATA = gguf(1000)
ID = "7b0f0f5e-8f0c-4d4e-9d0a-6f2f5a0d8a11"


@pytest.fixture
async def running(start_service: StartService, emulator: OllamaEmulator, database_url: str) -> RunningService:
    """A service on each database."""
    service: RunningService = await start_service(f"default={emulator.url}", database_url=database_url)
    return service


def request() -> CreateIngestRequest:
    """The same body each time."""
    return create_request(DATA, "m", sha256=digest(DATA), request_id=ID)


@pytest.mark.extended_when("postgresql")
async def test_the_same_body_again_is_the_same_ingest_in_every_state(running: RunningService) -> None:
    first = await running.ingests.CreateIngest(request())
    assert first.request_id == ID
    assert await running.ingests.CreateIngest(request()) == first
    ready = await push(running.ingests, DATA, "m", sha256=digest(DATA), request_id=ID)
    assert ready.name == first.name
    assert ready.state == resources_pb2.Ingest.STATE_READY
    assert await running.ingests.CreateIngest(request()) == ready


@pytest.mark.extended_when("postgresql")
async def test_a_cancelled_ingest_is_answered_as_cancelled(running: RunningService) -> None:
    first = await running.ingests.CreateIngest(request())
    cancelled = await running.ingests.CancelIngest(CancelIngestRequest(name=first.name))
    assert await running.ingests.CreateIngest(request()) == cancelled


async def test_twenty_at_once_are_one_ingest(running: RunningService) -> None:
    ingests = await asyncio.gather(*(running.ingests.CreateIngest(request()) for _ in range(20)))
    assert len({ingest.name for ingest in ingests}) == 1


@pytest.mark.extended_when("postgresql")
async def test_without_an_id_every_call_makes_a_new_ingest(running: RunningService) -> None:
    names = {(await running.ingests.CreateIngest(create_request(DATA))).name for _ in range(3)}
    assert len(names) == 3


def _change(edit: Callable[[CreateIngestRequest], object]) -> CreateIngestRequest:
    changed = request()
    edit(changed)
    return changed


@pytest.mark.extended_when("postgresql")
async def test_another_body_is_refused(running: RunningService) -> None:
    first = await running.ingests.CreateIngest(request())
    others: list[Callable[[CreateIngestRequest], object]] = [
        lambda other: setattr(other, "model", "m2"),
        lambda other: setattr(other, "model", "M"),
        lambda other: setattr(other, "store_only", True),
        lambda other: other.targets.append("default"),
        lambda other: setattr(other.files[0], "size_bytes", 999),
        lambda other: setattr(other.files[0], "sha256", ""),
        lambda other: setattr(other.files[0], "file_name", "other.gguf"),
    ]
    for edit in others:
        await refused(running.ingests.CreateIngest(_change(edit)), "REQUEST_ID_REUSED", "request_id")
    assert await running.ingests.CreateIngest(request()) == first


@pytest.mark.extended_when("postgresql")
async def test_a_one_call_upload_with_the_id_of_a_stored_ingest_answers_its_file(
    running: RunningService,
) -> None:
    first = await upload(running, upload_messages(request(), DATA))
    again = await upload(running, upload_messages(request(), DATA))
    assert again == first
    other = create_request(b"x", "m", request_id=ID)
    await refused(upload(running, upload_messages(other, b"x")), "REQUEST_ID_REUSED", "request_id")

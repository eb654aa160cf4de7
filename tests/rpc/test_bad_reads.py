"""Names, page tokens and sequences that mean nothing here, on both databases."""

from __future__ import annotations

import base64

import pytest
from model_ingest.v1.catalog_service_pb2 import GetModelRequest, ListModelsRequest
from model_ingest.v1.ingest_service_pb2 import (
    CancelIngestRequest,
    GetIngestRequest,
    ListIngestsRequest,
    WatchIngestRequest,
)

from tests.conftest import StartService
from tests.rpc.refusals import refused
from tests.rpc.scenes import Scene
from tests.rpc.uploading import start, upload
from tests.support.files import create_request, gguf, push
from tests.support.service import RunningService

pytestmark = pytest.mark.extended_when("postgresql")

UNKNOWN_ID = "0" * 24
MALFORMED_INGESTS = [
    "", "ingests", "ingests/", f"ingests/{UNKNOWN_ID}/", f"ingest/{UNKNOWN_ID}", UNKNOWN_ID, "ingests/../x",
    f"/ingests/{UNKNOWN_ID}", f"ingests/{UNKNOWN_ID.upper()}X", "ingests/a\x00b", "ingests/\n", "ingests/'--",
    f"ingests/{'a' * 65}", "ingests/\u202e", f"ingests/{UNKNOWN_ID}\n", f"ingests/{UNKNOWN_ID}/files/m",
]  # fmt: skip


async def watched(running: RunningService, name: str, after_sequence: int = 0) -> list[int]:
    """Sequences of the events that the watch gave before it ended."""
    request = WatchIngestRequest(name=name, after_sequence=after_sequence)
    return [item.event.sequence async for item in running.ingests.WatchIngest(request, timeout=30)]


@pytest.mark.extended_unless("KNOWN/files/other.gguf", "000000000000")
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (f"ingests/{UNKNOWN_ID}/files/model.gguf", "INGEST_NOT_FOUND"),
        ("models/m/files/model.gguf", "INGEST_NOT_FOUND"),
        ("ingests/../files/model.gguf", "INGEST_NOT_FOUND"),
        ("ingests/KNOWN/files/other.gguf", "FILE_NOT_FOUND"),
        ("ingests/KNOWN/files/MODEL.GGUF", "FILE_NOT_FOUND"),
        ("ingests/KNOWN/files/a\x00b\u202e", "FILE_NOT_FOUND"),
        ("ingests/KNOWN/files/../model.gguf", "FILE_NOT_FOUND"),
        ("ingests/KNOWN/files/", "FILE_NOT_FOUND"),
        ("ingests/KNOWN", "FILE_NOT_FOUND"),
        ("ingests/KNOWN/blobs/model.gguf", "FILE_NOT_FOUND"),
        ("model.gguf", "FILE_NOT_FOUND"),
        ("/etc/passwd", "FILE_NOT_FOUND"),
    ],
)
async def test_an_upload_of_a_file_that_does_not_exist(shared: Scene, file: str, reason: str) -> None:
    known = await shared.create(1000)
    name = file.replace("ingests/KNOWN", known.name)
    await refused(upload(shared.running, [start(name)]), reason)
    assert await shared.get(known.name) == known
    await shared.assert_nothing_came_of_it()


@pytest.mark.parametrize("name", ["models/unknown", "models/a:b", "models/library/x"])
@pytest.mark.asyncio(loop_scope="module")
async def test_a_model_that_does_not_exist(shared: Scene, name: str) -> None:
    await refused(shared.running.catalog.GetModel(GetModelRequest(name=name)), "MODEL_NOT_FOUND")


@pytest.mark.parametrize(
    "name", ["", "models/", "model/x", "x", "models/../x", "models/a\x00", "models/m:cloud"]
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_model_that_cannot_exist(shared: Scene, name: str) -> None:
    await refused(shared.running.catalog.GetModel(GetModelRequest(name=name)), "NAME_INVALID", "name")


def token(text: bytes) -> str:
    """As page tokens are written, if they are base64 at all."""
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


TOKENS = [
    "x", "!", "====", "a b", "\x00", "\u00e4", "1", "abc", "QUJD" * 1000, token(b"\x00"), token(b"\xff\xfe"),
    token(b"-1"), token(b"1e3"), token(b"9" * 19), token("\u0661".encode()), token(b"llama"), token(b"1"),
    token(b"m\x00:latest"), token(b"ingests:-1"), token(b"ingests:"), token(b"models:"),
    token(b"models:\x00"), token(b"ingests:12") + "=", token(b"ingests:12") + "!", "!" + token(b"ingests:12"),
    token(b"models:a") + "\n",
]  # fmt: skip


@pytest.fixture
async def filled(start_service: StartService, database_url: str) -> RunningService:
    """A stored model, and three ingests that wait for their bytes."""
    running: RunningService = await start_service(database_url=database_url)
    await push(running.ingests, gguf(1000), "stored")
    for number in range(3):
        await running.ingests.CreateIngest(create_request(1000, f"m{number}"))
    return running


async def test_an_ingest_that_does_not_exist(filled: RunningService) -> None:
    for name in (f"ingests/{UNKNOWN_ID}", *MALFORMED_INGESTS):
        await refused(filled.ingests.GetIngest(GetIngestRequest(name=name)), "INGEST_NOT_FOUND")
        await refused(filled.ingests.CancelIngest(CancelIngestRequest(name=name)), "INGEST_NOT_FOUND")
        await refused(watched(filled, name), "INGEST_NOT_FOUND")


async def test_a_page_token_that_was_not_issued_here(filled: RunningService) -> None:
    """Nor is one of another list, or one that a client made up: positions are ours to give."""
    page = await filled.ingests.ListIngests(ListIngestsRequest(page_size=1))
    for text in TOKENS:
        request = ListIngestsRequest(page_token=text)
        await refused(filled.ingests.ListIngests(request), "ARGUMENT_INVALID", "page_token")
    for text in (*TOKENS, page.next_page_token):
        models = ListModelsRequest(page_token=text)
        await refused(filled.catalog.ListModels(models), "ARGUMENT_INVALID", "page_token")


async def test_a_page_has_as_many_as_were_asked_for_and_no_negative_number(filled: RunningService) -> None:
    for page_size in (-1, -(2**31)):
        request = ListIngestsRequest(page_size=page_size)
        await refused(filled.ingests.ListIngests(request), "ARGUMENT_INVALID", "page_size")
        models = ListModelsRequest(page_size=page_size)
        await refused(filled.catalog.ListModels(models), "ARGUMENT_INVALID", "page_size")
    assert len((await filled.ingests.ListIngests(ListIngestsRequest(page_size=2**31 - 1))).ingests) == 4
    seen, text = [], ""
    for _ in range(4):
        page = await filled.ingests.ListIngests(ListIngestsRequest(page_size=1, page_token=text))
        seen += [ingest.model for ingest in page.ingests]
        text = page.next_page_token
    assert seen == ["m2:latest", "m1:latest", "m0:latest", "stored:latest"]
    assert not text


async def test_a_prefix_that_no_model_has_finds_none(filled: RunningService) -> None:
    for prefix in ("stored", "STO"):
        assert (await filled.catalog.ListModels(ListModelsRequest(name_prefix=prefix))).models
    for prefix in ("storedx", "%", "_", "\\", "'", "\u00e4", "x" * 256):
        assert not (await filled.catalog.ListModels(ListModelsRequest(name_prefix=prefix))).models


async def test_a_prefix_that_is_not_for_a_database(filled: RunningService) -> None:
    for prefix in ("a\x00b", "\x00", "a\nb", "\u202e", "x" * 257, "x" * 60_000):
        request = ListModelsRequest(name_prefix=prefix)
        await refused(filled.catalog.ListModels(request), "ARGUMENT_INVALID", "name_prefix")


async def test_the_catalog_comes_in_pages_too(filled: RunningService) -> None:
    for name in ("a", "ns/b:v1"):
        await push(filled.ingests, gguf(1000), name)
    seen, text = [], ""
    for _ in range(3):
        page = await filled.catalog.ListModels(ListModelsRequest(page_size=1, page_token=text))
        seen += [model.name for model in page.models]
        text = page.next_page_token
    assert seen == ["models/a:latest", "models/ns/b:v1", "models/stored:latest"]
    assert not text


async def test_a_filter_that_no_ingest_can_match(filled: RunningService) -> None:
    request = ListIngestsRequest(model="../m")
    await refused(filled.ingests.ListIngests(request), "NAME_INVALID", "model")
    for state in (0, 99):
        by_state = ListIngestsRequest(states=[state])  # type: ignore[list-item]
        await refused(filled.ingests.ListIngests(by_state), "ARGUMENT_INVALID", "states")


async def test_a_watch_after_events_that_do_not_exist(filled: RunningService) -> None:
    ingest = await filled.ingests.CreateIngest(create_request(gguf()))
    for sequence in (ingest.last_sequence + 1, 2**63 - 1, -1, -(2**63)):
        refusal = await refused(watched(filled, ingest.name, sequence), "SEQUENCE_EXPIRED")
        assert refusal.metadata["earliest"] == "1"
    await filled.ingests.CancelIngest(CancelIngestRequest(name=ingest.name))
    done = await filled.ingests.GetIngest(GetIngestRequest(name=ingest.name))
    assert await watched(filled, ingest.name, done.last_sequence) == []


async def test_one_watch_more_than_may_run(start_service: StartService) -> None:
    running: RunningService = await start_service(max_watches=1)
    ingest = await running.ingests.CreateIngest(create_request(gguf()))
    first = running.ingests.WatchIngest(WatchIngestRequest(name=ingest.name))
    await first.read()
    await refused(watched(running, ingest.name), "TOO_MANY_WATCHES")
    first.cancel()

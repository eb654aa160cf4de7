"""RENDERER, PARSER, REQUIRES and DRAFT: to a target that knows them, and to one that came before them.

Breaks when: one of them does not reach the target's model, a target that would ignore it gets the model all
the same or a byte of it, or a model loses one on its way to another target.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from model_ingest.v1 import errors_pb2
from model_ingest.v1.ingest_service_pb2 import CreateIngestRequest, FileSpec, RetryIngestRequest
from model_ingest.v1.resources_pb2 import CreateOptions, Deployment, File, Ingest

from tests.conftest import StartService
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.rpc.catalog import deploy, done, get_model
from tests.support.files import digest, gguf, send, upload_messages
from tests.support.models import MODEL, model
from tests.support.service import RunningService

WEIGHTS = gguf(3000)
SMALL = model(kv={**MODEL, "general.name": "draft"})
WORDS = {"renderer": "qwen3-coder", "parser": "qwen3", "requires": "0.14.0"}
Emulators = tuple[OllamaEmulator, OllamaEmulator]


@pytest.fixture
async def emulators(tmp_path: Path) -> AsyncIterator[Emulators]:
    """The newest, and one that a test may make still older."""
    async with (
        OllamaEmulator(version="0.40.0", data_dir=tmp_path / "new") as new,
        OllamaEmulator(version="0.24.0", data_dir=tmp_path / "old") as old,
    ):
        yield new, old


@pytest.fixture
async def service(start_service: StartService, emulators: Emulators) -> RunningService:
    new, old = emulators
    running: RunningService = await start_service(f"new={new.url},old={old.url}")
    return running


async def pushed(service: RunningService, options: CreateOptions, *, with_draft: bool = False) -> Ingest:
    files = [("model.gguf", File.ROLE_MODEL, WEIGHTS)]
    files += [("small.gguf", File.ROLE_DRAFT, SMALL)] if with_draft else []
    specs = [FileSpec(file_name=name, role=role, size_bytes=len(data)) for name, role, data in files]
    ingest = await service.ingests.CreateIngest(CreateIngestRequest(model="m", files=specs, options=options))
    for file, (_, _, data) in zip(ingest.files, files, strict=True):
        await send(service.ingests, upload_messages(file.name, data))
    return await done(service, ingest.name)


async def shown(emulator: OllamaEmulator) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=emulator.url, trust_env=False) as client:
        answer: dict[str, Any] = (await client.post("/api/show", json={"model": "m"})).json()
    return answer


def assert_refused_unsent(ingest: Ingest, old: OllamaEmulator, named: str) -> None:
    """READY on the new target; refused by name on the old one, which got nothing."""
    new_one, old_one = ingest.deployments
    assert new_one.state == Deployment.STATE_READY, new_one.failure
    assert old_one.state == Deployment.STATE_FAILED
    assert old_one.failure.reason == errors_pb2.OPTION_UNSUPPORTED
    assert named in old_one.failure.message
    assert set(old.calls.names()) == {"version"}


@pytest.mark.extended_unless("requires")
@pytest.mark.parametrize(
    ("name", "old_version", "line"),
    [
        ("renderer", "0.11.11", "RENDERER qwen3-coder"),
        ("parser", "0.11.11", "PARSER qwen3"),
        # `show` prints it beside the Modelfile, not in it.
        ("requires", "0.13.5", ""),
    ],
)
async def test_an_option_reaches_the_target_that_knows_it(
    service: RunningService, emulators: Emulators, name: str, old_version: str, line: str
) -> None:
    new, old = emulators
    old.version = old_version
    ingest = await pushed(service, CreateOptions(**{name: WORDS[name]}))  # type: ignore[arg-type]
    assert getattr(ingest.options, name) == WORDS[name]
    answer = await shown(new)
    assert line in answer["modelfile"].splitlines()
    assert answer.get("requires", "") == ("" if line else WORDS["requires"])
    assert_refused_unsent(ingest, old, f"`options.{name}`")


async def test_a_draft_reaches_the_target_that_knows_it(
    service: RunningService, emulators: Emulators
) -> None:
    new, old = emulators
    ingest = await pushed(service, CreateOptions(), with_draft=True)
    assert [file.role for file in ingest.files] == [File.ROLE_MODEL, File.ROLE_DRAFT]
    modelfile = (await shown(new))["modelfile"].splitlines()
    drafts = [line for line in modelfile if line.startswith("DRAFT ")]
    assert [line.endswith(digest(SMALL).replace(":", "-")) for line in drafts] == [True]
    assert_refused_unsent(ingest, old, "files of role DRAFT")
    catalogued = await get_model(service)
    assert [file.role for file in catalogued.files] == [File.ROLE_MODEL, File.ROLE_DRAFT]
    # The model's own count, not the draft's with it.
    assert catalogued.facts["parameter_count"] == catalogued.files[0].facts["parameter_count"]


@pytest.mark.extended
async def test_a_retry_carries_them_all(service: RunningService, emulators: Emulators) -> None:
    new, _ = emulators
    new.faults.add(Fault("error_line", "create", after_line=1, body="no such thing"))
    failed = await pushed(service, CreateOptions(**WORDS), with_draft=True)  # type: ignore[arg-type]
    assert failed.deployments[0].state == Deployment.STATE_FAILED
    await service.ingests.RetryIngest(RetryIngestRequest(name=failed.name, targets=["new"]))
    assert (await done(service, failed.name)).deployments[0].state == Deployment.STATE_READY
    first, again = (call.json for call in new.calls.named("create"))
    assert again == first
    assert {name: again[name] for name in WORDS} == WORDS
    assert again["draft_files"] == {"draft.gguf": digest(SMALL)}
    assert (await shown(new))["requires"] == WORDS["requires"]


async def test_a_later_deployment_carries_them_all(service: RunningService, emulators: Emulators) -> None:
    _, old = emulators
    await pushed(service, CreateOptions(**WORDS), with_draft=True)  # type: ignore[arg-type]
    old.version = "0.30.0"
    ingest = await done(service, (await deploy(service, targets=["old"])).name)
    assert ingest.deployments[0].state == Deployment.STATE_READY, ingest.deployments[0].failure
    body = old.calls.named("create")[0].json
    assert {name: body[name] for name in WORDS} == WORDS
    assert body["draft_files"] == {"draft.gguf": digest(SMALL)}

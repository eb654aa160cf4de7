"""A push of several files with options: what is declared, remembered, and made of it on a target."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict
from model_ingest import AsyncClient, CreateOptions, LocalFileError, TargetError
from model_ingest._limits import Limits
from model_ingest._memory import state_directory
from model_ingest._push import Push, PushOptions
from model_ingest.v1.errors_pb2 import OPTION_UNSUPPORTED
from model_ingest.v1.resources_pb2 import File, Ingest

from tests.client.test_cli_process import run
from tests.conftest import StartService
from tests.ollama_emulator import OllamaEmulator, sample_gguf
from tests.support.files import digest
from tests.support.models import ADAPTER, CONFIG_JSON, MODEL, PROJECTOR, model
from tests.support.service import RunningService

WEIGHTS = model()
MMPROJ = model(kv=PROJECTOR)
LORA = model(kv=ADAPTER)
DRAFT = model(kv={**MODEL, "general.name": "draft"})
F16 = {**MODEL, "general.alignment": 32, "general.file_type": 1}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    directory = tmp_path / "files"
    directory.mkdir()
    for name, data in {"model.gguf": WEIGHTS, "mm.gguf": MMPROJ, "lora.gguf": LORA}.items():
        (directory / name).write_bytes(data)
    return directory


@pytest.fixture
async def allowing(start_service: StartService, emulator: OllamaEmulator) -> RunningService:
    """A service with one target, that takes what is off by default."""
    running: RunningService = await start_service(
        f"a={emulator.url}", allow_from=True, allow_safetensors=True
    )
    return running


async def test_files_with_roles_and_options(
    allowing: RunningService, emulator: OllamaEmulator, files: Path
) -> None:
    async with AsyncClient(allowing.address) as client:
        ingest = await client.push(
            files / "model.gguf",
            name="m",
            roles=[("projector", files / "mm.gguf"), ("adapter", files / "lora.gguf")],
            options=CreateOptions(system="Be brief."),
        )
    assert ingest.state == Ingest.STATE_READY
    assert [file.role for file in ingest.files] == [File.ROLE_MODEL, File.ROLE_PROJECTOR, File.ROLE_ADAPTER]
    body = emulator.calls.named("create")[0].json
    assert body["files"] == {"model.gguf": digest(WEIGHTS), "projector.gguf": digest(MMPROJ)}
    assert body["adapters"] == {"adapter.gguf": digest(LORA)}
    assert body["system"] == "Be brief."


@pytest.mark.extended
async def test_the_command_with_a_modelfile(
    allowing: RunningService, emulator: OllamaEmulator, files: Path
) -> None:
    emulator.version = "0.33.0"
    text = 'FROM ./model.gguf\nFROM mm.gguf\nADAPTER lora.gguf\nPARAMETER num_ctx 4096\nSYSTEM """a\nb"""\n'
    more = "PARAMETER mirostat 1\nDRAFT draft.gguf\nRENDERER r\nPARSER p\nREQUIRES v0.14\n"
    (files / "draft.gguf").write_bytes(DRAFT)
    (files / "Modelfile").write_text(text + more)
    ended = await run(allowing.address, "push", "--modelfile", files / "Modelfile", "--name", "m")
    assert ended.code == 0
    warning = "line 7: parameter mirostat is deprecated; Ollama ignores it"
    assert ended.err == f"warning: {files}/Modelfile, {warning}\n"
    body = emulator.calls.named("create")[0].json
    assert body == {
        "model": "m:latest",
        "files": {"model.gguf": digest(WEIGHTS), "projector.gguf": digest(MMPROJ)},
        "adapters": {"adapter.gguf": digest(LORA)},
        "draft_files": {"draft.gguf": digest(DRAFT)},
        "system": "a\nb",
        "renderer": "r",
        "parser": "p",
        "requires": "0.14",
        "parameters": {"num_ctx": 4096},
        "stream": True,
    }


@pytest.mark.extended
async def test_a_path_stands_in_for_from_and_options_of_the_line_are_added(
    allowing: RunningService, emulator: OllamaEmulator, files: Path
) -> None:
    (files / "Modelfile").write_text("FROM llama3\nSYSTEM x\n")
    weights = sample_gguf(F16, [("token_embd.weight", (32, 2), 1, None)])
    (files / "f16.gguf").write_bytes(weights)
    arguments = ["--modelfile", files / "Modelfile", "--name", "m", "--quantize", "Q8_0"]
    ended = await run(allowing.address, "push", files / "f16.gguf", *arguments)
    assert (ended.code, ended.err) == (0, "")
    body = emulator.calls.named("create")[0].json
    assert (body["files"], body["quantize"]) == ({"model.gguf": digest(weights)}, "Q8_0")
    assert "from" not in body


@pytest.mark.extended
async def test_a_modelfile_that_builds_upon_a_targets_model(
    allowing: RunningService, emulator: OllamaEmulator, files: Path
) -> None:
    assert (await run(allowing.address, "push", files / "model.gguf", "--name", "base")).code == 0
    (files / "Modelfile").write_text("FROM base\nSYSTEM x\n")
    ended = await run(allowing.address, "push", "--modelfile", files / "Modelfile", "--name", "m")
    assert (ended.code, ended.err) == (0, "")
    assert emulator.calls.named("create")[1].json["from"] == "base"
    (files / "Modelfile").write_text("FROM nowhere\nSYSTEM x\n")
    ended = await run(allowing.address, "push", "--modelfile", files / "Modelfile", "--name", "n")
    assert ended.code == 4
    assert "target a: The target has no model nowhere" in ended.err


async def test_a_directory_of_safetensors(
    allowing: RunningService, emulator: OllamaEmulator, tmp_path: Path
) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")
    (directory / "config.json").write_bytes(CONFIG_JSON)
    (directory / "tokenizer.json").write_text("{}")
    (directory / "README.md").write_text("not sent")
    ended = await run(allowing.address, "push", directory, "--name", "m")
    assert (ended.code, ended.err) == (0, "")
    sent = emulator.calls.named("create")[0].json["files"]
    assert sorted(sent) == ["config.json", "model.safetensors", "tokenizer.json"]


@pytest.mark.extended
async def test_the_file_that_is_wrong_is_named_and_the_end_is_the_end(
    allowing: RunningService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    directory = tmp_path / "set"
    directory.mkdir()
    for name, data in {"config.json": CONFIG_JSON, "tokenizer.json": b"<html>404</html>"}.items():
        (directory / name).write_bytes(data)
    (directory / "model.safetensors").write_bytes(b"<html>404 is not here</html>")
    ended = await run(allowing.address, "push", str(directory), "--name", "m", "--json")
    assert ended.code == 3
    assert ended.err.startswith("error: model.safetensors: This is no safetensors file: it is an HTML page")
    assert (ended.objects[-1]["ingest"]["state"], ended.objects[-1]["ingest"]["done"]) == ("FAILED", True)


@pytest.mark.extended
async def test_what_a_targets_version_cannot_do_is_that_targets_failure(
    allowing: RunningService, emulator: OllamaEmulator, files: Path
) -> None:
    emulator.version = "0.40.0"
    roles = ["--role", f"adapter={files / 'lora.gguf'}"]
    ended = await run(allowing.address, "push", files / "model.gguf", "--name", "m", *roles)
    assert ended.code == 4
    assert "target a: Ollama 0.40.0 there takes no LoRA adapters" in ended.err
    assert "(OPTION_UNSUPPORTED)" in ended.err
    assert "next: run a version of Ollama that can" in ended.err


async def test_a_bad_modelfile_comes_before_any_call(files: Path) -> None:
    (files / "Modelfile").write_text("FROM model.gguf\nNOPE x\n")
    ended = await run("127.0.0.1:1", "push", "--modelfile", files / "Modelfile", "--name", "m")
    assert ended.code == 2
    assert "line 2: `NOPE` is no command" in ended.err


async def test_files_that_would_have_one_name(files: Path) -> None:
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(LocalFileError, match="both be called"):
            await client.push(files / "model.gguf", name="m", roles=[("adapter", files / "model.gguf")])


async def test_options_and_roles_are_part_of_what_is_remembered(
    allowing: RunningService, files: Path
) -> None:
    """Another push is no continuation of this one, which the same one is."""

    async def key(roles: list[tuple[str, Path]], options: CreateOptions) -> str:
        asked = PushOptions(paths=[], name="m", roles=roles, options=options)
        async with AsyncClient(allowing.address) as client:
            push = Push(client._connection, Limits(), asked, None)
            async with AsyncExitStack() as stack:
                await push._open(stack)
                return str(push._memory()._path)

    one, other = files / "model.gguf", files / "mm.gguf"
    keys = [
        await key([("model", one), ("projector", other)], CreateOptions()),
        await key([("model", one), ("adapter", other)], CreateOptions()),
        await key([("model", one), ("projector", other)], CreateOptions(system="x")),
        await key([("model", one), ("projector", other)], CreateOptions(quantize="Q8_0")),
    ]
    assert len(set(keys)) == 4
    assert keys[0] == await key([("model", one), ("projector", other)], CreateOptions())
    assert keys[0].startswith(str(state_directory()))


async def test_what_ended_on_its_targets_version_is_a_target_error(
    allowing: RunningService, emulator: OllamaEmulator, files: Path
) -> None:
    emulator.version = "0.40.0"
    weights = sample_gguf(F16, [("token_embd.weight", (32, 2), 1, None)])
    (files / "f16.gguf").write_bytes(weights)
    async with AsyncClient(allowing.address) as client:
        with pytest.raises(TargetError) as caught:
            await client.push(files / "f16.gguf", name="m", options=CreateOptions(quantize="Q8_0"))
    assert caught.value.reason == "OPTION_UNSUPPORTED"
    assert caught.value.ingest is not None
    assert caught.value.ingest.deployments[0].failure.reason == OPTION_UNSUPPORTED
    assert MessageToDict(caught.value.ingest.options) == {"quantize": "Q8_0"}

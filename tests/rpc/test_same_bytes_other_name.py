"""A JSON file's rules go by its name: bytes that were accepted under one are read again for another."""

from __future__ import annotations

import pytest
from model_ingest.v1.resources_pb2 import File

from ingest_service.formats import FormatLimits
from ingest_service.formats.inspect import FormatReader
from tests.conftest import StartService
from tests.formats.build import safetensors
from tests.ollama_emulator import OllamaEmulator
from tests.rpc.refusals import refused
from tests.rpc.test_several_files import ended, several
from tests.support.files import send, upload_messages
from tests.support.models import CONFIG_JSON, TOKENIZER_MODEL

WEIGHTS = safetensors(b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}', 4)
#: Ollama's server dies of it.
EVIL = b'{"architectures":["Phi3ForCausalLM"],"num_attention_heads":1,"rope_scaling":{"type":"x"}}'


def parts(config: bytes, **more: bytes) -> list[tuple[str, File.Role.ValueType, bytes]]:
    contents = {"model.safetensors": WEIGHTS, "config.json": config, "tokenizer.model": TOKENIZER_MODEL}
    contents |= {name.replace("__", "."): data for name, data in more.items()}
    return [(name, File.ROLE_MODEL, data) for name, data in contents.items()]


async def test_what_was_notes_is_read_again_as_config(
    start_service: StartService, emulator: OllamaEmulator
) -> None:
    running = await start_service(f"default={emulator.url}", allow_safetensors=True)
    files = parts(CONFIG_JSON, notes__json=EVIL)
    ingest = await running.ingests.CreateIngest(several(files, "one", store_only=True))
    for file, (_, _, data) in zip(ingest.files, files, strict=True):
        await send(running.ingests, upload_messages(file.name, data))
    await ended(running, ingest.name)
    refusal = await refused(
        running.ingests.CreateIngest(several(parts(EVIL), "two", declared=True)), "FORMAT_INVALID"
    )
    assert refusal.metadata["rule"] == "J8"
    assert not emulator.calls.names()


@pytest.mark.parametrize("name", ["special_tokens_map.json", "notes.json", "config.json"])
@pytest.mark.parametrize("key", ["additional_special_tokens", "Additional_Special_Tokens"])
def test_special_tokens_are_told_under_any_name(name: str, key: str) -> None:
    data = b'{"architectures":["x"],"%s":["a"]}' % key.encode()
    reader = FormatReader(name, len(data), FormatLimits())
    reader.feed(data)
    assert reader.inspection is not None
    assert reader.inspection.facts["additional_special_tokens"] == "texts"

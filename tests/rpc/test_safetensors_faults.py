"""Every rule of safetensors over the wire: nothing of a set with one bad header reaches a target."""

from __future__ import annotations

import pytest
from model_ingest.v1.resources_pb2 import File

from tests.conftest import StartService
from tests.formats.test_safetensors import LIMITS, ROWS
from tests.ollama_emulator import OllamaEmulator
from tests.rpc.refusals import refused
from tests.rpc.test_several_files import several
from tests.rpc.uploading import upload
from tests.support.files import MEBIBYTE, upload_messages

#: Sizes that a create takes, and headers that the default limits refuse.
SENT = [row for row in ROWS if row[4] == LIMITS and 0 < len(row[2]) <= MEBIBYTE]


@pytest.mark.extended
async def test_every_rule(start_service: StartService, emulator: OllamaEmulator) -> None:
    running = await start_service(f"default={emulator.url}", allow_safetensors=True)
    for rule, what, bad, _, _ in SENT:
        contents = {"model.safetensors": bad, "config.json": b"{}", "tokenizer.model": b"\n\0"}
        files = [(name, File.ROLE_MODEL, data) for name, data in contents.items()]
        ingest = await running.ingests.CreateIngest(several(files, "safe"))
        sending = upload(running, upload_messages(ingest.files[0].name, bad))
        refusal = await refused(sending, "FORMAT_INVALID")
        # What is no safetensors by its first bytes is not read as one.
        assert refusal.metadata["rule"] in {rule, "H1"}, (rule, what)
    assert {row[0] for row in SENT} == {row[0] for row in ROWS}
    assert not emulator.calls.names()

"""Every rule of the formats over the wire: refused with the chunk that shows it, nothing kept or sent on."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import UploadRequest

from ingest_service.ingests.session import UploadSession
from tests.formats.gguf_rows import LIMITS, ROWS, Row
from tests.rpc.refusals import Refusal, refused
from tests.rpc.scenes import Scene
from tests.rpc.uploading import chunk, start, upload
from tests.support.files import MEBIBYTE, upload_messages

pytestmark = pytest.mark.asyncio(loop_scope="module")

_CHUNK_BYTES = 64 * 1024
#: Sizes that a create takes: others are refused before a byte is sent.
SENT = [row for row in ROWS if row.limits == LIMITS and 0 < row.size_bytes <= 1 << 30]
RULES = sorted({row.rule for row in SENT})


class Taken:
    """What the sessions were given, in bytes."""

    def __init__(self) -> None:
        self.size_bytes = 0


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Taken:
    seen, taking = Taken(), UploadSession.chunk

    async def counting(self: UploadSession, offset: int, data: bytes, crc32c: int | None) -> None:
        seen.size_bytes += len(data)
        await taking(self, offset, data, crc32c)

    monkeypatch.setattr(UploadSession, "chunk", counting)
    return seen


def endless(file: str, head: bytes, size_bytes: int) -> Iterable[UploadRequest]:
    """The head, and then zeros: far more than may be taken after a fault."""
    yield start(file)
    size_bytes = min(size_bytes, len(head) + 16 * MEBIBYTE)
    data = head[:size_bytes].ljust(size_bytes, b"\0")
    for offset in range(0, size_bytes, _CHUNK_BYTES):
        yield chunk(offset, data[offset : offset + _CHUNK_BYTES])


async def refused_while_it_comes(scene: Scene, taken: Taken, head: bytes, size_bytes: int) -> Refusal:
    file = await scene.new_file(size_bytes)
    taken.size_bytes = 0
    messages = endless(file, head, size_bytes)
    refusal = await refused(upload(scene.running, messages, half_close=False), "FORMAT_INVALID")
    # Of the stream that still comes nothing is taken after the chunk in which the header ends, or breaks.
    fault = int(refusal.metadata.get("offset", len(head)))
    assert taken.size_bytes <= max(len(head), fault) + _CHUNK_BYTES <= fault + 2 * MEBIBYTE, refusal
    await scene.assert_failed(file, "FORMAT_INVALID")
    return refusal


@pytest.mark.extended_unless("A1", "C1")
@pytest.mark.parametrize("rule", RULES)
async def test_a_file_that_breaks_the_rule(shared: Scene, taken: Taken, rule: str) -> None:
    rows: list[Row] = [row for row in SENT if row.rule == rule]
    for row in rows:
        refusal = await refused_while_it_comes(shared, taken, row.bad.header, row.size_bytes)
        if row.bad.magic == b"FUGG":
            # Named by its first bytes, before there is a header to read.
            assert "big-endian" in refusal.message
            continue
        assert (refusal.metadata["rule"], refusal.metadata["field"]) == (row.rule, row.field), row.id
        assert refusal.fields == (row.field,)


@pytest.mark.extended_unless("M1")
@pytest.mark.parametrize("rule", RULES)
async def test_the_same_file_put_right_is_stored(shared_store: Scene, rule: str) -> None:
    row = next(row for row in SENT if row.rule == rule)
    if "split.no" in row.good.pairs or row.good.pairs.get("general.type") is not None:
        pytest.skip("no whole model by itself: tests/ingests/test_agreement.py has these")
    data = row.good.file()
    ingest = await shared_store.create(data, f"right-{rule}", store_only=True)
    file = await upload(shared_store.running, upload_messages(ingest.files[0].name, data))
    assert file.state == resources_pb2.File.STATE_STORED

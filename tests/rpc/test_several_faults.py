"""All defects of one file reach the client in one answer, however many and long they are."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.formats.build import Gguf, counted, u32
from tests.rpc.refusals import check_documented, error_of, read_refusal
from tests.rpc.scenes import Scene
from tests.rpc.uploading import upload
from tests.support.files import upload_messages

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def violations(scene: Scene, bad: Gguf) -> tuple[grpc.aio.AioRpcError, list[tuple[str, str]]]:
    data = bad.file()
    file = await scene.new_file(data)
    error = await error_of(upload(scene.running, upload_messages(file, data)))
    check_documented(read_refusal(error), "FORMAT_INVALID")
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # an AioRpcError serves
    assert status is not None
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in status.details)
    return error, [(one.field, one.description) for one in bad_request.field_violations]


async def test_each_is_named_with_its_rule_and_the_first_is_the_errors_own(shared: Scene) -> None:
    bad = Gguf().but({"llama.block_count": u32(0), "llama.context_length": None})
    error, told = await violations(shared, bad)
    assert [field for field, _ in told] == ["llama.block_count", "llama.context_length"]
    assert told[0][1] == error.details()
    assert "(rule M2)" in told[1][1]
    metadata = read_refusal(error).metadata
    assert (metadata["rule"], metadata["field"]) == ("M1", "llama.block_count")


async def test_what_has_no_room_in_the_answer_is_counted(shared: Scene) -> None:
    """Clients take 8 KiB of headers, in which all of it travels."""
    keys = [f"{index:03}" + "k" * 240 for index in range(60)]
    twice = tuple(counted(key.encode()) + u32(1) for key in keys for _ in range(2))
    error, told = await violations(shared, Gguf().but(extra=twice))
    assert 5 < len(told) < 21
    assert told[-1][1].endswith(f"And {60 - len(told)} more.")
    sent_bytes = sum(len(key) + len(value) for key, value in error.trailing_metadata() or ())
    assert sent_bytes < 6000

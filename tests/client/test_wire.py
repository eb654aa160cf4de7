"""Chunk messages written by hand are those that protobuf reads.

Breaks when: a tag, a length or the checksum is written wrongly, or a number of the proto changes its kind.
"""

from __future__ import annotations

import pytest
from model_ingest._wire import chunk_message, serialised
from model_ingest.v1.ingest_service_pb2 import UploadChunk, UploadFinish, UploadRequest


@pytest.mark.parametrize("offset", [0, 1, 127, 128, 16_383, 16_384, 2**32, 2**40 + 7, 2**63 - 1])
@pytest.mark.parametrize("length", [0, 1, 100, 127, 128, 20_000, 2 * 1024 * 1024])
def test_a_chunk_says_what_protobuf_would_have_said(offset: int, length: int):
    data = bytes(range(256)) * (length // 256) + bytes(length % 256)
    expected = UploadRequest(chunk=UploadChunk(offset=offset, data=data, crc32c=0x89ABCDEF))
    message = chunk_message(offset, data, 0x89ABCDEF)
    assert UploadRequest.FromString(message) == expected
    assert message.endswith(data)


def test_a_checksum_of_zero_is_there():
    assert UploadRequest.FromString(chunk_message(5, b"x", 0)).chunk.HasField("crc32c")


def test_messages_are_serialised_and_bytes_are_let_through():
    finish = UploadRequest(finish=UploadFinish(sha256="sha256:00"))
    assert serialised(finish) == finish.SerializeToString()
    message = chunk_message(0, b"abc", 1)
    assert serialised(message) is message

"""The fast reader of upload messages reads what protobuf reads, and refuses what protobuf refuses."""

from __future__ import annotations

import random

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from model_ingest.v1.ingest_service_pb2 import UploadChunk, UploadFinish, UploadRequest, UploadStart

from ingest_service.rpc.undecodable import UndecodableMessage
from ingest_service.rpc.upload_message import Chunk, chunk_of, read_upload_message

_LARGE = random.Random(1).randbytes(20_000)
_INT64 = st.integers(-(2**63), 2**63 - 1)
_DATA = st.one_of(st.binary(max_size=40), st.integers(16_000, 20_000).map(lambda size: _LARGE[:size]))
_CRC32C = st.none() | st.integers(0, 2**32 - 1)


def varint(value: int, padding: int = 0) -> bytes:
    """The number; with padding, in more bytes than it needs."""
    out = bytearray()
    while value >= 0x80 or padding:
        out.append(value & 0x7F | 0x80)
        padding -= value < 0x80
        value >>= 7
    return bytes([*out, value])


#: Pieces of wire format, put together in any order, twice, with lengths in unusual forms.
_FIELDS = st.one_of(
    st.builds(lambda value, pad: b"\x08" + varint(value, pad), st.integers(0, 2**64 - 1), st.integers(0, 3)),
    st.builds(lambda data, pad: b"\x12" + varint(len(data), pad) + data, _DATA, st.integers(0, 4)),
    st.builds(lambda data: b"\x1d" + data, st.binary(min_size=0, max_size=5)),
    st.builds(lambda number, data: varint(number) + data, st.integers(0, 64), st.binary(max_size=9)),
)
_CHUNKS = st.builds(
    lambda parts, pad: b"\x12" + varint(sum(map(len, parts)), pad) + b"".join(parts),
    st.lists(_FIELDS, max_size=4),
    st.integers(0, 5),
)
_MESSAGES = st.builds(
    lambda before, chunk, after: before + chunk + after,
    st.sampled_from([b"", b"", b"\x0a\x00", b"\x1a\x00", b"\x38\x01"]),
    _CHUNKS,
    st.sampled_from([b"", b"", b"\x0a\x00", b"\x12\x00", b"\x1a\x00", b"\x38\x01", b"\x12", b"\x00"]),
)


def judged(message: bytes) -> Chunk | bytes | None:
    """What protobuf reads: a chunk, another message (as it writes it), None for none."""
    try:
        request = UploadRequest.FromString(message)
    except DecodeError:
        return None
    return chunk_of(request) if request.WhichOneof("message") == "chunk" else request.SerializeToString()


def read(message: bytes) -> Chunk | bytes | None:
    """What our reader reads, in the same terms."""
    try:
        request = read_upload_message(message)
    except (DecodeError, UndecodableMessage):
        return None
    if isinstance(request, Chunk):
        return request._replace(data=bytes(request.data))
    return chunk_of(request) if request.WhichOneof("message") == "chunk" else request.SerializeToString()


@given(offset=_INT64, data=_DATA, crc32c=_CRC32C)
@settings(max_examples=60, deadline=None)
def test_every_chunk_that_protobuf_writes_is_read(offset: int, data: bytes, crc32c: int | None) -> None:
    chunk = UploadChunk(offset=offset, data=data)
    if crc32c is not None:
        chunk.crc32c = crc32c
    message = UploadRequest(chunk=chunk).SerializeToString()
    assert read(message) == judged(message) == Chunk(offset, data, crc32c)


@given(message=st.one_of(_MESSAGES, st.binary(max_size=60)))
@settings(max_examples=200, deadline=None)
@example(b"")
@example(b"\x12\x00")
@example(b"\x12\x02\x12\x00")
@example(b"\x12\x85\x00\x12\x03abc")
@example(b"\x12\x85\x80\x80\x80\x00\x12\x03abc")
@example(b"\x12\x85\x80\x80\x80\x80\x80\x80\x00\x12\x03abc")
@example(b"\x12\x0a" + b"\x12\x83\x80\x80\x80\x80\x80\x00abc")
@example(b"\x12\x0c\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
@example(b"\x12\x0d\x08" + b"\xff" * 8 + b"\x7f\x12\x01a")
@example(b"\x12\x07\x08\x00\x08\x05\x12\x01a")
@example(b"\x12\x08\x12\x01a\x1d\x01\x00\x00\x00")
@example(b"\x12\x07\x12\x01a\x1d\x01\x00\x00")
@example(b"\x12\x0a\x12\x01a\x1d\x01\x00\x00\x00\x08\x05")
@example(b"\x12\x0d\x12\x01a\x1d\x01\x00\x00\x00\x1d\x02\x00\x00\x00")
@example(b"\x12\x06\x12\x01a\x12\x01b")
@example(b"\x12\x03\x12\x01a\x1a\x00")
@example(b"\x12\x05\x12\x04ab")
def test_any_bytes_mean_what_they_mean_to_protobuf(message: bytes) -> None:
    assert read(message) == judged(message)


@given(
    chunk=st.builds(UploadChunk, offset=_INT64, data=_DATA, crc32c=_CRC32C),
    at=st.integers(0, 40),
    byte=st.integers(0, 255),
)
@settings(max_examples=100, deadline=None)
def test_a_changed_byte_means_what_it_means_to_protobuf(chunk: UploadChunk, at: int, byte: int) -> None:
    message = bytearray(UploadRequest(chunk=chunk).SerializeToString())
    message[at % len(message)] = byte
    assert read(bytes(message)) == judged(bytes(message))
    assert read(bytes(message[:at])) == judged(bytes(message[:at]))


def test_a_large_chunk_is_not_copied_and_a_small_one_keeps_nothing_else_alive() -> None:
    message = UploadRequest(chunk=UploadChunk(offset=5, data=_LARGE, crc32c=7)).SerializeToString()
    large = read_upload_message(message)
    assert isinstance(large, Chunk)
    assert isinstance(large.data, memoryview)
    assert large.data.obj is message
    small = read_upload_message(UploadRequest(chunk=UploadChunk(data=b"x")).SerializeToString())
    assert small == Chunk(0, b"x", None)
    assert isinstance(small, Chunk)
    assert isinstance(small.data, bytes)


@pytest.mark.parametrize(
    "request_",
    [UploadRequest(start=UploadStart(file="x")), UploadRequest(finish=UploadFinish()), UploadRequest()],
)
def test_other_messages_are_protobufs(request_: UploadRequest) -> None:
    assert read_upload_message(request_.SerializeToString()) == request_

"""Reads one message of an Upload; a chunk without copying its bytes.

protobuf copies them into its own memory, and copies them again when they are asked for. A chunk in the shape
in which every client's library writes it is taken apart here, and its bytes are a view into the message. All
else (other messages, odd orders, unknown or repeated fields, broken ones) is protobuf's to judge: whatever is
taken here, protobuf takes too and reads the same (tests/rpc/test_upload_message.py).
"""

from __future__ import annotations

from typing import NamedTuple

from model_ingest.v1.ingest_service_pb2 import UploadRequest

from ingest_service.rpc.wire_scan import check_counts

_TYPE = UploadRequest.DESCRIPTOR.full_name
# Field number and wire type, as the proto has them.
_CHUNK = 0x12
_OFFSET = 0x08
_DATA = 0x12
_CRC32C = 0x1D
_CRC32C_BYTES = 5
#: A view costs some hundred bytes of its own and keeps the whole message: small ones are copied.
_LEAST_VIEW_BYTES = 16 * 1024
#: With this many bytes a varint is below 2**63 in any case.
_MAX_OFFSET_BYTES = 9
#: No message that is let in is longer than four of them say.
_MAX_SIZE_BYTES = 4


class Chunk(NamedTuple):
    """UploadChunk, with its bytes where they arrived."""

    offset: int
    data: bytes | memoryview
    crc32c: int | None


#: What a handler of `Upload` gets.
UploadMessage = Chunk | UploadRequest


def read_upload_message(message: bytes) -> UploadMessage:
    """The chunk, or what protobuf makes of it.

    Raises what protobuf raises, and what `check_counts` raises for a `start` that holds too much.
    """
    chunk = _chunk(message)
    if chunk is not None:
        return chunk
    check_counts(message, _TYPE)
    return UploadRequest.FromString(message)


def chunk_of(request: UploadRequest) -> Chunk:
    """The same from protobuf's message."""
    chunk = request.chunk
    # `chunk.data` copies its bytes at each access (peers.md P8): it is read once.
    return Chunk(chunk.offset, chunk.data, chunk.crc32c if chunk.HasField("crc32c") else None)


def _chunk(message: bytes) -> Chunk | None:
    """`chunk { offset? data crc32c? }`, in this order and nothing else; None for any other bytes."""
    end = len(message)
    offset = 0
    crc32c = None
    try:
        size_bytes, at = _varint(message, 1, _MAX_SIZE_BYTES)
        if message[0] != _CHUNK or at + size_bytes != end:
            return None
        if message[at] == _OFFSET:
            offset, at = _varint(message, at + 1, _MAX_OFFSET_BYTES)
        if message[at] != _DATA:
            return None
        size_bytes, start = _varint(message, at + 1, _MAX_SIZE_BYTES)
        at = start + size_bytes
        if at != end:
            if at + _CRC32C_BYTES != end or message[at] != _CRC32C:
                return None
            crc32c = int.from_bytes(message[at + 1 :], "little")
    except (IndexError, ValueError):
        return None
    if size_bytes < _LEAST_VIEW_BYTES:
        return Chunk(offset, message[start:at], crc32c)
    return Chunk(offset, memoryview(message)[start:at], crc32c)


def _varint(message: bytes, at: int, most_bytes: int) -> tuple[int, int]:
    """The number there and where it ends. Raises IndexError, and ValueError for an unusually long one."""
    value = 0
    for number in range(most_bytes):
        byte = message[at + number]
        value |= (byte & 0x7F) << (7 * number)
        if byte < 0x80:
            return value, at + number + 1
    raise ValueError

"""The bytes of an upload's chunk message, put together with one copy of the data and off the loop.

protobuf copies the data when it is set, again when one message is put into another, and again when it is
serialised, all on the event loop's thread. Here the few bytes before the data are written by hand, and
the data are copied once, in the thread that reads the file (docs/performance-client.md has the figures).
"""

from __future__ import annotations

import struct
from typing import Final

from model_ingest.v1.ingest_service_pb2 import UploadChunk, UploadRequest

_VARINT, _LENGTH_DELIMITED, _FIXED32 = 0, 2, 5


def _tag(number: int, wire_type: int) -> bytes:
    # One byte holds the numbers 1 to 15; larger ones would need a varint here.
    assert 1 <= number <= 15
    return bytes([number << 3 | wire_type])


# The numbers are the proto's own: a change there changes them here as well.
_CHUNK: Final = _tag(UploadRequest.CHUNK_FIELD_NUMBER, _LENGTH_DELIMITED)
_OFFSET: Final = _tag(UploadChunk.OFFSET_FIELD_NUMBER, _VARINT)
_DATA: Final = _tag(UploadChunk.DATA_FIELD_NUMBER, _LENGTH_DELIMITED)
_CRC32C: Final = _tag(UploadChunk.CRC32C_FIELD_NUMBER, _FIXED32)


def chunk_message(offset: int, data: bytes | memoryview, crc32c: int) -> bytes:
    """A serialised `UploadRequest` with this chunk; its last bytes are the data."""
    start = _OFFSET + _varint(offset) + _CRC32C + struct.pack("<I", crc32c) + _DATA + _varint(len(data))
    return b"".join((_CHUNK, _varint(len(start) + len(data)), start, data))


def serialised(message: UploadRequest | bytes) -> bytes:
    """What grpc sends: chunks come as bytes, `start` and `finish` as messages."""
    return message if isinstance(message, bytes) else message.SerializeToString()


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)

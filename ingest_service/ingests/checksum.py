"""crc32c of a chunk's bytes."""

from __future__ import annotations

import google_crc32c

#: Stays in the CPU's own cache: copying this much costs a fraction of reading it from memory.
_PIECE_BYTES = 64 * 1024


def crc32c_of(data: bytes | memoryview) -> int:
    """Of all of it. The library takes `bytes` only, so a view is gone through in small copies."""
    if isinstance(data, bytes):
        return int(google_crc32c.value(data))
    crc = 0
    for at in range(0, len(data), _PIECE_BYTES):
        crc = google_crc32c.extend(crc, bytes(data[at : at + _PIECE_BYTES]))
    return crc

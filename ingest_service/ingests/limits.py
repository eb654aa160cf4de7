"""The limits of the domain; `config` fills them in."""

from __future__ import annotations

from dataclasses import dataclass

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What is taken, and how much of it at once."""

    max_chunk_bytes: int = 2 * MEBIBYTE
    recommended_chunk_bytes: int = MEBIBYTE
    max_file_bytes: int = 1024 * 1024 * MEBIBYTE
    #: Received-but-unwritten bytes of one upload.
    window_bytes: int = 16 * MEBIBYTE
    #: Received-but-unwritten bytes of the whole process.
    total_window_bytes: int = 256 * MEBIBYTE
    checkpoint_bytes: int = 64 * MEBIBYTE
    checkpoint_seconds: float = 5.0
    #: How long `finish` waits for the verification before it answers with what there is.
    finish_wait_seconds: float = 20.0
    #: A stream without a message for this long is ended.
    idle_seconds: float = 60.0
    #: A stream that brings fewer bytes than this within a minute is ended.
    min_bytes_per_minute: int = 64 * 1024
    #: How long a newcomer waits for the former writer of its file to let go.
    takeover_seconds: float = 10.0
    #: Upload calls that receive bytes at once.
    max_uploads: int = 1024
    #: Bytes of the file system that no upload may use.
    free_floor_bytes: int = 256 * MEBIBYTE
    #: Room is kept for a file whose first byte has not come for this long.
    reservation_seconds: float = 600.0
    require_digest: bool = True
    #: Take the create option `from`, whose race is documented in resources.proto.
    allow_from: bool = False
    #: Take sets of safetensors: docs/formats.md tells of the risk.
    allow_safetensors: bool = False

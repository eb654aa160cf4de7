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
    require_digest: bool = True

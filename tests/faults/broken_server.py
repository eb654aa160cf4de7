"""The service with one of its safeguards taken out: `python -m tests.faults.broken_server`, for the controls.

BROKEN names what is taken out, from outside. Whatever proof is to see a fault must see these.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ingest_service.__main__ import main
from ingest_service.ingests.recovery import Recovery
from ingest_service.ingests.session import UploadSession
from ingest_service.storage.local_partial import LocalPartial


def syncs_nothing() -> None:
    """fdatasync and fsync say "done" and do nothing."""
    os.fdatasync = os.fsync = lambda descriptor: None  # type: ignore[assignment]


def ignores_failed_syncs() -> None:
    """A failed fdatasync counts as done."""
    _on_failure("fdatasync", lambda call, *arguments: None)


def repeats_failed_syncs() -> None:
    """A failed fdatasync is asked again, and then says "done" about bytes that may be gone."""
    _on_failure("fdatasync", lambda call, *arguments: call(*arguments))


def ignores_failed_writes() -> None:
    """A failed write counts as done."""
    _on_failure("pwritev", lambda call, descriptor, views, offset: sum(map(len, views)))


def acknowledges_before_writing() -> None:
    """Chunks are hashed and said to be durable; they lie in the process only."""

    async def write(self: LocalPartial, offset: int, buffers: Sequence[Any]) -> None:
        pass

    LocalPartial.write = write  # type: ignore[method-assign]


def boots_without_the_size_check() -> None:
    """A partial that is shorter than its committed size is taken for as long."""

    async def make_resumable(self: Recovery, file: Any, partial: Any) -> None:
        if partial is not None:
            await partial.truncate(file.committed_size)

    Recovery._make_resumable = make_resumable  # type: ignore[method-assign]


def looks_at_no_crc() -> None:
    """A chunk's crc32c is not compared."""
    real = UploadSession.chunk

    async def chunk(self: UploadSession, offset: int, data: bytes | memoryview, crc32c: int | None) -> None:
        await real(self, offset, data, None)

    UploadSession.chunk = chunk  # type: ignore[method-assign]


def _on_failure(name: str, instead: Callable[..., Any]) -> None:
    real = getattr(os, name)

    def call(*arguments: Any) -> Any:
        try:
            return real(*arguments)
        except OSError:
            return instead(real, *arguments)

    setattr(os, name, call)


WAYS = {
    way.__name__.replace("_", " "): way
    for way in (
        syncs_nothing,
        ignores_failed_syncs,
        repeats_failed_syncs,
        ignores_failed_writes,
        acknowledges_before_writing,
        boots_without_the_size_check,
        looks_at_no_crc,
    )
}

if __name__ == "__main__":
    WAYS[os.environ.pop("BROKEN")]()
    sys.argv = ["ingest_service", "serve"]
    raise SystemExit(main())

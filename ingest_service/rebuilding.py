"""`python -m ingest_service rebuild`: names from the command line, the work, and what is said of it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from ingest_service.app import Service
from ingest_service.ingests.names import parse_model_name
from ingest_service.ingests.rebuild import Progress, RebuildReport, Told
from ingest_service.process import StartError
from ingest_service.vocabulary.digests import parse_digest
from ingest_service.vocabulary.errors import IngestError

_Tell = Callable[[Told], None]
_ATTENTION = 1
_INTERRUPTED = 130
_MAX_NAMES_BYTES = 16 * 1024 * 1024
_PROGRESS_SECONDS = 0.25


def run(service: Service, arguments: Namespace) -> int:
    """The exit code: 0 all is listed or told as kept, 1 somebody has to look, 130 interrupted: run it again.
    Raises StartError."""
    names = _names(arguments.name, arguments.names)
    tell = _tell_json if arguments.json else _tell
    progress = _ProgressLine() if sys.stderr.isatty() and not arguments.json else None
    try:
        report = asyncio.run(_run(service, names, tell, progress or (lambda _: None)))
    except IngestError as error:
        sys.stderr.write(f"stopped: {error.message} What was listed stays; run it again.\n")
        return _ATTENTION
    finally:
        if progress is not None:
            progress.end()
    _sum_up(report, is_json=arguments.json)
    if report.is_interrupted:
        return _INTERRUPTED
    return _ATTENTION if report.needs_attention else 0


async def _run(
    service: Service,
    names: dict[str, str],
    tell: _Tell,
    on_progress: Callable[[Progress], None],
) -> RebuildReport:
    loop = asyncio.get_running_loop()
    report = RebuildReport()

    async def opened_and_rebuilt() -> None:
        store_id = await service.opened.open(alone=True)
        await service.rebuild(report, tell, on_progress).run(names)
        # Last: until all is listed, a service does not start on this database.
        await service.opened.give_store_id(store_id)

    work = asyncio.create_task(opened_and_rebuilt())
    # Before anything is opened: an interruption at any moment ends in good order.
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, work.cancel)
    try:
        await asyncio.wait({work})
        report.is_interrupted = work.cancelled()
        if not report.is_interrupted:
            work.result()
        return report
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        await service.opened.close()


def _names(given: Sequence[str], path: str | None) -> dict[str, str]:
    lines = [(f"--name {text}", text) for text in given]
    if path is not None:
        try:
            with Path(path).open(encoding="utf-8") as file:
                content = file.read(_MAX_NAMES_BYTES + 1)
        except (OSError, UnicodeError) as error:
            raise StartError(f"--names {path} cannot be read: {error}") from error
        if len(content) > _MAX_NAMES_BYTES:
            raise StartError(
                f"--names {path} is longer than {_MAX_NAMES_BYTES} bytes: give several files in turn"
            )
        for number, line in enumerate(content.splitlines(), start=1):
            if text := line.partition("#")[0].strip():
                lines.append((f"{path}, line {number}", text))
    names: dict[str, str] = {}
    for where, text in lines:
        digest, _, name = text.partition("=")
        try:
            sha256 = parse_digest(digest.strip().replace("sha256-", "sha256:", 1), field="name")
            parse_model_name(name.strip())
        except IngestError as error:
            raise StartError(f"{where}: write sha256:HEX=NAME. {error.message}") from error
        if names.setdefault(sha256, name.strip()) != name.strip():
            raise StartError(f"{where}: {sha256} was given another name before.")
    return names


class _ProgressLine:
    """One line on a terminal, written over a few times a second."""

    def __init__(self) -> None:
        self._next = 0.0
        self._is_shown = False

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _PROGRESS_SECONDS
        self._is_shown = True
        read, total = progress.read_bytes / 1e9, progress.total_bytes / 1e9
        text = f"blob {progress.blobs + 1} of {progress.total_blobs}, {read:.1f} of {total:.1f} GB read"
        sys.stderr.write(f"\r{text}\x1b[K")
        sys.stderr.flush()

    def end(self) -> None:
        """Takes the line away."""
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")


def _tell(told: Told) -> None:
    words = [f"{told.outcome}:", told.model, *told.digests]
    words += [f"({told.size_bytes} bytes)"] if told.size_bytes else []
    detail = f": {told.detail}" if told.detail else ""
    sys.stdout.write(" ".join(word for word in words if word) + detail + "\n")


def _tell_json(told: Told) -> None:
    line = {
        "outcome": str(told.outcome),
        "model": told.model,
        "digests": list(told.digests),
        "size_bytes": told.size_bytes,
        "detail": told.detail,
    }
    sys.stdout.write(json.dumps(line) + "\n")


def _sum_up(report: RebuildReport, *, is_json: bool) -> None:
    counts = {str(outcome): count for outcome, count in report.counts.items()}
    if is_json:
        sys.stdout.write(json.dumps({"summary": counts, "is_interrupted": report.is_interrupted}) + "\n")
        return
    sys.stdout.write(", ".join(f"{count} {outcome}" for outcome, count in counts.items()) + "\n")
    if report.is_interrupted:
        sys.stderr.write("interrupted: run it again, it goes on where it was\n")

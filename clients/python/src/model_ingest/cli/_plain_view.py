"""Progress as plain lines: for logs and pipes. No escape codes."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from model_ingest._clean import printable
from model_ingest._updates import Accepted, Hashing, Moved, Update, Waiting
from model_ingest.cli._throttle import Throttle
from model_ingest.cli._view import last_word
from model_ingest.cli._words import amount, describe, goes_on, waits
from model_ingest.v1.resources_pb2 import Deployment, File, Ingest


class PlainView:
    """A line for each change of state; a progress line every 10 % or 30 s, whichever comes first."""

    def __init__(self, throttle: Throttle | None = None) -> None:
        self._throttle = throttle or Throttle()
        self._is_waiting = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def update(self, update: Update) -> None:
        """Prints what is worth a line."""
        if isinstance(update, Hashing):
            self._progress(("hash", update.file_name), "hashed", update.hashed_bytes, update.size_bytes)
        elif isinstance(update, Accepted):
            self._accepted(update.ingest)
        elif isinstance(update, Waiting):
            self._waiting(update)
        else:
            self._moved(update)

    def result(self, ingest: Ingest) -> None:
        """The last line."""
        _say(last_word(ingest))

    def _accepted(self, ingest: Ingest) -> None:
        size_bytes = sum(file.size_bytes for file in ingest.files)
        _say(f"{printable(ingest.name)}: {printable(ingest.model)} accepted, {amount(size_bytes)}")
        for file in ingest.files:
            if file.state == File.STATE_STORED:
                name, digest = printable(file.file_name), printable(file.sha256)
                _say(f"{name}: stored already as {digest}, nothing to send")
            elif file.committed_size:
                _say(goes_on(file))

    def _waiting(self, waiting: Waiting) -> None:
        # Once for each outage: a minute of tries is one piece of news.
        if not self._is_waiting:
            self._is_waiting = True
            _say(waits(waiting.file_name, waiting.error))

    def _moved(self, moved: Moved) -> None:
        self._is_waiting = False
        if moved.event is not None:
            _say(describe(moved.event))
            return
        for file in moved.ingest.files:
            if file.state == File.STATE_UPLOADING:
                self._progress(("file", file.file_name), "committed", file.committed_size, file.size_bytes)
        for deployment in moved.ingest.deployments:
            if deployment.state in {Deployment.STATE_PUSHING, Deployment.STATE_CREATING}:
                self._progress(
                    ("target", deployment.target),
                    "pushed" if deployment.state == Deployment.STATE_PUSHING else "created",
                    deployment.progress_bytes,
                    deployment.progress_total_bytes,
                )

    def _progress(self, thing: tuple[str, str], verb: str, done_bytes: int, total_bytes: int) -> None:
        if total_bytes <= 0 or not self._throttle.due((*thing, verb), done_bytes / total_bytes):
            return
        percent = 100 * done_bytes // total_bytes
        _say(f"{printable(thing[1])}: {verb} {amount(done_bytes)} of {amount(total_bytes)} ({percent} %)")


def _say(line: str) -> None:
    # Flushed: a log that is followed must not lag behind.
    print(line, flush=True)

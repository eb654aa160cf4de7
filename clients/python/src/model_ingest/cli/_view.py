"""What every way of showing progress has in common, and which one is used."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import Protocol, Self

from model_ingest._clean import printable
from model_ingest._updates import Update
from model_ingest.cli._words import moment
from model_ingest.v1.resources_pb2 import Deployment, Ingest


class View(Protocol):
    """Shows one push or watch. Entered before the first update, left before the last word."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self, update: Update) -> None:
        """Something moved."""

    def result(self, ingest: Ingest) -> None:
        """It ended well (or was accepted, with --detach)."""


def is_terminal() -> bool:
    """Whether stdout can be painted on."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def choose(*, as_json: bool) -> View:
    """JSON if asked for, bars on a terminal, else plain lines."""
    if as_json:
        from model_ingest.cli._json_view import JsonView

        return JsonView()
    if is_terminal():
        from model_ingest.cli._rich_view import RichView

        return RichView()
    from model_ingest.cli._plain_view import PlainView

    return PlainView()


def last_word(ingest: Ingest) -> str:
    """One line about an ingest that ended well, or goes on without us."""
    model, name = printable(ingest.model), printable(ingest.name)
    if not ingest.done:
        return f"accepted: {model}; the service goes on by itself (model-ingest watch {name})"
    if ingest.HasField("model_deleted_time"):
        return f"DELETED: {model} was removed from the catalog at {moment(ingest.model_deleted_time)}"
    if ingest.state == Ingest.STATE_READY:
        ready = [printable(d.target) for d in ingest.deployments if d.state == Deployment.STATE_READY]
        replaced = [printable(d.target) for d in ingest.deployments if d.state == Deployment.STATE_SUPERSEDED]
        newer = f"; a newer push replaced it on {', '.join(replaced)}" if replaced else ""
        return f"done: {model} is ready on {', '.join(ready)}{newer}"
    return f"done: {model} is stored"

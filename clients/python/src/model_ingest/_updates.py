"""What a push or a watch tells while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from model_ingest._errors import IngestError
from model_ingest.v1.resources_pb2 import Event, Ingest


@dataclass(frozen=True, slots=True)
class Hashing:
    """A file is being read for its digest before anything is sent (`declare_digest`)."""

    file_name: str
    hashed_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """The server took the ingest. `resumable`: an upload that breaks off can go on later."""

    ingest: Ingest
    resumable: bool


@dataclass(frozen=True, slots=True)
class Waiting:
    """An upload, or with no `file_name` the watch, broke off and is tried again after `delay_seconds`.

    What was committed is safe, and no event is lost.
    """

    file_name: str
    error: IngestError
    delay_seconds: float


@dataclass(frozen=True, slots=True)
class Moved:
    """Something moved at the server. `ingest` is a copy of it as it stands; no `event`: mere progress."""

    ingest: Ingest
    event: Event | None


Update = Hashing | Accepted | Waiting | Moved
OnUpdate = Callable[[Update], None]

"""Progress as one JSON object a line on stdout."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, Self

from model_ingest._errors import IngestError
from model_ingest._updates import Accepted, Hashing, Moved, Update, Waiting
from model_ingest.cli._jsonable import jsonable
from model_ingest.cli._throttle import Throttle
from model_ingest.v1.ingest_service_pb2 import DeploymentProgress, FileProgress, Progress
from model_ingest.v1.resources_pb2 import Deployment, File, Ingest


class JsonView:
    """Objects of `type` hashing, accepted, event, progress, waiting; at the end result (or error)."""

    def __init__(self) -> None:
        self._throttle = Throttle()
        self._last_progress = Progress()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def update(self, update: Update) -> None:
        """One object, or none when there is no news."""
        if isinstance(update, Hashing):
            if self._throttle.due(update.file_name, update.hashed_bytes / max(update.size_bytes, 1)):
                emit(
                    "hashing",
                    file_name=update.file_name,
                    hashed_bytes=update.hashed_bytes,
                    size_bytes=update.size_bytes,
                )
        elif isinstance(update, Waiting):
            emit(
                "waiting",
                file_name=update.file_name,
                error=error_object(update.error),
                delay_seconds=round(update.delay_seconds, 3),
            )
        elif isinstance(update, Accepted):
            emit("accepted", resumable=update.resumable, ingest=jsonable(update.ingest))
        elif update.event is not None:
            emit("event", ingest=update.ingest.name, **jsonable(update.event))
        else:
            self._progress(update)

    def result(self, ingest: Ingest) -> None:
        """The last object."""
        emit("result", exit_code=0, ingest=jsonable(ingest))

    def _progress(self, moved: Moved) -> None:
        progress = progress_of(moved.ingest)
        if progress != self._last_progress:
            self._last_progress = progress
            emit("progress", ingest=moved.ingest.name, **jsonable(progress))


def progress_of(ingest: Ingest) -> Progress:
    """What is moving in `ingest`."""
    return Progress(
        files=[
            FileProgress(file_name=f.file_name, committed_size=f.committed_size, size_bytes=f.size_bytes)
            for f in ingest.files
            if f.state in {File.STATE_UPLOADING, File.STATE_VERIFYING, File.STATE_PUBLISHING}
        ],
        deployments=[
            DeploymentProgress(
                target=d.target, state=d.state, bytes=d.progress_bytes, total_bytes=d.progress_total_bytes
            )
            for d in ingest.deployments
            if d.state in {Deployment.STATE_PUSHING, Deployment.STATE_CREATING}
        ],
    )


def emit(kind: str, **values: Any) -> None:
    """One line. ASCII only: whatever a server sends cannot steer a terminal."""
    print(json.dumps({"type": kind, **values}, ensure_ascii=True), flush=True)


def error_object(error: IngestError) -> dict[str, Any]:
    """An error for scripts."""
    return {
        "class": type(error).__name__,
        "reason": error.reason,
        "code": error.code.name if error.code is not None else "",
        "message": error.message,
        "metadata": dict(error.metadata),
        "violations": [{"field": v.field, "description": v.description} for v in error.violations],
        "next": error.diagnostics,
    }

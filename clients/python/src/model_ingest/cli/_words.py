"""States and events in a person's words. Everything here returns printable text."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from model_ingest._clean import printable
from model_ingest._errors import IngestError
from model_ingest.cli._facts import short_facts
from model_ingest.v1.errors_pb2 import Failure, Reason
from model_ingest.v1.resources_pb2 import (
    Deployment,
    DeploymentStateChange,
    DeploymentStatus,
    Event,
    File,
    FileFacts,
    FileStateChange,
    Ingest,
    IngestStateChange,
    Notice,
)

_FILE_PHASES: Final = {
    File.STATE_PENDING: "waiting",
    File.STATE_UPLOADING: "sending",
    File.STATE_VERIFYING: "verifying size and sha256",
    File.STATE_PUBLISHING: "publishing",
    File.STATE_STORED: "stored",
    File.STATE_FAILED: "failed",
}
_DEPLOYMENT_PHASES: Final = {
    Deployment.STATE_PENDING: "waiting",
    Deployment.STATE_PUSHING: "pushing the bytes",
    Deployment.STATE_CREATING: "creating the model",
    Deployment.STATE_READY: "ready",
    Deployment.STATE_FAILED: "failed",
    Deployment.STATE_CANCELLED: "cancelled",
    Deployment.STATE_SUPERSEDED: "superseded by a newer push",
    Deployment.STATE_LOST: "lost: the target has not got the model any more",
}


def shown_state(ingest: Ingest) -> str:
    """`READY`, or `DELETED` once the catalog was told to forget its model."""
    return "DELETED" if ingest.HasField("model_deleted_time") else ingest_state(ingest.state)


def ingest_state(state: Ingest.State.ValueType) -> str:
    """`READY`."""
    return _short(Ingest.State.Name(state)) if state in Ingest.State.values() else f"STATE {state}"


def file_state(state: File.State.ValueType) -> str:
    """`STORED`."""
    return _short(File.State.Name(state)) if state in File.State.values() else f"STATE {state}"


def deployment_state(state: Deployment.State.ValueType) -> str:
    """`READY`."""
    return _short(Deployment.State.Name(state)) if state in Deployment.State.values() else f"STATE {state}"


def file_phase(state: File.State.ValueType) -> str:
    """`verifying size and sha256`."""
    return _FILE_PHASES.get(state) or file_state(state)


def deployment_phase(state: Deployment.State.ValueType) -> str:
    """`pushing the bytes`."""
    return _DEPLOYMENT_PHASES.get(state) or deployment_state(state)


def amount(size_bytes: int) -> str:
    """`250.1 MB`, in powers of 1 000."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def moment(time: Timestamp) -> str:
    """`2026-01-31 12:00:05Z`; empty when it is not set."""
    return f"{time.ToDatetime(tzinfo=UTC):%Y-%m-%d %H:%M:%S}Z" if time.seconds else ""


def next_try(time: Timestamp, now: datetime | None = None) -> str:
    """`next try at 2026-01-31 12:00:05Z`, or that it is due: the server's workers may be busy."""
    is_due = time.ToDatetime(tzinfo=UTC) <= (now or datetime.now(UTC))
    return "next try is due now" if is_due else f"next try at {moment(time)}"


def why(failure: Failure) -> str:
    """`the message (REASON)`."""
    reason = Reason.Name(failure.reason) if failure.reason in Reason.values() else str(failure.reason)
    message = printable(failure.message)
    return f"{message} ({reason})" if message else reason


def goes_on(file: File) -> str:
    """`model.gguf: going on at 160.4 MB of 314.6 MB`."""
    done, whole = amount(file.committed_size), amount(file.size_bytes)
    return f"{printable(file.file_name)}: going on at {done} of {whole}"


def waits(file_name: str, error: IngestError) -> str:
    """An upload or a watch broke off, and why."""
    if not file_name:
        return f"{printable(error.message)}; trying again"
    return f"{printable(file_name)}: {printable(error.message)}; trying again, nothing committed is lost"


def describe(event: Event) -> str:
    """One line for one event."""
    kind = event.WhichOneof("kind")
    if kind is None:
        return "an event that this client does not know"
    return _DESCRIBE[kind](getattr(event, kind))


def _describe_ingest(change: IngestStateChange) -> str:
    line = f"ingest: {ingest_state(change.state).lower()}"
    return f"{line}: {why(change.failure)}" if change.HasField("failure") else line


def _describe_file(change: FileStateChange) -> str:
    line = f"{printable(change.file_name)}: {file_phase(change.state)}"
    if change.HasField("failure"):
        return f"{line}: {why(change.failure)}"
    if change.state == File.STATE_STORED:
        line += f" as {printable(change.sha256)}" if change.sha256 else ""
        line += " (the bytes were there already)" if change.deduplicated else ""
    return line


def _describe_deployment(change: DeploymentStateChange) -> str:
    target = printable(change.target)
    if change.state == Deployment.STATE_PENDING and change.HasField("failure"):
        next_try = moment(change.next_attempt_time)
        line = f"{target}: try {change.attempts} failed: {why(change.failure)}"
        return f"{line}; next try at {next_try}" if next_try else line
    line = f"{target}: {deployment_phase(change.state)}"
    if change.attempts > 1 and change.state in {Deployment.STATE_PUSHING, Deployment.STATE_CREATING}:
        line += f" (try {change.attempts})"
    return f"{line}: {why(change.failure)}" if change.HasField("failure") else line


def _describe_status(status: DeploymentStatus) -> str:
    return f"{printable(status.target)}: {printable(status.status)}"


def _describe_facts(facts: FileFacts) -> str:
    said = short_facts(facts.facts) or "no more to tell"
    return f"{printable(facts.file_name)}: the header is sound ({said})"


def _describe_notice(notice: Notice) -> str:
    return f"note: {printable(notice.message)}"


_DESCRIBE: Final[dict[str, Callable[[Any], str]]] = {
    "ingest_state": _describe_ingest,
    "file_state": _describe_file,
    "deployment_state": _describe_deployment,
    "deployment_status": _describe_status,
    "file_facts": _describe_facts,
    "notice": _describe_notice,
}


def _short(name: str) -> str:
    return name.removeprefix("STATE_")

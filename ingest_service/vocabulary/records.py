"""Frozen records of what is stored. Rows become these before they leave the database room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ingest_service.vocabulary.errors import Violation
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.states import (
    BlobState,
    DeploymentState,
    FileRole,
    FileState,
    IngestState,
    is_done,
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something failed: the reason to decide by, a sentence for a person, the reason's facts; of a file
    also what else is wrong with it.
    """

    reason: Reason
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[Violation, ...] = ()

    def alone(self) -> Failure:
        """Without what else is wrong, for where the file itself tells that."""
        return replace(self, violations=()) if self.violations else self


def failure_to_json(failure: Failure | None) -> dict[str, Any] | None:
    """A failure as plain JSON data: what its columns and its events hold."""
    if failure is None:
        return None
    data: dict[str, Any] = {
        "reason": str(failure.reason),
        "message": failure.message,
        "metadata": dict(failure.metadata),
    }
    if failure.violations:
        data["violations"] = [[one.field, one.description] for one in failure.violations]
    return data


@dataclass(frozen=True, slots=True)
class File:
    """One file of an ingest. `committed_size` counts durable bytes only."""

    id: str
    ingest_id: str
    file_name: str
    role: FileRole
    state: FileState
    size_bytes: int
    committed_size: int
    declared_sha256: str | None
    sha256: str | None
    deduplicated: bool
    writer_epoch: int
    #: When it was declared, taken by a writer, or last got durable bytes.
    progress_at: datetime
    failure: Failure | None = None
    #: An event has told what its header says.
    inspected: bool = False


@dataclass(frozen=True, slots=True)
class Deployment:
    """One ingest on one target. The row is the job (design.md section 5)."""

    id: str
    ingest_id: str
    target: str
    state: DeploymentState
    attempts: int = 0
    fencing: int = 0
    next_attempt_at: datetime | None = None
    retry_until: datetime | None = None
    failure: Failure | None = None
    status: str = ""
    status_events: int = 0
    progress_bytes: int = 0
    progress_total_bytes: int = 0
    target_version: str = ""
    layer_digest: str = ""
    manifest_digest: str = ""
    #: What the target's `show` said before create was sent: {"modified_at": ...} or {} for "absent";
    #: None when create was never sent. It tells, after a cut or a restart, whether create worked.
    create_baseline: Mapping[str, str] | None = None
    cancel_requested: bool = False
    #: When the target said to DeleteModel that it has not got the model; None since the last attempt.
    removed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Ingest:
    """One request to bring one named model in, with its files and deployments."""

    id: str
    model: str
    canonical_model: str
    state: IngestState
    files: tuple[File, ...]
    deployments: tuple[Deployment, ...]
    options: Mapping[str, Any]
    request_id: str | None
    request_fingerprint: str | None
    last_sequence: int
    created_at: datetime
    updated_at: datetime
    failure: Failure | None = None
    #: When the catalog was told to forget it: it is history, and its files may be gone.
    deleted_at: datetime | None = None

    @property
    def done(self) -> bool:
        """Nothing will change any more by itself."""
        return is_done(self.state)

    def file_named(self, file_name: str) -> File | None:
        """The file of that name, if there is one."""
        return next((file for file in self.files if file.file_name == file_name), None)


@dataclass(frozen=True, slots=True)
class Event:
    """One row of an ingest's history, numbered from 1 without gaps. `body` is plain JSON data."""

    ingest_id: str
    sequence: int
    created_at: datetime
    kind: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that has no number yet."""

    kind: str
    body: Mapping[str, Any]


#: The fact of a shard that holds digests of its tensors' names; it is told to nobody outside the service.
TENSOR_NAMES = "tensor_names"


@dataclass(frozen=True, slots=True)
class Inspection:
    """What reading a file's whole header came to: it broke no rule of that version."""

    format: str
    rules_version: int
    #: Plain JSON data; see `formats.gguf.facts` for the names.
    facts: Mapping[str, Any]
    #: What is unusual, one sentence each.
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Blob:
    """Content-addressed, immutable bytes."""

    sha256: str
    size_bytes: int
    state: BlobState
    format: str
    created_at: datetime
    #: The version of the format rules that accepted it; 0: none that read its whole header.
    rules_version: int = 0
    facts: Mapping[str, Any] | None = None
    #: When its bytes were last read again and had its digest.
    verified_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """What the catalog lists under one canonical name: its newest stored ingest and earlier digests."""

    canonical_model: str
    newest: Ingest
    stored_at: datetime
    earlier_digests: tuple[str, ...]
    #: The blobs of its files, by digest.
    blobs: Mapping[str, Blob]
    #: The newest word about each target, over all ingests of the name that the catalog knows.
    deployments: tuple[Deployment, ...]

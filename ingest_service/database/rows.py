"""Rows to records and back. Nothing of SQLAlchemy leaves the database room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import RowMapping as Row

from ingest_service.vocabulary.errors import Violation
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.records import Blob, Deployment, Event, Failure, File, Ingest, failure_to_json
from ingest_service.vocabulary.states import BlobState, DeploymentState, FileRole, FileState, IngestState


def failure_from_json(data: Mapping[str, Any] | None) -> Failure | None:
    """The inverse of `failure_to_json`."""
    if data is None:
        return None
    violations = tuple(Violation(*one) for one in data.get("violations", ()))
    return Failure(Reason(data["reason"]), data["message"], data["metadata"], violations)


def file_from_row(row: Row) -> File:
    return File(
        id=row["id"],
        ingest_id=row["ingest_id"],
        file_name=row["file_name"],
        role=FileRole(row["role"]),
        state=FileState(row["state"]),
        size_bytes=row["size_bytes"],
        committed_size=row["committed_size"],
        declared_sha256=row["declared_sha256"],
        sha256=row["sha256"],
        deduplicated=row["deduplicated"],
        writer_epoch=row["writer_epoch"],
        progress_at=row["progress_at"],
        failure=failure_from_json(row["failure"]),
        inspected=row["inspected"],
    )


def deployment_from_row(row: Row) -> Deployment:
    return Deployment(
        id=row["id"],
        ingest_id=row["ingest_id"],
        target=row["target"],
        state=DeploymentState(row["state"]),
        attempts=row["attempts"],
        fencing=row["fencing"],
        next_attempt_at=row["next_attempt_at"],
        retry_until=row["retry_until"],
        failure=failure_from_json(row["failure"]),
        status=row["status"],
        status_events=row["status_events"],
        progress_bytes=row["progress_bytes"],
        progress_total_bytes=row["progress_total_bytes"],
        target_version=row["target_version"],
        layer_digest=row["layer_digest"],
        manifest_digest=row["manifest_digest"],
        create_baseline=row["create_baseline"],
        cancel_requested=row["cancel_requested"],
        removed_at=row["removed_at"],
    )


def ingest_from_rows(row: Row, files: Sequence[File], deployments: Sequence[Deployment]) -> Ingest:
    return Ingest(
        id=row["id"],
        model=row["model"],
        canonical_model=row["canonical_model"],
        state=IngestState(row["state"]),
        files=tuple(files),
        deployments=tuple(deployments),
        options=row["options"],
        request_id=row["request_id"],
        request_fingerprint=row["request_fingerprint"],
        last_sequence=row["last_sequence"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        failure=failure_from_json(row["failure"]),
        deleted_at=row["deleted_at"],
    )


def event_from_row(row: Row) -> Event:
    return Event(
        ingest_id=row["ingest_id"],
        sequence=row["sequence"],
        created_at=row["created_at"],
        kind=row["kind"],
        body=row["body"],
    )


def blob_from_row(row: Row) -> Blob:
    return Blob(
        sha256=row["sha256"],
        size_bytes=row["size_bytes"],
        state=BlobState(row["state"]),
        format=row["format"],
        created_at=row["created_at"],
        rules_version=row["rules_version"],
        facts=row["facts"],
        verified_at=row["verified_at"],
    )


def file_values(file: File) -> dict[str, Any]:
    """Column values of a file, `position` aside."""
    return {
        "id": file.id,
        "ingest_id": file.ingest_id,
        "file_name": file.file_name,
        "role": str(file.role),
        "state": str(file.state),
        "size_bytes": file.size_bytes,
        "committed_size": file.committed_size,
        "declared_sha256": file.declared_sha256,
        "sha256": file.sha256,
        "deduplicated": file.deduplicated,
        "writer_epoch": file.writer_epoch,
        "progress_at": file.progress_at,
        "failure": failure_to_json(file.failure),
        "inspected": file.inspected,
    }


def deployment_values(deployment: Deployment) -> dict[str, Any]:
    """Column values of a deployment, `position` and its lease aside."""
    return {
        "id": deployment.id,
        "ingest_id": deployment.ingest_id,
        "target": deployment.target,
        "state": str(deployment.state),
        "attempts": deployment.attempts,
        "fencing": deployment.fencing,
        "next_attempt_at": deployment.next_attempt_at,
        "retry_until": deployment.retry_until,
        "failure": failure_to_json(deployment.failure),
        "status": deployment.status,
        "status_events": deployment.status_events,
        "progress_bytes": deployment.progress_bytes,
        "progress_total_bytes": deployment.progress_total_bytes,
        "target_version": deployment.target_version,
        "layer_digest": deployment.layer_digest,
        "manifest_digest": deployment.manifest_digest,
        "create_baseline": None if deployment.create_baseline is None else dict(deployment.create_baseline),
        "cancel_requested": deployment.cancel_requested,
        "removed_at": deployment.removed_at,
    }


def ingest_values(ingest: Ingest) -> dict[str, Any]:
    """Column values of an ingest, `number` and `stored_at` aside."""
    return {
        "id": ingest.id,
        "model": ingest.model,
        "canonical_model": ingest.canonical_model,
        "state": str(ingest.state),
        "options": dict(ingest.options),
        "request_id": ingest.request_id,
        "request_fingerprint": ingest.request_fingerprint,
        "last_sequence": ingest.last_sequence,
        "failure": failure_to_json(ingest.failure),
        "created_at": ingest.created_at,
        "updated_at": ingest.updated_at,
        "deleted_at": ingest.deleted_at,
    }


def changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Only what differs: a save must not undo what another transaction wrote to other columns."""
    return {name: value for name, value in after.items() if before[name] != value}

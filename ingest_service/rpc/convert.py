"""Records to messages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from model_ingest.v1 import catalog_service_pb2, errors_pb2, ingest_service_pb2, resources_pb2

from ingest_service.events import Heartbeat, WatchItem
from ingest_service.forwarding import TargetStatus
from ingest_service.ingests.model_facts import facts_of
from ingest_service.ingests.removal import Deleted
from ingest_service.ingests.verify import FileRead, VerifyItem
from ingest_service.lifecycle import bodies
from ingest_service.rpc.names import file_name, ingest_name
from ingest_service.vocabulary.records import (
    TENSOR_NAMES,
    Blob,
    Deployment,
    Event,
    Failure,
    File,
    Ingest,
    Model,
)
from ingest_service.vocabulary.states import DEPLOYMENT_MOVING, BlobState, FileState

_FILE_PROGRESS = frozenset({FileState.UPLOADING, FileState.VERIFYING, FileState.PUBLISHING})
#: Of all files of one model together; a message has at most 4 MiB, and the model says the first ones' again.
_MAX_FACTS_BYTES = 2 << 20


def timestamp(moment: datetime | None) -> Timestamp | None:
    """A moment, or nothing."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def failure_message(failure: Failure | None) -> errors_pb2.Failure | None:
    """A failure, or nothing."""
    if failure is None:
        return None
    return errors_pb2.Failure(
        reason=errors_pb2.Reason.Value(str(failure.reason)),
        message=failure.message,
        metadata=failure.metadata,
        violations=[
            errors_pb2.Failure.Violation(field=one.field, description=one.description)
            for one in failure.violations
        ],
    )


def file_message(file: File) -> resources_pb2.File:
    """A file."""
    return resources_pb2.File(
        name=file_name(file.ingest_id, file.file_name),
        file_name=file.file_name,
        role=resources_pb2.File.Role.Value(f"ROLE_{file.role}"),
        state=resources_pb2.File.State.Value(f"STATE_{file.state}"),
        size_bytes=file.size_bytes,
        committed_size=file.committed_size,
        sha256=file.sha256 or file.declared_sha256 or "",
        deduplicated=file.deduplicated,
        failure=failure_message(file.failure),
    )


def deployment_message(deployment: Deployment) -> resources_pb2.Deployment:
    """A deployment."""
    return resources_pb2.Deployment(
        target=deployment.target,
        state=resources_pb2.Deployment.State.Value(f"STATE_{deployment.state}"),
        attempts=deployment.attempts,
        next_attempt_time=timestamp(deployment.next_attempt_at),
        failure=failure_message(deployment.failure),
        status=deployment.status,
        progress_bytes=deployment.progress_bytes,
        progress_total_bytes=deployment.progress_total_bytes,
        target_version=deployment.target_version,
        layer_digest=deployment.layer_digest,
        manifest_digest=deployment.manifest_digest,
    )


def ingest_message(ingest: Ingest, *, with_options: bool = True) -> resources_pb2.Ingest:
    """An ingest."""
    has_options = with_options and bool(ingest.options)
    return resources_pb2.Ingest(
        name=ingest_name(ingest.id),
        model=ingest.model,
        state=resources_pb2.Ingest.State.Value(f"STATE_{ingest.state}"),
        done=ingest.done,
        failure=failure_message(ingest.failure),
        files=[file_message(file) for file in ingest.files],
        deployments=[deployment_message(deployment) for deployment in ingest.deployments],
        options=ParseDict(dict(ingest.options), resources_pb2.CreateOptions()) if has_options else None,
        last_sequence=ingest.last_sequence,
        request_id=ingest.request_id or "",
        create_time=timestamp(ingest.created_at),
        update_time=timestamp(ingest.updated_at),
        model_deleted_time=timestamp(ingest.deleted_at),
    )


def model_message(model: Model, *, listed: bool = False) -> resources_pb2.Model:
    """A model of the catalog; `listed` is one of many, and says less. A thousand shards may say more than a
    message holds: the last say nothing."""
    files, left = [], 0 if listed else _MAX_FACTS_BYTES
    facts = facts_of(model)
    for file in model.newest.files:
        message = resources_pb2.StoredFile(
            file_name=file.file_name,
            role=resources_pb2.File.Role.Value(f"ROLE_{file.role}"),
            sha256=file.sha256 or "",
            size_bytes=file.size_bytes,
            **_of_blob(model.blobs.get(file.sha256 or "")),
        )
        left -= message.facts.ByteSize()
        if left < 0:
            message.ClearField("facts")
        files.append(message)
    return resources_pb2.Model(
        name=f"models/{model.canonical_model}",
        display_name=model.newest.model,
        ingest=ingest_name(model.newest.id),
        files=files,
        deployments=[deployment_message(deployment) for deployment in model.deployments],
        earlier_digests=model.earlier_digests,
        size_bytes=sum(file.size_bytes for file in model.newest.files),
        store_time=timestamp(model.stored_at),
        facts=_struct(bodies.without_templates(facts) if listed else facts),
    )


def deleted_message(deleted: Deleted) -> catalog_service_pb2.DeleteModelResponse:
    """What DeleteModel did."""
    removals = [
        catalog_service_pb2.DeleteModelResponse.TargetRemoval(target=name, removed=had_it)
        for name, had_it in deleted.removed.items()
    ]
    model = None if deleted.model is None else model_message(deleted.model)
    return catalog_service_pb2.DeleteModelResponse(model=model, targets=removals)


def _of_blob(blob: Blob | None) -> dict[str, Any]:
    if blob is None:
        return {}
    return {
        "format": blob.format,
        "facts": _struct(blob.facts),
        "corrupt": blob.state is BlobState.CORRUPT,
        "verify_time": timestamp(blob.verified_at),
    }


def _struct(facts: Mapping[str, Any] | None) -> Struct | None:
    told = {key: value for key, value in (facts or {}).items() if key != TENSOR_NAMES}
    return ParseDict(told, Struct()) if told else None


def watch_message(item: WatchItem, now: datetime) -> ingest_service_pb2.WatchIngestResponse:
    """An item of a watch."""
    if isinstance(item, Event):
        return ingest_service_pb2.WatchIngestResponse(event=event_message(item))
    if isinstance(item, Heartbeat):
        heartbeat = ingest_service_pb2.Heartbeat(last_sequence=item.last_sequence, time=timestamp(now))
        return ingest_service_pb2.WatchIngestResponse(heartbeat=heartbeat)
    return ingest_service_pb2.WatchIngestResponse(progress=progress_message(item))


def progress_message(ingest: Ingest) -> ingest_service_pb2.Progress:
    """Where the moving parts of an ingest are."""
    return ingest_service_pb2.Progress(
        files=[
            ingest_service_pb2.FileProgress(
                file_name=file.file_name, committed_size=file.committed_size, size_bytes=file.size_bytes
            )
            for file in ingest.files
            if file.state in _FILE_PROGRESS
        ],
        deployments=[
            ingest_service_pb2.DeploymentProgress(
                target=deployment.target,
                state=resources_pb2.Deployment.State.Value(f"STATE_{deployment.state}"),
                bytes=deployment.progress_bytes,
                total_bytes=deployment.progress_total_bytes,
            )
            for deployment in ingest.deployments
            if deployment.state in DEPLOYMENT_MOVING
        ],
    )


def event_message(event: Event) -> resources_pb2.Event:
    """An event, from the plain data of its row."""
    message = resources_pb2.Event(sequence=event.sequence, create_time=timestamp(event.created_at))
    body = event.body
    if event.kind == bodies.INGEST_STATE:
        message.ingest_state.CopyFrom(
            resources_pb2.IngestStateChange(
                state=resources_pb2.Ingest.State.Value(f"STATE_{body['state']}"),
                done=body["done"],
                failure=_stored_failure(body["failure"]),
            )
        )
    elif event.kind == bodies.FILE_STATE:
        message.file_state.CopyFrom(
            resources_pb2.FileStateChange(
                file_name=body["file_name"],
                state=resources_pb2.File.State.Value(f"STATE_{body['state']}"),
                committed_size=body["committed_size"],
                sha256=body["sha256"],
                deduplicated=body["deduplicated"],
                failure=_stored_failure(body["failure"]),
            )
        )
    elif event.kind == bodies.DEPLOYMENT_STATE:
        due = body["next_attempt_at"]
        message.deployment_state.CopyFrom(
            resources_pb2.DeploymentStateChange(
                target=body["target"],
                state=resources_pb2.Deployment.State.Value(f"STATE_{body['state']}"),
                attempts=body["attempts"],
                failure=_stored_failure(body["failure"]),
                next_attempt_time=timestamp(None if due is None else datetime.fromisoformat(due)),
            )
        )
    elif event.kind == bodies.DEPLOYMENT_STATUS:
        message.deployment_status.CopyFrom(
            resources_pb2.DeploymentStatus(target=body["target"], status=body["status"])
        )
    elif event.kind == bodies.FILE_FACTS:
        message.file_facts.CopyFrom(
            resources_pb2.FileFacts(file_name=body["file_name"], facts=_struct(body["facts"]))
        )
    else:
        message.notice.CopyFrom(resources_pb2.Notice(message=str(body.get("message", event.kind))))
    return message


def _stored_failure(body: Mapping[str, Any] | None) -> errors_pb2.Failure | None:
    if body is None:
        return None
    return errors_pb2.Failure(
        reason=errors_pb2.Reason.Value(body["reason"]), message=body["message"], metadata=body["metadata"]
    )


def target_message(status: TargetStatus) -> resources_pb2.Target:
    """A target, as it answered just now."""
    latency = Duration()
    latency.FromTimedelta(timedelta(seconds=status.latency_seconds))
    return resources_pb2.Target(
        name=f"targets/{status.name}",
        reachable=status.reachable,
        version=status.version,
        message=status.words,
        check_time=timestamp(status.checked_at),
        latency=latency,
    )


def verify_message(item: VerifyItem) -> catalog_service_pb2.VerifyModelResponse:
    """An item of a verification."""
    if isinstance(item, FileRead):
        return catalog_service_pb2.VerifyModelResponse(
            file_name=item.file_name, verified_bytes=item.verified_bytes, size_bytes=item.size_bytes
        )
    return catalog_service_pb2.VerifyModelResponse(
        targets=[
            catalog_service_pb2.VerifyModelResponse.TargetVerdict(
                target=one.target, present=one.present, message=one.words, unknown=one.unknown
            )
            for one in item.verdicts
        ]
    )

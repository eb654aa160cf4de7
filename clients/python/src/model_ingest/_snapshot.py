"""Keeps an Ingest up to date with what a watch tells."""

from __future__ import annotations

from typing import TypeVar

from model_ingest.v1.errors_pb2 import Failure
from model_ingest.v1.ingest_service_pb2 import Progress, WatchIngestResponse
from model_ingest.v1.resources_pb2 import (
    Deployment,
    DeploymentStateChange,
    Event,
    File,
    FileStateChange,
    Ingest,
    IngestStateChange,
)

_Failing = TypeVar("_Failing", Ingest, File, Deployment)


def apply(ingest: Ingest, response: WatchIngestResponse) -> None:
    """Brings `ingest` to where the message says it stands. Events already known change nothing."""
    if response.HasField("event"):
        if response.event.sequence > ingest.last_sequence:
            ingest.last_sequence = response.event.sequence
            _apply_event(ingest, response.event)
    elif response.HasField("progress"):
        _apply_progress(ingest, response.progress)


def _apply_event(ingest: Ingest, event: Event) -> None:
    ingest.update_time.CopyFrom(event.create_time)
    if event.HasField("ingest_state"):
        _change_ingest(ingest, event.ingest_state)
    elif event.HasField("file_state"):
        for file in ingest.files:
            if file.file_name == event.file_state.file_name:
                _change_file(file, event.file_state)
    elif event.HasField("deployment_state"):
        _change_deployment(_deployment(ingest, event.deployment_state.target), event.deployment_state)
    elif event.HasField("deployment_status"):
        _deployment(ingest, event.deployment_status.target).status = event.deployment_status.status


def _change_ingest(ingest: Ingest, change: IngestStateChange) -> None:
    ingest.state = change.state
    ingest.done = change.done
    _set_failure(ingest, change.failure if change.HasField("failure") else None)


def _change_file(file: File, change: FileStateChange) -> None:
    file.state = change.state
    file.committed_size = max(file.committed_size, change.committed_size)
    file.sha256 = change.sha256 or file.sha256
    file.deduplicated = file.deduplicated or change.deduplicated
    _set_failure(file, change.failure if change.HasField("failure") else None)


def _change_deployment(deployment: Deployment, change: DeploymentStateChange) -> None:
    deployment.state = change.state
    deployment.attempts = change.attempts
    # Progress and words belong to the step that just ended.
    deployment.progress_bytes = 0
    deployment.progress_total_bytes = 0
    deployment.status = ""
    _set_failure(deployment, change.failure if change.HasField("failure") else None)
    if change.HasField("next_attempt_time"):
        deployment.next_attempt_time.CopyFrom(change.next_attempt_time)
    else:
        deployment.ClearField("next_attempt_time")


def _apply_progress(ingest: Ingest, progress: Progress) -> None:
    for moved in progress.files:
        for file in ingest.files:
            if file.file_name == moved.file_name:
                # Durable bytes never become fewer; an older report may come late.
                file.committed_size = max(file.committed_size, moved.committed_size)
    for moving in progress.deployments:
        deployment = _deployment(ingest, moving.target)
        deployment.state = moving.state or deployment.state
        deployment.progress_bytes = moving.bytes
        deployment.progress_total_bytes = moving.total_bytes


def _deployment(ingest: Ingest, target: str) -> Deployment:
    for deployment in ingest.deployments:
        if deployment.target == target:
            return deployment
    return ingest.deployments.add(target=target, state=Deployment.STATE_PENDING)


def _set_failure(of: _Failing, failure: Failure | None) -> None:
    if failure is None:
        of.ClearField("failure")
    else:
        of.failure.CopyFrom(failure)

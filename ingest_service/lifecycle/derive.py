"""The one rule by which an ingest's state follows from its files and deployments."""

from __future__ import annotations

from collections.abc import Sequence

from ingest_service.vocabulary.records import Deployment, File
from ingest_service.vocabulary.states import (
    DEPLOYMENT_FAILED,
    DEPLOYMENT_MOVING,
    DeploymentState,
    FileState,
    IngestState,
)


def derive_state(  # noqa: PLR0911 (one return for each answer)
    files: Sequence[File], deployments: Sequence[Deployment], *, cancelling: bool
) -> IngestState:
    """The state of an ingest with these parts.

    In this order: a file failed: FAILED. A file is not stored: UPLOADING. A deployment can move: FORWARDING.
    A deployment FAILED or is LOST: FAILED (what is READY elsewhere stays so). One is READY: READY; those
    SUPERSEDED do not count. Otherwise nothing was to be deployed, or all of it was superseded: STORED.

    Once a cancel was asked for: CANCELLING while something goes on that cannot be stopped (a file on the way
    to its final place, a deployment that can move), then CANCELLED.
    """
    file_states = {file.state for file in files}
    states = {deployment.state for deployment in deployments}
    if cancelling:
        goes_on = FileState.PUBLISHING in file_states or states & DEPLOYMENT_MOVING
        return IngestState.CANCELLING if goes_on else IngestState.CANCELLED
    if FileState.FAILED in file_states:
        return IngestState.FAILED
    if file_states - {FileState.STORED}:
        return IngestState.UPLOADING
    if states & DEPLOYMENT_MOVING:
        return IngestState.FORWARDING
    if DeploymentState.CANCELLED in states:
        return IngestState.CANCELLED
    if states & DEPLOYMENT_FAILED:
        return IngestState.FAILED
    return IngestState.READY if DeploymentState.READY in states else IngestState.STORED

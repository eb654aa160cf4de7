"""The one rule by which an ingest's state follows from its files and deployments."""

from __future__ import annotations

from collections.abc import Sequence

from ingest_service.vocabulary.records import Deployment, File
from ingest_service.vocabulary.states import DEPLOYMENT_MOVING, DeploymentState, FileState, IngestState


def derive_state(
    files: Sequence[File], deployments: Sequence[Deployment], *, cancelling: bool
) -> IngestState:
    """The state of an ingest with these parts.

    In this order: a file failed: FAILED. A file is not stored: UPLOADING. A deployment can move: FORWARDING,
    or CANCELLING if a cancel was asked for. A cancel was asked for: CANCELLED. A deployment failed: FAILED
    (what is READY elsewhere stays so). One is READY: READY; those SUPERSEDED do not count. Otherwise nothing
    was to be deployed, or all of it was superseded: STORED.
    """
    if any(file.state is FileState.FAILED for file in files):
        return IngestState.CANCELLED if cancelling else IngestState.FAILED
    if any(file.state is not FileState.STORED for file in files):
        return IngestState.CANCELLED if cancelling else IngestState.UPLOADING
    states = {deployment.state for deployment in deployments}
    if states & DEPLOYMENT_MOVING:
        return IngestState.CANCELLING if cancelling else IngestState.FORWARDING
    if cancelling or DeploymentState.CANCELLED in states:
        return IngestState.CANCELLED
    if DeploymentState.FAILED in states:
        return IngestState.FAILED
    return IngestState.READY if DeploymentState.READY in states else IngestState.STORED

"""States of an ingest, a file and a deployment (design.md section 2), and which of them are final."""

from __future__ import annotations

from enum import StrEnum


class IngestState(StrEnum):
    """Where an ingest stands."""

    UPLOADING = "UPLOADING"
    STORED = "STORED"
    FORWARDING = "FORWARDING"
    READY = "READY"
    FAILED = "FAILED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


class FileState(StrEnum):
    """Where one file of an ingest stands."""

    PENDING = "PENDING"
    UPLOADING = "UPLOADING"
    VERIFYING = "VERIFYING"
    PUBLISHING = "PUBLISHING"
    STORED = "STORED"
    FAILED = "FAILED"


class DeploymentState(StrEnum):
    """Where one ingest on one target stands."""

    PENDING = "PENDING"
    PUSHING = "PUSHING"
    CREATING = "CREATING"
    READY = "READY"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SUPERSEDED = "SUPERSEDED"
    LOST = "LOST"


class BlobState(StrEnum):
    """Whether a blob's bytes may be referred to. DELETING and CORRUPT count as absent."""

    LIVE = "LIVE"
    DELETING = "DELETING"
    CORRUPT = "CORRUPT"


class FileRole(StrEnum):
    """What a file is to its model."""

    MODEL = "MODEL"
    PROJECTOR = "PROJECTOR"
    ADAPTER = "ADAPTER"
    SHARD = "SHARD"
    DRAFT = "DRAFT"


#: A file in one of these can take bytes.
FILE_OPEN = frozenset({FileState.PENDING, FileState.UPLOADING})
#: A deployment in one of these can still move.
DEPLOYMENT_MOVING = frozenset({DeploymentState.PENDING, DeploymentState.PUSHING, DeploymentState.CREATING})
#: RetryIngest begins a deployment in one of these anew. LOST was READY, and the target says that it has not
#: got the model any more.
DEPLOYMENT_FAILED = frozenset({DeploymentState.FAILED, DeploymentState.LOST})
#: An ingest in one of these never moves again unless somebody asks for it. STORED is judged by its
#: deployments: see `is_done`.
INGEST_FINAL = frozenset(
    {IngestState.READY, IngestState.FAILED, IngestState.CANCELLED, IngestState.EXPIRED, IngestState.STORED}
)
#: The bytes of an ingest in one of these are all stored: the catalog may show it.
INGEST_STORED = frozenset({IngestState.STORED, IngestState.FORWARDING, IngestState.READY})


def is_done(state: IngestState) -> bool:
    """True if the ingest will not change by itself.

    STORED is only ever written when there is nothing to deploy (with targets the same transaction goes on
    to FORWARDING), so it is done as well.
    """
    return state in INGEST_FINAL

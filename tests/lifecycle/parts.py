"""Ingests in any state, with nothing beneath them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ingest_service.lifecycle import derive_state
from ingest_service.vocabulary.records import Deployment, File, Ingest
from ingest_service.vocabulary.states import DeploymentState, FileState, IngestState
from tests.database.records import deployment, file, ingest

CANCELLED_STATES = frozenset({IngestState.CANCELLING, IngestState.CANCELLED})


def made(
    files: Sequence[FileState],
    deployments: Sequence[DeploymentState] = (),
    *,
    state: IngestState | None = None,
    cancelling: bool = False,
) -> Ingest:
    """An ingest with such parts; in the state that follows from them, unless another is given."""
    parts: list[File | Deployment] = [
        *(file(of_file, file_name=f"f{index}") for index, of_file in enumerate(files)),
        *(deployment(f"t{index}", of_target) for index, of_target in enumerate(deployments)),
    ]
    one = ingest(*parts)
    own = state or derive_state(one.files, one.deployments, cancelling=cancelling)
    return replace(one, state=own)

"""An ingest's state follows from its parts: every combination of up to two files and two deployments.

The expected state is worked out anew from the sentences of design.md section 2, in another way than the
code does: by which parts hold the ingest up, not by the order of checks.
"""

from __future__ import annotations

from itertools import product

from ingest_service.lifecycle import derive_state
from ingest_service.vocabulary.states import (
    DEPLOYMENT_MOVING,
    DeploymentState,
    FileState,
    IngestState,
    is_done,
)
from tests.lifecycle.parts import made

Files = tuple[FileState, ...]
Deployments = tuple[DeploymentState, ...]

_FILES: list[Files] = [*product(FileState), *product(FileState, repeat=2)]
_DEPLOYMENTS: list[Deployments] = [(), *product(DeploymentState), *product(DeploymentState, repeat=2)]
_COMBINATIONS = list(product(_FILES, _DEPLOYMENTS))


def _derive(files: Files, deployments: Deployments, *, cancelling: bool) -> IngestState:
    one = made(files, deployments, state=IngestState.UPLOADING)
    return derive_state(one.files, one.deployments, cancelling=cancelling)


def _expected(files: Files, deployments: Deployments) -> IngestState:
    stored = [state is FileState.STORED for state in files]
    can_move = [state in DEPLOYMENT_MOVING for state in deployments]
    count = deployments.count
    # "STORED when all files are"; "a file's final failure fails its ingest".
    if not all(stored):
        return IngestState.FAILED if FileState.FAILED in files else IngestState.UPLOADING
    # "FORWARDING while a deployment can move".
    if any(can_move):
        return IngestState.FORWARDING
    # A deployment is only ever cancelled with its ingest.
    if count(DeploymentState.CANCELLED):
        return IngestState.CANCELLED
    # "FAILED when none can move and one is FAILED or LOST (the others stay READY)".
    if count(DeploymentState.FAILED) or count(DeploymentState.LOST):
        return IngestState.FAILED
    # "READY when all are READY", of those that were not superseded; "done with no target at STORED".
    wanted = len(deployments) - count(DeploymentState.SUPERSEDED)
    return IngestState.READY if wanted else IngestState.STORED


def test_every_combination() -> None:
    assert len(_COMBINATIONS) == (6 + 36) * (1 + 8 + 64)
    for files, deployments in _COMBINATIONS:
        assert _derive(files, deployments, cancelling=False) is _expected(files, deployments), (
            files,
            deployments,
        )


def test_every_combination_of_a_cancelled_ingest() -> None:
    """CANCELLING as long as anything may still change by itself, CANCELLED from then on, nothing else."""
    for files, deployments in _COMBINATIONS:
        goes_on = FileState.PUBLISHING in files or any(state in DEPLOYMENT_MOVING for state in deployments)
        expected = IngestState.CANCELLING if goes_on else IngestState.CANCELLED
        assert _derive(files, deployments, cancelling=True) is expected, (files, deployments)


def test_what_is_done_has_nothing_that_can_move_once_its_bytes_are_there() -> None:
    for files, deployments in _COMBINATIONS:
        state = _derive(files, deployments, cancelling=False)
        if is_done(state) and state is not IngestState.FAILED:
            assert set(files) <= {FileState.STORED}
            assert not set(deployments) & DEPLOYMENT_MOVING


def test_every_state_but_expired_is_reached() -> None:
    reached = {
        _derive(*parts, cancelling=cancelling) for parts in _COMBINATIONS for cancelling in (False, True)
    }
    assert reached == set(IngestState) - {IngestState.EXPIRED}

"""The first events of an ingest, for every way its files and targets may stand when it is created."""

from __future__ import annotations

import pytest

from ingest_service.lifecycle import Change
from ingest_service.vocabulary.states import DeploymentState, FileState, IngestState
from tests.database.records import later
from tests.lifecycle.parts import made

_PENDING, _STORED = FileState.PENDING, FileState.STORED
_UPLOADING = ("ingest_state", "UPLOADING", False)


@pytest.mark.parametrize(
    ("files", "targets", "told"),
    [
        ([_PENDING], 0, [_UPLOADING]),
        ([_PENDING], 2, [_UPLOADING]),
        ([_PENDING, _STORED], 1, [_UPLOADING, ("file_state", "STORED", None)]),
        ([_STORED], 0, [_UPLOADING, ("file_state", "STORED", None), ("ingest_state", "STORED", True)]),
        (
            [_STORED],
            1,
            [
                _UPLOADING,
                ("file_state", "STORED", None),
                # Passed on the way: somebody who stops at `done` must not stop here.
                ("ingest_state", "STORED", False),
                ("ingest_state", "FORWARDING", False),
            ],
        ),
    ],
)
def test_the_first_events(
    files: list[FileState], targets: int, told: list[tuple[str, str, bool | None]]
) -> None:
    one = made(files, [DeploymentState.PENDING] * targets)
    change = Change.of_new(one, later(0))
    assert [(event.kind, event.body["state"], event.body.get("done")) for event in change.events] == told
    assert change.after.state == told[-1][1] or told[-1][0] == "file_state"
    assert change.after.state is one.state
    assert change.after.state in {IngestState.UPLOADING, IngestState.STORED, IngestState.FORWARDING}

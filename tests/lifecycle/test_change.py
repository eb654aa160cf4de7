"""Every state of an ingest, its files and its deployments against every move that `Change` knows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from itertools import product

from ingest_service.lifecycle import Change, bodies, derive_state
from ingest_service.lifecycle.change import MAX_STATUS_EVENTS
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.records import Failure, Ingest, NewEvent, failure_to_json
from ingest_service.vocabulary.states import (
    DEPLOYMENT_MOVING,
    FILE_OPEN,
    DeploymentState,
    FileState,
    IngestState,
)
from tests.database.records import later
from tests.lifecycle.parts import CANCELLED_STATES, made

_FAILURE = Failure(Reason.TARGET_REFUSED, "no")
_TARGETS: list[tuple[DeploymentState, ...]] = [
    (),
    *product(DeploymentState),
    *product(DeploymentState, repeat=2),
]
#: Every ingest with one file and up to two deployments, cancelled or not.
ALL = [
    made([file], targets, cancelling=cancelling)
    for file, targets, cancelling in product(FileState, _TARGETS, (False, True))
]


def _moves(one: Ingest) -> list[Callable[[Change], object]]:
    """Every move: each file and each deployment to each state, a status, a notice, a cancel, a deletion."""
    files = [
        lambda change, part=part, state=state: change.file(part.id, state)
        for part in one.files
        for state in FileState
    ]
    failed = [lambda change, part=part: change.fail_file(part.id, _FAILURE) for part in one.files]
    deployments = [
        lambda change, part=part, state=state, due=due: change.deployment(part.id, state, next_attempt_at=due)
        for part in one.deployments
        for state in DeploymentState
        for due in (None, later(9))
    ]
    said = [lambda change, part=part: change.deployment_status(part.id, "new") for part in one.deployments]
    return [
        *files,
        *failed,
        *deployments,
        *said,
        lambda change: change.cancel(),
        lambda change: change.expire(),
        lambda change: change.notice("n"),
        lambda change: change.delete("n"),
    ]


def _told(events: list[NewEvent], kind: str) -> list[str]:
    return [event.body["state"] for event in events if event.kind == kind]


@functools.cache
def _changes() -> list[Change]:
    changes = []
    for one in ALL:
        for move in _moves(one):
            change = Change(one, later(1))
            move(change)
            changes.append(change)
    return changes


def test_there_are_as_many_as_there_should_be() -> None:
    assert len(ALL) == 6 * 73 * 2
    assert len(_changes()) > 20_000


def test_the_ingests_state_always_follows_from_its_parts() -> None:
    for change in _changes():
        after = change.after
        if after.state is IngestState.EXPIRED:
            # No parts say so: only `expire` does.
            assert IngestState.EXPIRED in _told(change.events, bodies.INGEST_STATE)
            continue
        assert after.state is derive_state(after.files, after.deployments, cancelling=change._cancelling)


def test_every_new_state_is_told_once_and_no_old_one() -> None:
    for change in _changes():
        told = _told(change.events, bodies.INGEST_STATE)
        if change.after.state is change.before.state:
            assert told == []
        else:
            assert told[-1] == change.after.state
            # STORED may be passed on the way.
            assert told[:-1] in ([], [IngestState.STORED])
        files = zip(change.before.files, change.after.files, strict=True)
        moved: list[str] = [new.state for old, new in files if old.state is not new.state]
        assert _told(change.events, bodies.FILE_STATE) == moved
        targets = zip(change.before.deployments, change.after.deployments, strict=True)
        moved = [
            new.state for old, new in targets if old.state is not new.state or new.next_attempt_at is not None
        ]
        assert _told(change.events, bodies.DEPLOYMENT_STATE) == moved


def test_parts_are_told_before_the_ingest_that_they_move() -> None:
    for change in _changes():
        kinds = [event.kind for event in change.events]
        if bodies.INGEST_STATE in kinds:
            first = kinds.index(bodies.INGEST_STATE)
            assert set(kinds[first:]) <= {bodies.INGEST_STATE, bodies.DEPLOYMENT_STATUS}


def test_the_last_word_says_whether_it_is_done_and_those_in_passing_never_do() -> None:
    for change in _changes():
        words = [event.body["done"] for event in change.events if event.kind == bodies.INGEST_STATE]
        if words:
            assert words[-1] == change.after.done
            assert not any(words[:-1])


def test_a_failed_or_cancelled_ingest_says_why_and_no_other_does() -> None:
    for change in _changes():
        words = [event for event in change.events if event.kind == bodies.INGEST_STATE]
        if not words:
            continue
        state = change.after.state
        why = change.after.failure
        assert words[-1].body["failure"] == (None if why is None else failure_to_json(why))
        if state is IngestState.CANCELLED:
            assert why is not None
            assert why.reason is Reason.UPLOAD_CLOSED
        elif state is IngestState.EXPIRED:
            assert why is not None
            assert why.reason is Reason.UPLOAD_EXPIRED
        elif state is IngestState.FAILED:
            files, targets = change.after.files, change.after.deployments
            assert why in [*(part.failure for part in files), *(part.failure for part in targets)]
        else:
            assert why is None


def test_a_cancel_stops_what_can_be_stopped_and_nothing_else() -> None:
    for one in ALL:
        change = Change(one, later(1))
        change.cancel()
        if one.done or one.state is IngestState.CANCELLING:
            assert (change.after, change.events) == (one, [])
            continue
        assert change.after.state in CANCELLED_STATES
        for old, new in zip(one.files, change.after.files, strict=True):
            closed = old.state in FILE_OPEN | {FileState.VERIFYING}
            assert new.state is (FileState.FAILED if closed else old.state)
            assert new.writer_epoch == old.writer_epoch + closed
            assert (new.failure is not None) == closed
        for before, after in zip(one.deployments, change.after.deployments, strict=True):
            waits, runs = before.state is DeploymentState.PENDING, before.state in DEPLOYMENT_MOVING
            assert after.state is (DeploymentState.CANCELLED if waits else before.state)
            assert after.cancel_requested == (runs and not waits)
        again = Change(change.after, later(2))
        again.cancel()
        assert (again.after, again.events) == (change.after, [])


def test_an_upload_that_expires_ends_its_ingest_and_whoever_writes_it() -> None:
    for one in ALL:
        change = Change(one, later(1))
        change.expire()
        if one.done:
            assert (change.after, change.events) == (one, [])
            continue
        assert (change.after.state, change.after.done) == (IngestState.EXPIRED, True)
        for old, new in zip(one.files, change.after.files, strict=True):
            given_up = old.state in FILE_OPEN
            assert new.state is (FileState.FAILED if given_up else old.state)
            assert new.writer_epoch == old.writer_epoch + given_up
        if one.files[0].state is not FileState.STORED:
            assert not any(part.state in DEPLOYMENT_MOVING for part in change.after.deployments)


def test_a_file_that_fails_closes_what_waited_for_it() -> None:
    one = made([FileState.UPLOADING], [DeploymentState.PENDING, DeploymentState.PENDING])
    change = Change(one, later(1))
    change.fail_file(one.files[0].id, _FAILURE)
    assert [part.state for part in change.after.deployments] == [DeploymentState.CANCELLED] * 2
    assert change.after.failure == _FAILURE


def test_an_expired_ingest_stays_so() -> None:
    for file, target in product(FileState, DeploymentState):
        one = replace(made([file], [target]), state=IngestState.EXPIRED)
        for move in _moves(one):
            change = Change(one, later(1))
            move(change)
            assert change.after.state is IngestState.EXPIRED


def test_a_target_that_never_stops_talking_fills_no_table() -> None:
    one = made([FileState.STORED], [DeploymentState.CREATING])
    told = 0
    for index in range(MAX_STATUS_EVENTS + 20):
        change = Change(one, later(1))
        change.deployment_status(one.deployments[0].id, f"line {index}")
        change.deployment_status(one.deployments[0].id, f"line {index}")
        told += len(change.events)
        one = change.after
    assert told == MAX_STATUS_EVENTS
    assert one.deployments[0].status == f"line {MAX_STATUS_EVENTS - 1}"


def test_a_new_step_has_made_no_progress() -> None:
    one = made([FileState.STORED], [DeploymentState.PUSHING])
    change = Change(one, later(1))
    part = one.deployments[0]
    change.deployment(part.id, DeploymentState.PUSHING, progress_bytes=5, progress_total_bytes=9)
    assert change.after.deployments[0].progress_bytes == 5
    change.deployment(part.id, DeploymentState.CREATING)
    after = change.after.deployments[0]
    assert (after.progress_bytes, after.progress_total_bytes) == (0, 0)


def test_a_file_that_fails_closes_those_beside_it_and_is_named_as_the_cause() -> None:
    states = list(FileState)
    before = made([FileState.UPLOADING, *states], [DeploymentState.PENDING], state=IngestState.UPLOADING)
    failure = Failure(Reason.FORMAT_INVALID, "no model")
    change = Change(before, later(1))
    # The last one: the cause is told, not what comes first among the files.
    cause = before.files[1 + states.index(FileState.VERIFYING)]
    change.fail_file(cause.id, failure)
    after = dict(zip(["first", *states], change.after.files, strict=True))
    closed = {"first", FileState.PENDING, FileState.UPLOADING}
    for name, file in after.items():
        old = before.files[list(after).index(name)]
        if file.id == cause.id:
            assert (file.state, file.failure) == (FileState.FAILED, failure)
        elif name in closed:
            assert file.state is FileState.FAILED
            assert file.failure is not None
            assert file.failure.reason is Reason.UPLOAD_CLOSED
            # Whoever writes it hears of it.
            assert file.writer_epoch == old.writer_epoch + 1
        else:
            assert file == old
    assert change.after.state is IngestState.FAILED
    assert change.after.failure == failure
    assert change.after.deployments[0].state is DeploymentState.CANCELLED


def test_a_deletion_changes_no_state_in_any_state() -> None:
    for one in ALL:
        change = Change(one, later(1))
        change.delete("gone")
        assert change.after == replace(one, deleted_at=later(1))
        assert change.events == [bodies.notice("gone")]


def test_an_event_keeps_of_the_facts_only_what_it_tells() -> None:
    file = ALL[0].files[0]
    told = bodies.file_facts(file, {"type": "model", "chat_template": "xy", "tensor_names": "AAAA"})
    assert told.body["facts"] == {"type": "model", "chat_template_bytes": 2}

"""Any legal history of an ingest of one file and up to three targets, against a small model of it.

What is legal at a moment is what FileMoves and DeploymentMoves let through (their table tests prove that).
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ingest_service.lifecycle import Change
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.records import Deployment, Failure, Ingest
from ingest_service.vocabulary.states import DEPLOYMENT_MOVING, DeploymentState, FileState, IngestState
from tests.database.records import later
from tests.lifecycle.parts import made

_F, _D, _I = FileState, DeploymentState, IngestState
_FAILURE = Failure(Reason.TARGET_REFUSED, "no")
#: What may follow on what while an upload goes its way.
_FILE_STEPS = {
    _F.PENDING: [_F.UPLOADING],
    _F.UPLOADING: [_F.VERIFYING, _F.FAILED],
    _F.VERIFYING: [_F.PUBLISHING, _F.FAILED],
    _F.PUBLISHING: [_F.STORED, _F.FAILED],
}
_WHICH = st.integers(0, 2)


class Machine(RuleBasedStateMachine):
    """The ingest as `Change` makes it, beside a log and a flag."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.was_cancelled = False
        self.log: list[tuple[str, dict[str, Any]]] = []
        self.ingest: Ingest = made([_F.PENDING])

    @initialize(count=st.integers(0, 3), stored=st.booleans())
    def begin(self, count: int, stored: bool) -> None:
        new = made([_F.STORED if stored else _F.PENDING], [_D.PENDING] * count)
        self._keep(Change.of_new(new, later(0)))

    def _change(self) -> Change:
        self.now += 1
        return Change(self.ingest, later(self.now))

    def _keep(self, change: Change) -> None:
        self.log += [(event.kind, dict(event.body)) for event in change.events]
        self.ingest = change.after

    def _file(self) -> FileState:
        return self.ingest.files[0].state

    def _target(self, which: int) -> Deployment | None:
        found = self.ingest.deployments[which : which + 1]
        may_move = self.ingest.state in {_I.FORWARDING, _I.CANCELLING}
        return found[0] if found and may_move and found[0].state in DEPLOYMENT_MOVING else None

    def _may_upload(self) -> bool:
        return self._file() in _FILE_STEPS and (self._file() is not _F.PENDING or not self.ingest.done)

    @precondition(_may_upload)
    @rule(data=st.data())
    def move_the_file(self, data: st.DataObject) -> None:
        change = self._change()
        state = data.draw(st.sampled_from(_FILE_STEPS[self._file()]))
        part = self.ingest.files[0]
        if state is _F.FAILED:
            change.fail_file(part.id, _FAILURE)
        else:
            change.file(part.id, state)
        self._keep(change)

    @rule(which=_WHICH, state=st.sampled_from([_D.PUSHING, _D.CREATING, _D.READY, _D.FAILED]))
    def move_a_deployment(self, which: int, state: DeploymentState) -> None:
        part = self._target(which)
        if part is None or (state in DEPLOYMENT_MOVING and part.cancel_requested):
            return
        change = self._change()
        change.deployment(part.id, state, failure=_FAILURE if state is _D.FAILED else None)
        self._keep(change)

    @rule(which=_WHICH)
    def have_a_deployment_wait(self, which: int) -> None:
        part = self._target(which)
        if part is None or part.cancel_requested:
            return
        change = self._change()
        change.deployment(part.id, _D.PENDING, failure=_FAILURE, next_attempt_at=later(self.now + 99))
        self._keep(change)

    @rule(which=_WHICH)
    def end_a_deployment_that_was_cancelled(self, which: int) -> None:
        part = self._target(which)
        if part is None or not part.cancel_requested:
            return
        change = self._change()
        change.deployment(part.id, _D.CANCELLED)
        self._keep(change)

    @rule()
    def cancel(self) -> None:
        was_done = self.ingest.done
        before = self.ingest
        change = self._change()
        change.cancel()
        self._keep(change)
        if was_done:
            assert self.ingest == before
        else:
            self.was_cancelled = True

    @invariant()
    def the_state_is_the_models(self) -> None:
        targets = [part.state for part in self.ingest.deployments]
        busy = any(state in DEPLOYMENT_MOVING for state in targets)
        if self.was_cancelled:
            expected = {_I.CANCELLING} if busy or self._file() is _F.PUBLISHING else {_I.CANCELLED}
        elif self._file() is _F.FAILED:
            expected = {_I.FAILED}
        elif self._file() is not _F.STORED:
            expected = {_I.UPLOADING}
        elif busy:
            expected = {_I.FORWARDING}
        elif _D.FAILED in targets:
            expected = {_I.FAILED}
        else:
            expected = {_I.READY} if targets else {_I.STORED}
        assert {self.ingest.state} == expected

    @invariant()
    def done_means_that_nobody_can_move_anything(self) -> None:
        if self.ingest.done:
            assert not self._may_upload()
            assert [self._target(which) for which in range(3)] == [None] * 3
            assert not any(part.state in DEPLOYMENT_MOVING for part in self.ingest.deployments)

    @invariant()
    def the_log_tells_the_whole_story(self) -> None:
        told = [body for kind, body in self.log if kind == "ingest_state"]
        if not told:
            return
        assert told[-1]["state"] == self.ingest.state
        assert told[-1]["done"] == self.ingest.done
        # Only the last word may say that it is done: a watcher that stops there misses nothing.
        assert not any(body["done"] for body in told[:-1])
        if self.ingest.done:
            assert self.log[-1] == ("ingest_state", told[-1])
        files = [body["state"] for kind, body in self.log if kind == "file_state"]
        assert (files[-1] if files else _F.PENDING) == self._file()
        for part in self.ingest.deployments:
            states = [
                body["state"]
                for kind, body in self.log
                if kind == "deployment_state" and body["target"] == part.target
            ]
            assert (states[-1] if states else _D.PENDING) == part.state
        # Once all bytes are there, that is told before anything else happens to them.
        if self._file() is _F.STORED and not self.was_cancelled:
            assert _I.STORED in [body["state"] for body in told]


Machine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
test_any_legal_history = Machine.TestCase

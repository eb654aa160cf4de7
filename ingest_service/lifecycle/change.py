"""One change of an ingest, with the events that tell it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Any

from ingest_service.lifecycle import bodies
from ingest_service.lifecycle.derive import derive_state
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.records import Deployment, Failure, File, Ingest, Inspection, NewEvent
from ingest_service.vocabulary.states import (
    DEPLOYMENT_FAILED,
    DEPLOYMENT_MOVING,
    FILE_OPEN,
    DeploymentState,
    FileState,
    IngestState,
)

_NOT_CREATING = frozenset({DeploymentState.PENDING, DeploymentState.PUSHING})
_CANCELLED = frozenset({IngestState.CANCELLING, IngestState.CANCELLED})
#: Why a cancelled ingest, and what of it took bytes, ended.
_CLOSED = Failure(Reason.UPLOAD_CLOSED, "The ingest was cancelled.")
_OTHER_FAILED = Failure(Reason.UPLOAD_CLOSED, "Another file of the ingest failed, and with it the ingest.")
_EXPIRED = Failure(Reason.UPLOAD_EXPIRED, "The upload was given up: its bytes did not come for too long.")
#: A target that says something new for ever must not fill the table (design.md section 5).
MAX_STATUS_EVENTS = 1000


class Change:
    """Collects what happens to one ingest within one transaction.

    `before` is the ingest as locked, `after` what it becomes, `events` what is to be told, in order.
    """

    def __init__(self, before: Ingest, now: datetime) -> None:
        self.before = before
        self.after = before
        self.now = now
        self.events: list[NewEvent] = []
        self._cancelling = before.state in _CANCELLED

    @classmethod
    def of_new(cls, ingest: Ingest, now: datetime) -> Change:
        """The change that a new ingest is: its state derived, its first events told."""
        change = cls(replace(ingest, state=IngestState.UPLOADING), now)
        change.events.append(bodies.ingest_state(change.after))
        change.events.extend(
            bodies.file_state(file) for file in ingest.files if file.state is FileState.STORED
        )
        change._derive()
        return change

    def file(self, file_id: str, state: FileState, **values: Any) -> File:
        """Moves a file; an event only if the state is a new one."""
        new = self._put_file(file_id, state, **values)
        self._derive()
        return new

    def inspected(self, file_id: str, inspection: Inspection) -> None:
        """A file's header was read whole and is sound; told once, however often it is read."""
        file = next(file for file in self.after.files if file.id == file_id)
        if file.inspected:
            return
        self._put_file(file_id, file.state, inspected=True)
        if inspection.facts:
            self.events.append(bodies.file_facts(file, inspection.facts))
        for warning in inspection.warnings:
            self.notice(f"{file.file_name}: {warning}")

    def fail_file(self, file_id: str, failure: Failure) -> None:
        """A file failed for good, and with it its ingest: its other files take no bytes any more.

        Left open, they would keep room reserved and their partials for ever, since a done ingest never
        expires.
        """
        self._put_file(file_id, FileState.FAILED, failure=failure)
        for file in self.after.files:
            if file.state in FILE_OPEN or file.state is FileState.VERIFYING:
                self._put_file(
                    file.id, FileState.FAILED, failure=_OTHER_FAILED, writer_epoch=file.writer_epoch + 1
                )
        self._derive()

    def deployment(self, deployment_id: str, state: DeploymentState, **values: Any) -> Deployment:
        """Moves a deployment; an event only if the state is a new one or a next try was set."""
        new = self._put_deployment(deployment_id, state, **values)
        self._derive()
        return new

    def deployment_status(self, deployment_id: str, status: str) -> None:
        """A target said something; an event if it is new and there is room for one."""
        old = next(d for d in self.after.deployments if d.id == deployment_id)
        if status == old.status or old.status_events >= MAX_STATUS_EVENTS:
            return
        self.deployment(deployment_id, old.state, status=status, status_events=old.status_events + 1)
        self.events.append(bodies.deployment_status(old.target, status))

    def notice(self, message: str) -> None:
        """Worth knowing, but no failure."""
        self.events.append(bodies.notice(message))

    def cancel(self, unattended: Collection[str] = ()) -> None:
        """Stops all that can be stopped (design.md section 2): a running step is asked to, not torn away.

        `unattended` are deployments that no worker holds a lease of: their worker is gone, and perhaps nobody
        here has their target in its settings any more.
        """
        if self.after.done or self.after.state is IngestState.CANCELLING:
            return
        self._cancelling = True
        for file in self.after.files:
            if file.state in FILE_OPEN or file.state is FileState.VERIFYING:
                self._put_file(file.id, FileState.FAILED, failure=_CLOSED, writer_epoch=file.writer_epoch + 1)
        for deployment in self.after.deployments:
            if deployment.state is DeploymentState.PENDING:
                self._put_deployment(deployment.id, DeploymentState.CANCELLED, next_attempt_at=None)
            elif deployment.state in DEPLOYMENT_MOVING and deployment.id in unattended:
                self._put_deployment(deployment.id, DeploymentState.CANCELLED, next_attempt_at=None)
                self.notice(f"Nobody is at work on {deployment.target}; what it may have begun is not known.")
            elif deployment.state in DEPLOYMENT_MOVING:
                self._put_deployment(deployment.id, deployment.state, cancel_requested=True)
        self._derive()

    def supersede(self, targets: Collection[str]) -> None:
        """A newer ingest of the name goes to these targets: what has not begun to create there never will.

        A create that runs cannot be stopped; it is left to answer, and the newer one comes after it.
        """
        for deployment in self.after.deployments:
            if deployment.target in targets and deployment.state in _NOT_CREATING:
                self._put_deployment(
                    deployment.id, DeploymentState.SUPERSEDED, next_attempt_at=None, failure=None
                )
        self._derive()

    def lose(self, deployment_id: str, failure: Failure) -> None:
        """A target says that it has not got the model any more. Only of a deployment that is READY.

        A deleted ingest is history: its deployment is LOST, its own state stays.
        """
        deployment = next(d for d in self.after.deployments if d.id == deployment_id)
        if deployment.state is not DeploymentState.READY:
            return
        self._put_deployment(deployment_id, DeploymentState.LOST, failure=failure)
        if self.after.deleted_at is None:
            self._derive()

    def retry(self, targets: Collection[str], newer_on: Collection[str]) -> None:
        """What failed, or waits for its next try, on these targets (none: on all) begins anew, due now; never
        where a newer ingest went."""
        for deployment in self.after.deployments:
            waits = (
                deployment.state is DeploymentState.PENDING
                and deployment.next_attempt_at is not None
                and not deployment.cancel_requested
            )
            is_named = not targets or deployment.target in targets
            if not is_named or not (waits or deployment.state in DEPLOYMENT_FAILED):
                continue
            if waits and deployment.target not in newer_on:
                # It is tried now, for as long as one that had failed.
                self._put_deployment(
                    deployment.id, deployment.state, next_attempt_at=None, retry_until=None, attempts=0
                )
                continue
            state = DeploymentState.SUPERSEDED if deployment.target in newer_on else DeploymentState.PENDING
            self._put_deployment(
                deployment.id, state, next_attempt_at=None, retry_until=None, failure=None,
                create_baseline=None, attempts=0,
            )  # fmt: skip
        self._derive()

    def expire(self) -> None:
        """Its bytes did not come for too long: the ingest ends, and what it has of them may go."""
        if self.after.done:
            return
        for file in self.after.files:
            if file.state in FILE_OPEN:
                self._put_file(
                    file.id, FileState.FAILED, failure=_EXPIRED, writer_epoch=file.writer_epoch + 1
                )
        self._close_waiting_deployments()
        self.after = replace(self.after, state=IngestState.EXPIRED, failure=_EXPIRED)
        self.events.append(bodies.ingest_state(self.after))

    def delete(self, words: str) -> None:
        """The catalog forgets the ingest, which is done; its state says what became of it before."""
        self.after = replace(self.after, deleted_at=self.now)
        self.notice(words)

    def _put_file(self, file_id: str, state: FileState, **values: Any) -> File:
        old = next(file for file in self.after.files if file.id == file_id)
        new = replace(old, state=state, **values)
        files = tuple(new if file.id == file_id else file for file in self.after.files)
        self.after = replace(self.after, files=files)
        if new.state is not old.state:
            self.events.append(bodies.file_state(new))
        return new

    def _put_deployment(self, deployment_id: str, state: DeploymentState, **values: Any) -> Deployment:
        old = next(d for d in self.after.deployments if d.id == deployment_id)
        if state is not old.state:
            # Progress is that of the present step; a new one has made none.
            values = {"progress_bytes": 0, "progress_total_bytes": 0} | values
        new = replace(old, state=state, **values)
        deployments = tuple(new if d.id == deployment_id else d for d in self.after.deployments)
        self.after = replace(self.after, deployments=deployments)
        waits_anew = new.next_attempt_at is not None and new.next_attempt_at != old.next_attempt_at
        if new.state is not old.state or waits_anew:
            self.events.append(bodies.deployment_state(new))
        return new

    def _derive(self) -> None:
        old = self.after.state
        if old is IngestState.EXPIRED:
            return
        state = derive_state(self.after.files, self.after.deployments, cancelling=self._cancelling)
        if state is old:
            return
        if state is IngestState.FAILED:
            self._close_waiting_deployments()
        if state in {IngestState.FORWARDING, IngestState.READY} and old is IngestState.UPLOADING:
            self._tell(IngestState.STORED, passing=True)
        self._tell(state)

    def _tell(self, state: IngestState, *, passing: bool = False) -> None:
        self.after = replace(self.after, state=state, failure=self._failure(state))
        self.events.append(bodies.ingest_state(self.after, passing=passing))

    def _failure(self, state: IngestState) -> Failure | None:
        if state is IngestState.CANCELLED:
            return _CLOSED
        if state is not IngestState.FAILED:
            return None
        parts: tuple[File | Deployment, ...] = (*self.after.files, *self.after.deployments)
        failed = [
            part.failure
            for part in parts
            if part.state in {FileState.FAILED, *DEPLOYMENT_FAILED} and part.failure is not None
        ]
        # The cause first, not what it did to the files beside it.
        return next((failure.alone() for failure in failed if failure != _OTHER_FAILED), None)

    def _close_waiting_deployments(self) -> None:
        """Of an ingest whose bytes will never be there, nothing waits to be deployed."""
        if all(file.state is FileState.STORED for file in self.after.files):
            return
        for deployment in self.after.deployments:
            if deployment.state in DEPLOYMENT_MOVING:
                self._put_deployment(deployment.id, DeploymentState.CANCELLED, next_attempt_at=None)

"""Progress as bars on a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from model_ingest._clean import printable
from model_ingest._updates import Accepted, Hashing, Update, Waiting
from model_ingest.cli._view import last_word
from model_ingest.cli._words import amount, deployment_phase, describe, file_phase, goes_on, waits
from model_ingest.v1.resources_pb2 import Deployment, Event, File, Ingest

_ENDED: Final = {
    Deployment.STATE_READY,
    Deployment.STATE_FAILED,
    Deployment.STATE_CANCELLED,
    Deployment.STATE_SUPERSEDED,
    Deployment.STATE_LOST,
}


class AmountColumn(ProgressColumn):
    """`12.0 MB of 250.1 MB  31.0 MB/s`, or nothing for a row that has no bytes."""

    def render(self, task: Task) -> Text:
        """The cell."""
        if not task.total or not task.fields.get("has_bytes"):
            return Text()
        speed = f"  {amount(int(task.speed))}/s" if task.speed and not task.finished else ""
        return Text(f"{amount(int(task.completed))} of {amount(int(task.total))}{speed}")


class RichView:
    """A row for each file (bytes that the server has committed), then one for each target."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        # markup=False: names and messages from a server are text, never instructions to rich.
        self._progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=20),
            AmountColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[phase]}", markup=False, table_column=Column(no_wrap=True)),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._is_waiting = False
        self._rows: dict[tuple[str, str], TaskID] = {}
        # What the other columns leave over; failures are told in full above the rows.
        self._phase_characters = max(16, self._console.width - 87)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, update: Update) -> None:
        """Moves the rows."""
        if isinstance(update, Hashing):
            self._show("file", update.file_name, "hashing", update.hashed_bytes, update.size_bytes)
            return
        if isinstance(update, Waiting):
            if not self._is_waiting:
                self._is_waiting = True
                self._say(waits(update.file_name, update.error))
            return
        self._is_waiting = False
        if isinstance(update, Accepted):
            self._say(f"{update.ingest.name}: {update.ingest.model}")
            for file in update.ingest.files:
                if file.committed_size and file.state == File.STATE_UPLOADING:
                    self._say(goes_on(file))
        elif update.event is not None and _deserves_a_line(update.event):
            self._say(describe(update.event))
        self._show_ingest(update.ingest)

    def result(self, ingest: Ingest) -> None:
        """The last line."""
        self._say(last_word(ingest))

    def _say(self, line: str) -> None:
        self._console.print(Text(printable(line)))

    def _show_ingest(self, ingest: Ingest) -> None:
        for file in ingest.files:
            phase = file_phase(file.state)
            if file.deduplicated:
                phase = "stored already"
            # A stored file's bytes are all durable, whatever the last progress report said.
            stored = file.state == File.STATE_STORED
            done_bytes = file.size_bytes if stored else file.committed_size
            self._show("file", file.file_name, phase, done_bytes, file.size_bytes)
        if all(file.state == File.STATE_STORED for file in ingest.files):
            for deployment in ingest.deployments:
                self._show_deployment(deployment)

    def _show_deployment(self, deployment: Deployment) -> None:
        phase = deployment_phase(deployment.state)
        if deployment.HasField("failure") and deployment.state == Deployment.STATE_PENDING:
            phase = f"waiting after try {deployment.attempts}"
        elif deployment.status and deployment.state not in _ENDED:
            phase += f": {deployment.status}"
        if deployment.state in _ENDED:
            ready = deployment.state == Deployment.STATE_READY
            self._show("target", deployment.target, phase, int(ready), 1, has_bytes=False)
        else:
            self._show(
                "target", deployment.target, phase, deployment.progress_bytes, deployment.progress_total_bytes
            )

    def _show(
        self, kind: str, name: str, phase: str, done_bytes: int, total_bytes: int, *, has_bytes: bool = True
    ) -> None:
        # Without a total the bar pulses: something is going on, nobody knows how much is left.
        total = total_bytes or None
        phase = printable(phase, self._phase_characters)
        row = self._rows.get((kind, name))
        if row is None:
            row = self._progress.add_task(printable(name, 24), total=total, phase=phase, has_bytes=has_bytes)
            self._rows[kind, name] = row
        self._progress.update(row, completed=done_bytes, total=total, phase=phase, has_bytes=has_bytes)
        if total is None:
            self._progress.tasks[self._progress.task_ids.index(row)].total = None


def _deserves_a_line(event: Event) -> bool:
    """Notices and failures; everything else is seen in its row."""
    return event.HasField("notice") or (
        event.HasField("deployment_state") and event.deployment_state.HasField("failure")
    )

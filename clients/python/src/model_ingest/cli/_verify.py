"""The `verify` command: what is read, what the targets say, and what that comes to."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

from model_ingest._clean import printable
from model_ingest._client import AsyncClient
from model_ingest.cli._json_view import emit
from model_ingest.cli._jsonable import jsonable
from model_ingest.cli._throttle import Throttle
from model_ingest.cli._view import is_terminal
from model_ingest.cli._words import amount
from model_ingest.v1.catalog_service_pb2 import VerifyModelResponse
from model_ingest.v1.resources_pb2 import Deployment, Model

_LEFT: Final = {Deployment.STATE_CANCELLED, Deployment.STATE_SUPERSEDED}
#: The newest ingests of a name: older ones were replaced on their targets.
_LOOKED_AT: Final = 20
TargetVerdict = VerifyModelResponse.TargetVerdict


class _Progress(Protocol):
    """Shows how far the reading is. That bytes were read does not say yet that they are right."""

    def shown(self) -> AbstractContextManager[object]:
        """Around all of it."""

    def read(self, seen: VerifyModelResponse) -> None:
        """A file got further."""


class _Lines:
    """A line every 10 % or 30 s."""

    def __init__(self, throttle: Throttle | None = None) -> None:
        self._throttle = throttle or Throttle()

    def shown(self) -> AbstractContextManager[object]:
        return nullcontext()

    def read(self, seen: VerifyModelResponse) -> None:
        if seen.size_bytes <= 0:
            return
        if self._throttle.due(seen.file_name, seen.verified_bytes / seen.size_bytes):
            percent = 100 * seen.verified_bytes // seen.size_bytes
            done, whole = amount(seen.verified_bytes), amount(seen.size_bytes)
            _say(f"{printable(seen.file_name)}: read {done} of {whole} ({percent} %)")


class _Bars:
    """A row for each file."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

        from model_ingest.cli._rich_view import AmountColumn

        self._bars = Progress(
            # markup=False: names from a server are text, never instructions to rich.
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            AmountColumn(),
            TimeElapsedColumn(),
            console=Console(highlight=False),
        )
        self._rows: dict[str, TaskID] = {}

    def shown(self) -> AbstractContextManager[object]:
        return self._bars

    def read(self, seen: VerifyModelResponse) -> None:
        row = self._rows.get(seen.file_name)
        if row is None:
            name = f"reading {printable(seen.file_name, 24)}"
            row = self._bars.add_task(name, total=seen.size_bytes, has_bytes=True)
            self._rows[seen.file_name] = row
        self._bars.update(row, completed=seen.verified_bytes)


async def verify(client: AsyncClient, options: argparse.Namespace, session: object) -> int:
    """Has the stored bytes read again and asks the targets. 4 when one that should have the model lacks it;
    what is damaged in the store ends as the error it is (3)."""
    model = await client.get_model(options.model)
    verdicts: list[TargetVerdict] = []
    if options.json:
        async for seen in client.verify(options.model):
            emit("verify", **jsonable(seen))
            verdicts += seen.targets
    else:
        verdicts = await _watched(client, options.model)
    wanted = {one.target for one in model.deployments if one.state not in _LEFT}
    lacking = [one.target for one in verdicts if one.target in wanted and not one.present]
    exit_code = 4 if lacking else 0
    lost = await _lost(client, options.model) if lacking else []
    if options.json:
        emit("result", exit_code=exit_code, model=model.name, lacking=lacking, lost=lost)
    else:
        _say(_last_word(model, lacking))
        for ingest in lost:
            _say(f"next: `model-ingest retry {printable(ingest)}` deploys it there again")
        unknown = [one.target for one in verdicts if one.target in lacking and one.unknown]
        if unknown:
            _say(
                f"next: run this again once {printable(', '.join(unknown))} answers (`model-ingest targets`)"
            )
    return exit_code


async def _lost(client: AsyncClient, name: str) -> list[str]:
    """Ingests of which a target has lost the model, by what the service has written down."""
    model = await client.get_model(name)
    if not any(one.state == Deployment.STATE_LOST for one in model.deployments):
        return []
    ingests = await client.list_ingests(model=name, limit=_LOOKED_AT)
    return [
        one.name
        for one in ingests
        if not one.HasField("model_deleted_time")
        and any(deployment.state == Deployment.STATE_LOST for deployment in one.deployments)
    ]


async def _watched(client: AsyncClient, name: str) -> list[TargetVerdict]:
    progress: _Progress = _Bars() if is_terminal() else _Lines()
    verdicts: list[TargetVerdict] = []
    with progress.shown():
        async for seen in client.verify(name):
            if seen.file_name:
                progress.read(seen)
            for one in seen.targets:
                verdicts.append(one)
                words = f" ({printable(one.message)})" if one.message else ""
                _say(f"target {printable(one.target)}: {_there(one)}{words}")
    return verdicts


def _there(verdict: TargetVerdict) -> str:
    if verdict.present:
        return "there"
    return "not known" if verdict.unknown else "not there"


def _last_word(model: Model, lacking: list[str]) -> str:
    name = printable(model.display_name or model.name.removeprefix("models/"))
    size = amount(sum(file.size_bytes for file in model.files))
    line = f"done: all {size} stored of {name} are right"
    return f"{line}; but not confirmed on {printable(', '.join(lacking))}" if lacking else line


def _say(line: str) -> None:
    # Flushed: a log that is followed must not lag behind.
    print(line, flush=True)

"""`rm`: says where the model stays, asks, removes it, and says what each target did."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import threading
from collections.abc import Iterable
from dataclasses import replace

from model_ingest._clean import printable
from model_ingest._client import AsyncClient
from model_ingest._errors import IngestError, NotFoundError, NotServedError
from model_ingest.cli._json_view import emit
from model_ingest.cli._jsonable import jsonable
from model_ingest.v1.resources_pb2 import Deployment, Model

_WRONG_USE = 2
#: Nobody answered the question: that is no.
_ANSWER_SECONDS = 600.0


async def remove(client: AsyncClient, options: argparse.Namespace) -> int:
    """Removes a model."""
    if not (options.yes or options.all_targets) and not await _may_remove(client, options):
        return _WRONG_USE
    try:
        answer = await client.delete_model(
            options.model, targets=options.target, all_targets=options.all_targets
        )
    except IngestError as error:
        raise _with_advice(error, all_targets=options.all_targets) from None
    if options.json:
        emit("removed", **jsonable(answer))
        return 0
    for one in answer.targets:
        _say(f"target {one.target}: {'removed' if one.removed else 'had no such model'}")
    if answer.HasField("model"):
        _say(f"removed {answer.model.display_name or options.model}")
    left = _ready_elsewhere(answer.model, {one.target for one in answer.targets})
    if left:
        _say(f"not removed from {', '.join(left)}; {_later(options.model, left)}")
    return 0


async def _may_remove(client: AsyncClient, options: argparse.Namespace) -> bool:
    """Whether the model may stay where it is not to be removed. Says why not on stderr."""
    try:
        model = await client.get_model(options.model)
    except (NotFoundError, NotServedError):
        # The removal itself says what is to be said.
        return True
    left = _ready_elsewhere(model, options.target)
    if not left:
        return True
    name = model.display_name or options.model
    _warn(f"{name} stays on {', '.join(left)}: Ollama goes on serving it there.")
    if options.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        _warn("nothing was removed")
        _warn("next: add --all-targets to remove it there too, or --yes to leave it there")
        return False
    print("Remove it all the same? [y/N] ", end="", file=sys.stderr, flush=True)
    if (await _typed_line()).strip().lower() in {"y", "yes"}:
        return True
    _warn("nothing was removed")
    return False


async def _typed_line() -> str:
    """What is typed on the terminal. Ctrl-C ends the wait: no thread that must be waited for reads it."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()

    def done(typed: bytes) -> None:
        if not answer.done():
            answer.set_result(typed)

    def read() -> None:
        try:
            typed = os.read(sys.stdin.fileno(), 1024)
        except OSError:
            typed = b""
        try:
            loop.call_soon_threadsafe(done, typed)
        except RuntimeError:
            # The loop has ended meanwhile: nobody wants it any more.
            return

    threading.Thread(target=read, daemon=True).start()
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            return (await answer).decode(errors="replace")
    except TimeoutError:
        return ""


def _ready_elsewhere(model: Model, named: Iterable[str]) -> list[str]:
    asked = set(named)
    return [
        one.target
        for one in model.deployments
        if one.state == Deployment.STATE_READY and one.target not in asked
    ]


def _later(model: str, left: Iterable[str]) -> str:
    targets = " ".join(f"--target {target}" for target in left)
    return f"`model-ingest rm {model} {targets}` does that"


def _with_advice(error: IngestError, *, all_targets: bool) -> IngestError:
    """The same error; what to do next is another thing here than after a push."""
    name = error.metadata.get("ingest", "")
    leave_out = "or leave the target out"
    if all_targets:
        leave_out = "or name the others with --target (and --yes) instead of --all-targets"
    advice = {
        "MODEL_BUSY": f"`model-ingest watch {name}` until it has ended, or `model-ingest cancel {name}`;"
        " then run this again",
        "TARGET_UNREACHABLE": f"run the same command again once the target answers, {leave_out}",
        "TARGET_UNKNOWN": "`model-ingest targets` lists them, `model-ingest show` says where the model went",
    }
    if error.reason in advice and (name or error.reason != "MODEL_BUSY"):
        error.facts = replace(error.facts, diagnostics=advice[error.reason])
    return error


def _say(line: str) -> None:
    print(printable(line), flush=True)


def _warn(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)

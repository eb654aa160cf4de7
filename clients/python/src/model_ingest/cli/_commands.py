"""What each command does with a client. Each returns the exit code, or raises."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace

from google.protobuf.message import Message

from model_ingest._clean import printable
from model_ingest._client import AsyncClient
from model_ingest._errors import IngestError, NotFoundError
from model_ingest._status import FAILED, from_ingest
from model_ingest._updates import Accepted, Moved, OnUpdate, Update
from model_ingest.cli import _tables
from model_ingest.cli._json_view import emit
from model_ingest.cli._jsonable import jsonable
from model_ingest.cli._push_options import asked_for
from model_ingest.cli._remove import remove
from model_ingest.cli._verify import verify
from model_ingest.cli._view import View, choose
from model_ingest.v1.resources_pb2 import CreateOptions, Ingest


@dataclass(slots=True)
class Session:
    """What is known when Ctrl-C comes."""

    ingest: Ingest | None = None
    resumable: bool = False

    def seeing(self, view: View) -> OnUpdate:
        """Updates for the view, noted on the way."""

        def on_update(update: Update) -> None:
            if isinstance(update, Accepted | Moved):
                self.ingest = update.ingest
            if isinstance(update, Accepted):
                self.resumable = update.resumable
            view.update(update)

        return on_update


Command = Callable[[AsyncClient, argparse.Namespace, Session], Awaitable[int]]


async def push(client: AsyncClient, options: argparse.Namespace, session: Session) -> int:
    """Sends files and follows them."""
    view = choose(as_json=options.json)
    what = await asyncio.to_thread(asked_for, options)
    for warning in what.warnings:
        print(f"warning: {printable(warning)}", file=sys.stderr, flush=True)
    with view:
        ingest = await client.push(
            what.paths,
            name=options.name,
            roles=what.roles,
            options=what.options,
            targets=options.target,
            store_only=options.store_only,
            declare_digest=options.declare_digest,
            digest_cache=options.digest_cache,
            detach=options.detach,
            on_update=session.seeing(view),
        )
    view.result(ingest)
    return 0


async def import_file(client: AsyncClient, options: argparse.Namespace, session: Session) -> int:
    """Has the service take in a file of its import folder, and follows it."""
    try:
        ingest = await client.import_file(
            options.file, name=options.name, targets=options.target, store_only=options.store_only
        )
    except IngestError as error:
        if error.reason == "FILE_NOT_FOUND":
            advice = "put the file itself (no link) into `import/` in the service's INGEST_DATA_DIR"
            error.facts = replace(error.facts, diagnostics=advice)
        raise
    session.ingest = ingest
    return await _started(client, ingest, options, session)


async def watch(client: AsyncClient, options: argparse.Namespace, session: Session) -> int:
    """Follows an ingest; ends as the push would have."""
    return await _follow(client, options.ingest, options, session, after_sequence=options.after)


async def status(client: AsyncClient, options: argparse.Namespace, session: Session) -> int:
    """The truth now."""
    ingest = await client.get_ingest(options.ingest)
    return _print(options, ingest, _tables.ingest_text(ingest))


async def listing(client: AsyncClient, options: argparse.Namespace, session: Session) -> int:
    """Models, or ingests."""
    if options.ingests:
        ingests = await client.list_ingests(limit=options.limit)
        return _print_all(options, ingests, _tables.ingest_table(ingests))
    models = await client.list_models(limit=options.limit)
    return _print_all(options, models, _tables.model_table(models))


async def show(client: AsyncClient, options: argparse.Namespace, session: Session) -> int:
    """One model."""
    model = await client.get_model(options.model)
    created_with = CreateOptions()
    if not options.json:
        # The catalog does not keep the options; the ingest that brought the model does.
        with contextlib.suppress(NotFoundError):
            created_with = (await client.get_ingest(model.ingest)).options
    return _print(options, model, _tables.model_text(model, created_with))


async def cancel(client: AsyncClient, options: argparse.Namespace, session: Session) -> int:
    """Stops an ingest."""
    ingest = await client.cancel(options.ingest)
    if ingest.state in {Ingest.STATE_STORED, Ingest.STATE_READY, Ingest.STATE_FAILED}:
        print("it had ended before: nothing was cancelled", file=sys.stderr)
    return _print(options, ingest, _tables.ingest_text(ingest))


async def retry(client: AsyncClient, options: argparse.Namespace, session: Session) -> int:
    """Tries again what failed, and follows it."""
    before = await client.get_ingest(options.ingest)
    ingest = await client.retry(options.ingest, targets=options.target)
    wanted = [d for d in before.deployments if not options.target or d.target in options.target]
    if not any(d.state in FAILED for d in wanted):
        print("nothing had failed there: nothing is tried again", file=sys.stderr)
        return _print(options, ingest, _tables.ingest_text(ingest))
    return await _started(client, ingest, options, session)


async def deploy(client: AsyncClient, options: argparse.Namespace, session: Session) -> int:
    """Brings a stored model to targets, and follows it."""
    ingest = await client.deploy(options.model, targets=options.target)
    return await _started(client, ingest, options, session)


async def targets(client: AsyncClient, options: argparse.Namespace, session: Session) -> int:
    """The targets."""
    found = await client.list_targets()
    return _print_all(options, found, _tables.target_table(found))


COMMANDS: dict[str, Command] = {
    "push": push,
    "import": import_file,
    "watch": watch,
    "status": status,
    "ls": listing,
    "show": show,
    "cancel": cancel,
    "retry": retry,
    "verify": verify,
    "deploy": deploy,
    "rm": lambda client, options, _: remove(client, options),
    "targets": targets,
}


async def _started(client: AsyncClient, ingest: Ingest, options: argparse.Namespace, session: Session) -> int:
    if options.detach:
        return _print(options, ingest, _tables.ingest_text(ingest))
    return await _follow(client, ingest.name, options, session, after_sequence=ingest.last_sequence)


async def _follow(
    client: AsyncClient, name: str, options: argparse.Namespace, session: Session, *, after_sequence: int
) -> int:
    view = choose(as_json=options.json)
    with view:
        ingest = await client.wait(name, after_sequence=after_sequence, on_update=session.seeing(view))
    failed = from_ingest(ingest)
    if failed is not None:
        raise failed
    view.result(ingest)
    return 0


def _print(options: argparse.Namespace, resource: Message, lines: Iterable[str]) -> int:
    if options.json:
        emit(type(resource).__name__.lower(), **jsonable(resource))
    else:
        _say(lines)
    return 0


def _print_all(options: argparse.Namespace, resources: Iterable[Message], lines: Iterable[str]) -> int:
    if options.json:
        for resource in resources:
            emit(type(resource).__name__.lower(), **jsonable(resource))
    else:
        _say(lines)
    return 0


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)

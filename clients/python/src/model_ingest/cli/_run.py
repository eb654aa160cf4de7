"""Runs a command and turns however it ends into an exit code and a message."""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import sys
from collections.abc import Sequence
from typing import Final

from model_ingest._clean import printable
from model_ingest._client import AsyncClient
from model_ingest._errors import ConnectionLostError, IngestError, NotServedError
from model_ingest.cli._commands import COMMANDS, Session
from model_ingest.cli._json_view import emit, error_object
from model_ingest.cli._jsonable import jsonable
from model_ingest.cli._parser import parse
from model_ingest.cli._words import amount
from model_ingest.v1.resources_pb2 import File, Ingest

INTERRUPTED: Final = 130


def run(arguments: Sequence[str]) -> int:
    """The exit code."""
    options = parse(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that lacks a letter must not stop an upload.
            stream.reconfigure(errors="replace")
    session = Session()
    try:
        return asyncio.run(_with_client(options, session))
    except IngestError as error:
        return _failed(error, options, session)
    except KeyboardInterrupt:
        return _interrupted(options, session)
    except BrokenPipeError:
        # Nobody reads stdout any more (`| head`). Python would complain once more while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED


async def _with_client(options: argparse.Namespace, session: Session) -> int:
    async with AsyncClient(options.server) as client:
        return await COMMANDS[options.command](client, options, session)


def _failed(error: IngestError, options: argparse.Namespace, session: Session) -> int:
    message = error.message
    if isinstance(error, NotServedError):
        message = f"this server does not serve `{options.command}` yet"
    file_name = _failed_file(error)
    message = f"{file_name}: {message}" if file_name else message
    _complain(f"{message} ({error.reason})" if error.reason else message)
    for violation in error.violations:
        # The first is often the error itself, which is told already.
        is_told = violation.description == error.message
        _complain(violation.field if is_told else f"{violation.field}: {violation.description}", "  ")
    lost = _lost_upload(error, session)
    if lost is not None:
        _complain(lost[0], "")
        _complain(lost[1], "next: ")
    if error.diagnostics:
        _complain(error.diagnostics, "next: ")
    if options.json:
        ingest = error.ingest or session.ingest
        known = {} if ingest is None else {"ingest": jsonable(ingest)}
        emit("error", exit_code=error.exit_code, error=error_object(error), **known)
    return error.exit_code


def _failed_file(error: IngestError) -> str:
    """Which of several files it was, if the ingest's end tells it."""
    files = () if error.ingest is None or len(error.ingest.files) < 2 else error.ingest.files
    return next((one.file_name for one in files if one.failure.message == error.message), "")


def _lost_upload(error: IngestError, session: Session) -> tuple[str, str] | None:
    """A server that was lost in the middle of an upload: what of it is safe, and what to do."""
    if not isinstance(error, ConnectionLostError) or session.ingest is None or session.ingest.done:
        return None
    missing = [one for one in session.ingest.files if one.state in {File.STATE_PENDING, File.STATE_UPLOADING}]
    return _broken_upload(session.ingest, missing[0], resumable=session.resumable) if missing else None


def _interrupted(options: argparse.Namespace, session: Session) -> int:
    message, advice = _after_interrupt(session)
    _complain(message, "interrupted: ")
    _complain(advice, "next: ")
    if options.json:
        known = {} if session.ingest is None else {"ingest": jsonable(session.ingest)}
        error = {"class": "KeyboardInterrupt", "reason": "", "message": message, "next": advice}
        emit("error", exit_code=INTERRUPTED, error=error, **known)
    return INTERRUPTED


def _after_interrupt(session: Session) -> tuple[str, str]:
    """What happened, and what to do."""
    ingest = session.ingest
    if ingest is None:
        return "nothing was changed on the server that this command knows of", "run it again"
    missing = [file for file in ingest.files if file.state in {File.STATE_PENDING, File.STATE_UPLOADING}]
    if ingest.done:
        return f"{ingest.name} had ended already", f"model-ingest status {ingest.name}"
    if not missing:
        return f"{ingest.name} goes on without this command", f"model-ingest watch {ingest.name}"
    return _broken_upload(ingest, missing[0], resumable=session.resumable)


def _broken_upload(ingest: Ingest, file: File, *, resumable: bool) -> tuple[str, str]:
    done = f"{amount(file.committed_size)} of {amount(file.size_bytes)}"
    where = f"{done} of {file.file_name} were safe on the server"
    if resumable:
        return f"{where} as {ingest.name}", "run the same command again"
    return (
        f"{where}; this server version does not resume uploads, so {ingest.name} ends FAILED",
        "run the same command again; it starts anew",
    )


def _complain(message: str, prefix: str = "error: ") -> None:
    print(f"{prefix}{printable(message)}", file=sys.stderr, flush=True)

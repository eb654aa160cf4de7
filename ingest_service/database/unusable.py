"""Why a database cannot be used, and what to do about it, in words for whoever starts the service."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.engine import URL

from ingest_service.vocabulary.errors import DatabaseFull

#: A disk with less room than this is full: the next few transactions may fail.
LEAST_ROOM_BYTES = 1024 * 1024
_MAX_CAUSE_CHARACTERS = 200

#: PostgreSQL's states whose remedy is not to start it.
_POSTGRESQL = {
    "28P01": "correct its user or password.",
    "28000": "correct its user or password, or allow this connection in its pg_hba.conf.",
    "3D000": "create the database, or correct its name.",
    "42501": "grant its user CREATE and USAGE on the database's schema.",
    "25006": "it takes no writes: point it at the primary server, not at a standby.",
    "53100": "make room on the disk of the database server.",
    "53300": "it has too many connections: end some, or raise its max_connections.",
    "55P03": "a session holds a lock for too long: end it (pg_stat_activity shows it), then start again.",
    "57P03": "it is still starting or stopping: try again in a moment.",
}
_START_IT = "start the database, or correct its address, name, user or password."


def why_unusable(url: URL, error: BaseException) -> str:
    """`(cause): remedy`, one line without secrets. Looks at files: call it in a worker thread."""
    chain = list(_chain(error))
    if url.get_backend_name() == "sqlite":
        cause, remedy = _sqlite(Path(url.database or ""), chain)
    else:
        cause, remedy = _postgresql(url, chain)
    return f"({' '.join(cause.split())[:_MAX_CAUSE_CHARACTERS]}): {remedy}"


def room_bytes(file: Path) -> int:
    """How much room the disk of a file has. Raises OSError."""
    return shutil.disk_usage(file.parent).free


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what caused it, outermost first."""
    while error is not None:
        yield error
        error = getattr(error, "orig", None) or error.__cause__


def _sqlite(file: Path, chain: list[BaseException]) -> tuple[str, str]:  # noqa: PLR0911 (one for each cause)
    code = next((e.sqlite_errorcode & 0xFF for e in chain if hasattr(e, "sqlite_errorcode")), None)
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED} or isinstance(chain[-1], TimeoutError):
        return (
            "another program has locked it",
            f"end the program that holds it (`fuser {file}` names it), then start again.",
        )
    problem = _file_problem(file)
    if problem is not None:
        return problem
    if code == sqlite3.SQLITE_FULL or any(isinstance(e, DatabaseFull) for e in chain) or _is_full(file):
        return "its disk is full", f"make room on the disk of {file.parent}, then start again."
    if code == sqlite3.SQLITE_NOTADB:
        return (
            "the file is no SQLite database",
            "point it at the service's own database, or at a file that does not exist yet.",
        )
    if code == sqlite3.SQLITE_CORRUPT:
        return "the file is damaged", f"move {file} away and restore it from a backup."
    if code == sqlite3.SQLITE_IOERR:
        return str(chain[-1]), f"its disk fails: look at the system's log, and at the disk of {file.parent}."
    return str(chain[-1]) or type(chain[-1]).__name__, f"look at the file {file} and its directory."


def _is_full(file: Path) -> bool:
    try:
        return room_bytes(file) < LEAST_ROOM_BYTES
    except OSError:
        return False


def _file_problem(file: Path) -> tuple[str, str] | None:  # noqa: PLR0911 (one for each cause)
    """What is wrong with the file or its directory, before SQLite comes into it."""
    if str(file).startswith("file:"):
        return None
    directory = file.parent
    user = f"this user (uid {os.geteuid()})"
    try:
        if not directory.is_dir():
            return f"its directory {directory} does not exist", "create the directory, or correct the path."
        is_read_only = bool(os.statvfs(directory).f_flag & os.ST_RDONLY)
        found = file.stat().st_mode if file.exists() else None
    except PermissionError:
        return f"{user} may not look into {directory}", f"let {user} into that directory and those above it."
    except OSError as error:
        return error.strerror or str(error), f"look at {directory}."
    if found is not None and not stat.S_ISREG(found):
        what = "a directory" if stat.S_ISDIR(found) else "no regular file"
        return f"it is {what}", "name a file: the service's own database, or one that does not exist yet."
    if is_read_only:
        return "its file system is mounted read-only", f"mount the file system of {directory} for writing."
    for path in (file, file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")):
        if path.exists() and not _may(path, os.R_OK | os.W_OK):
            return f"{user} may not read and write {path}", f"give {path} to {user}, and let it write there."
    if not _may(directory, os.W_OK | os.X_OK):
        return (
            f"{user} may not write in its directory {directory}, where SQLite keeps its log",
            f"let {user} write in {directory}.",
        )
    return None


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _is_readable(file: str) -> bool:
    return Path(file).is_file() and _may(Path(file), os.R_OK)


def _postgresql(url: URL, chain: list[BaseException]) -> tuple[str, str]:  # noqa: PLR0911 (one for each cause)
    inner = chain[-1]
    cause = str(inner) or type(inner).__name__
    state = next((str(s) for e in chain if (s := getattr(e, "sqlstate", None))), "")
    if any(isinstance(e, DatabaseFull) for e in chain):
        state = "53100"
    if state in _POSTGRESQL:
        return cause, _POSTGRESQL[state]
    if isinstance(inner, ssl.SSLError) or "SSL" in cause:
        return (
            cause,
            "correct sslmode, sslrootcert, sslcert or sslkey behind `?`, or the server's certificate.",
        )
    if isinstance(inner, socket.gaierror):
        return cause, "its host's name cannot be resolved: correct it, or the machine's DNS."
    if isinstance(inner, TimeoutError):
        return "it does not answer in time", _START_IT
    for name in ("sslrootcert", "sslcert", "sslkey", "sslcrl"):
        if isinstance(inner, OSError) and name in url.query and not _is_readable(str(url.query[name])):
            return f"{name} names no file that can be read", "correct the file's path behind `?` in it."
    if isinstance(inner, OSError) and inner.errno is not None and inner.errno > 0:
        return os.strerror(inner.errno), _START_IT
    if isinstance(inner, TypeError | ValueError):
        return cause, "correct the arguments behind `?` in it."
    return cause, _START_IT

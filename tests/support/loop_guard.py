"""Notes blocking calls that the product makes on a thread that runs an event loop (design.md section 4).

Installed once for the whole run by tests/conftest.py, where each test fails for what was noted in it; and by
servers that are tests' own programs (`install_from_environment`), which write it to stderr. Not judged by the
clock: a call is blocking by what it is. The call itself is made: a fault raised in the middle of the product
may be swallowed there, a note may not (which is why this is not left to `blockbuster`).

An import that finds its module on disk blocks too. While a service boots it keeps nobody waiting, so imports
count only between `serving_began` and `serving_ended`. A process imports each module once: a test that wants
to see all imports of a service needs a process of its own (tests/support/guarded_server.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.abc
import inspect
import os
import socket
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import model_ingest

import ingest_service

#: Hashing so much takes less than parsing a chunk does: names, request ids, a page's token.
_SMALL_BYTES = 64 * 1024
_VARIABLE = "LOOP_GUARD"
_PRODUCT = tuple(
    str(Path(package.__file__ or "").parent) + os.sep for package in (ingest_service, model_ingest)
)
_TESTS = str(Path(__file__).resolve().parent.parent) + os.sep
_BLOCKING: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (os, ("pwrite", "pwritev", "fsync", "fdatasync", "sync", "ftruncate", "posix_fallocate")),
    (os, ("copy_file_range", "sendfile")),
    (socket, ("getaddrinfo", "gethostbyname", "gethostbyaddr", "create_connection")),
    (sqlite3, ("connect",)),
    (time, ("sleep",)),
)  # fmt: skip
#: Noted only where the product asks itself: a driver that looks for its password file while it connects,
#: migrations and imports at boot, a traceback that looks for its source are libraries' own business.
_METADATA = (
    "open",
    "stat",
    "lstat",
    "rename",
    "unlink",
    "mkdir",
    "rmdir",
    "listdir",
    "scandir",
    "statvfs",
    "link",
)
_IS_COROUTINE = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_SHARED = ("pathlib.py", "os.py", "<frozen os>", "shutil.py", "genericpath.py", "posixpath.py", "tempfile.py")
_IMPORTING = "<frozen importlib"
_real: dict[str, Any] = {}
#: What was noted and not yet taken, as `what: file:line function < its caller < ...`.
_noted: list[str] = []
_report: Callable[[str], None] = _noted.append
#: Services of this process that are SERVING.
_serving = 0
#: In a server that is a test's child, every import on the loop's thread counts, whoever made it.
_owns_process = False


def taken() -> list[str]:
    """What was noted since the last time."""
    notes = _noted[:]
    _noted.clear()
    return notes


def install(report: Callable[[str], None] = _noted.append) -> None:
    """Wraps the blocking calls, once."""
    global _report  # noqa: PLW0603 (the wrapped functions are the process's as well)
    _report = report
    if _real:
        return
    for module, names in _BLOCKING:
        for name in names:
            _wrap(module, name)
    for name in _METADATA:
        _wrap(os, name, by_libraries=False)
    for name in ("read", "pread", "preadv", "readv"):
        _wrap(os, name, lambda descriptor, *_: stat.S_ISREG(os.fstat(descriptor).st_mode))
    for name in ("sha256", "sha1", "md5", "sha512", "blake2b"):
        _wrap_hash(name)
    sys.meta_path.insert(0, _ImportNotes())


def serving_began() -> None:
    """From now on, imports on the loop's thread are noted."""
    global _serving  # noqa: PLW0603
    _serving += 1


def serving_ended() -> None:
    """Of one service; others may still be SERVING."""
    global _serving  # noqa: PLW0603
    _serving -= 1


def install_from_environment() -> None:
    """In a server that is a test's child: notes go to its log, as lines that start with LOOP_GUARD."""
    global _owns_process  # noqa: PLW0603
    if os.environ.pop(_VARIABLE, ""):
        install(_write)
        _owns_process = True


def _write(note: str) -> None:
    sys.stderr.write(f"{_VARIABLE} {note}\n")


def switched_on(variables: dict[str, str]) -> dict[str, str]:
    """The same, for a child that calls `install_from_environment`."""
    return {**variables, _VARIABLE: "1"}


def check_log(log: Path) -> None:
    """Fails for what such a child has noted."""
    notes = [line for line in log.read_text().splitlines() if line.startswith(_VARIABLE)]
    assert not notes, "\n".join(notes)


def _wrap(
    module: Any,
    name: str,
    blocks: Callable[..., bool] = lambda *_, **__: True,
    *,
    by_libraries: bool = True,
) -> None:
    if not hasattr(module, name):
        return
    what = f"{module.__name__}.{name}"
    real = _real[what] = getattr(module, name)

    def guarded(*arguments: Any, **values: Any) -> Any:
        if _on_the_loop() and blocks(*arguments, **values):
            _look(what, by_libraries=by_libraries)
        return real(*arguments, **values)

    setattr(module, name, guarded)


class _GuardedHash:
    """Around one hash object: its own type cannot be changed."""

    def __init__(self, name: str, real: Any) -> None:
        self._name = name
        self._real = real

    def update(self, data: Any) -> None:
        _look_at_hash(self._name, data)
        self._real.update(data)

    def copy(self) -> _GuardedHash:
        return _GuardedHash(self._name, self._real.copy())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def _wrap_hash(name: str) -> None:
    real = _real[f"hashlib.{name}"] = getattr(hashlib, name)

    def guarded(data: Any = b"", **values: Any) -> Any:
        _look_at_hash(name, data)
        return _GuardedHash(name, real(data, **values))

    setattr(hashlib, name, guarded)


def _look_at_hash(name: str, data: Any) -> None:
    if memoryview(data).nbytes > _SMALL_BYTES and _on_the_loop():
        _look(f"hashlib.{name} of {memoryview(data).nbytes} bytes")


class _ImportNotes(importlib.abc.MetaPathFinder):
    """Asked first for each module that is not loaded; finds none."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if _serving and _on_the_loop() and not _is_within_import():
            _look(f"import of {name}", by_anybody=_owns_process)
        return None


def _is_within_import() -> bool:
    """A module that is being loaded asks for another: the first one is noted, and that is enough."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "exec_module" and frame.f_code.co_filename.startswith(_IMPORTING):
            return True
        frame = frame.f_back
    return False


def _on_the_loop() -> bool:
    return asyncio._get_running_loop() is not None


def _look(what: str, *, by_libraries: bool = True, by_anybody: bool = False) -> None:
    """Notes it if a coroutine or a callback of the product led here, or with `by_anybody` in any case.

    A test may block its own loop, also through a plain function of the product that it calls itself.
    """
    calls: list[str] = []
    is_product = False
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith(_IMPORTING):
            calls.append(f"{code.co_filename}:{frame.f_lineno} {code.co_name}")
        if code.co_filename.startswith(_PRODUCT):
            is_product = True
            if code.co_flags & _IS_COROUTINE:
                break
        elif code.co_filename.startswith(_TESTS) and not by_anybody:
            return
        elif code.co_filename == asyncio.events.__file__:
            break
        elif not (is_product or by_libraries or code.co_filename.endswith(_SHARED)):
            return
        frame = frame.f_back
    if is_product or by_anybody:
        _report(f"{what}: " + " < ".join(calls))

"""Notes what this process makes and has to end: sockets, transports, threads, loops' tasks, gRPC's ends.

Everything is held weakly and noted with the place that made it. An object that sits in uncollected garbage is
therefore still seen, without a run of the garbage collector, which would cost more than most tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import sysconfig
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import grpc
from grpc.aio import _channel, _server

#: The frames that led to something, the innermost first: code, and where in it. The line is looked up when it
#: is told, for that takes longer than everything else here.
Place = list[tuple[CodeType, int]]

_DEEP = 40
#: Of what is made very often: tasks and open files.
_LESS_DEEP = 14
_SHOWN = 6
_ROOT = str(Path(__file__).resolve().parent.parent.parent) + os.sep
_LIBRARIES = tuple(
    sysconfig.get_paths()[name] + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
_GRPC = str(Path(grpc.__file__).parent) + os.sep
_HARNESS = ("_pytest", "pluggy", "pytest_asyncio", "xdist", "execnet")


@dataclass
class Made:
    """One thing that was made. `left` says what is still there, or nothing."""

    reference: Callable[[], Any]
    left: Callable[[Any], str]
    end: Callable[[Any], object]
    place: Place

    def is_left(self) -> str:
        """What it is, if it has not ended."""
        thing = self.reference()
        return self.left(thing) if thing is not None else ""

    def dispose(self) -> None:
        """Ends it for whoever forgot to."""
        thing = self.reference()
        if thing is not None:
            with contextlib.suppress(Exception):
                self.end(thing)


#: What was made since the last `taken`.
_made: list[Made] = []
_opened: dict[str, Place] = {}
_temporary: dict[str, Place] = {}
_shared: list[weakref.ref[socket.socket]] = []
_tasks: weakref.WeakKeyDictionary[asyncio.Task[Any], Place] = weakref.WeakKeyDictionary()
_installed: list[bool] = []
#: Whether a child process was started since the last `taken`.
_has_spawned = False


@dataclass
class Taken:
    """What was made since the last time."""

    made: list[Made]
    #: Path of a file -> who opened it last.
    opened: dict[str, Place]
    #: Path of a temporary file or directory -> who made it.
    temporary: dict[str, Place]
    has_spawned: bool


def taken() -> Taken:
    """What was made since the last time."""
    global _has_spawned  # noqa: PLW0603 (the hooks are the process's as well)
    result = Taken(_made[:], dict(_opened), dict(_temporary), _has_spawned)
    for notes in (_made, _opened, _temporary):
        notes.clear()
    _has_spawned = False
    return result


def note(thing: Any, left: Callable[[Any], str], end: Callable[[Any], object]) -> None:
    """Notes a thing that has to be ended, with the place that made it."""
    place = here()
    if not (isinstance(thing, socket.socket | threading.Thread) and _is_of_grpc(place)):
        _made.append(Made(weakref.ref(thing), left, end, place))
    elif isinstance(thing, socket.socket):
        _shared.append(weakref.ref(thing))


def shared_descriptors() -> set[int]:
    """Of gRPC: it wakes all loops of a process by one thread and one pair of sockets, and counts users."""
    _shared[:] = [reference for reference in _shared if reference() is not None]
    return {shared.fileno() for reference in _shared if (shared := reference()) is not None}


def here(deep: int = _DEEP) -> Place:
    """The frames of the caller, without those of this module."""
    place: Place = []
    frame: FrameType | None = sys._getframe(1)
    for _ in range(deep):
        if frame is None:
            break
        code = frame.f_code
        if code.co_filename != __file__:
            place.append((code, frame.f_lasti))
        frame = frame.f_back
    return place


def described(place: Place) -> str:
    """`tests/a.py:12 function < its caller < ...`: our own frames, or a library's where there are none."""
    frames = [(code, where) for code, where in place if not code.co_filename.startswith("<")]
    ours = [(code, where) for code, where in frames if not code.co_filename.startswith(_LIBRARIES)]
    theirs = [
        (code, where) for code, where in frames if not any(part in code.co_filename for part in _HARNESS)
    ]
    shown = [
        f"{code.co_filename.removeprefix(_ROOT)}:{_line(code, where)} {code.co_name}"
        for code, where in (ours or theirs)[:_SHOWN]
    ]
    return " < ".join(shown) or "an unknown place"


def _line(code: CodeType, where: int) -> int:
    lines = (line for start, end, line in code.co_lines() if start <= where < end and line is not None)
    return next(lines, code.co_firstlineno)


def _is_of_grpc(place: Place) -> bool:
    for code, _ in place:
        if code.co_filename.startswith(_GRPC):
            return True
        if not code.co_filename.startswith(_LIBRARIES[0]):
            return False
    return False


def install() -> None:
    """Starts to note, once for the process."""
    if _installed:
        return
    _installed.append(True)
    sys.addaudithook(_on_event)
    _after(socket.socket, "__init__", lambda made: note(made, _open_socket, socket.socket.close))
    _after(threading.Thread, "start", lambda made: note(made, _running_thread, lambda _: None))
    _after(asyncio.BaseTransport, "__init__", lambda made: note(made, _open_transport, _abort))
    _after(_channel.Channel, "__init__", lambda made: note(made, _open_channel, _close_channel))
    _after(_server.Server, "__init__", lambda made: note(made, _running_server, lambda _: None))
    create_task = asyncio.BaseEventLoop.create_task
    close_loop, close_runner = asyncio.BaseEventLoop.close, asyncio.Runner.close

    def noted_task(loop: Any, *arguments: Any, **values: Any) -> Any:
        task = create_task(loop, *arguments, **values)
        _tasks[task] = here(_LESS_DEEP)
        return task

    def noted_close(loop: Any) -> None:
        _note_tasks(loop)
        close_loop(loop)

    def noted_runner_close(runner: Any) -> None:
        # Here, for `close` cancels them.
        _note_tasks(getattr(runner, "_loop", None))
        close_runner(runner)

    for kind, name, wrapper in (
        (asyncio.BaseEventLoop, "create_task", noted_task),
        (asyncio.BaseEventLoop, "close", noted_close),
        (asyncio.Runner, "close", noted_runner_close),
    ):
        setattr(kind, name, wrapper)


def _after(kind: Any, name: str, then: Callable[[Any], None]) -> None:
    real = getattr(kind, name)

    def noted(self: Any, *arguments: Any, **values: Any) -> Any:
        result = real(self, *arguments, **values)
        then(self)
        return result

    setattr(kind, name, noted)


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    """Python's audit events: for what has no object that one could wrap."""
    global _has_spawned  # noqa: PLW0603
    if event == "open":
        if isinstance(arguments[0], str):
            _opened[arguments[0]] = here(_LESS_DEEP)
    elif event in ("tempfile.mkdtemp", "tempfile.mkstemp"):
        _temporary[str(arguments[0])] = here()
    elif event in ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.forkpty"):
        _has_spawned = True


def _note_tasks(loop: asyncio.AbstractEventLoop | None) -> None:
    if loop is None or loop.is_closed():
        return
    for task in asyncio.all_tasks(loop):
        # Told as it is now: it is cancelled right after.
        text = f"task {task!r}"
        _made.append(Made(lambda text=text: text, str, lambda _: None, _tasks.get(task, [])))  # type: ignore[misc]


def _open_socket(made: socket.socket) -> str:
    return f"socket {made!r}" if made.fileno() >= 0 else ""


def _open_transport(made: Any) -> str:
    # What each kind of transport warns of when it is collected.
    if isinstance(made, asyncio.SubprocessTransport):
        is_open = not getattr(made, "_closed", True)
    else:
        is_open = getattr(made, "_sock", None) is not None or getattr(made, "_pipe", None) is not None
    return f"transport {made!r}" if is_open else ""


def _abort(made: Any) -> None:
    getattr(made, "abort", made.close)()


def _running_thread(made: threading.Thread) -> str:
    return f"thread {made!r}" if made.is_alive() else ""


def _open_channel(made: Any) -> str:
    return "" if made._channel.closed() else f"gRPC channel {made!r}"


def _close_channel(made: Any) -> None:
    made._channel.close()


def _running_server(made: Any) -> str:
    return f"gRPC server {made!r}" if made._server.is_running() else ""

"""What this process has open and running, as the kernel knows it."""

from __future__ import annotations

import os
import uuid

#: In the environment of every child, and of their children: who was left without a parent is found by it.
_VARIABLE = "TEST_PROCESS_FAMILY"
#: Processes of others, looked at once.
_strangers: set[str] = set()
#: gRPC's core keeps a changing number of these for the whole process; Python's belong to loops, which are
#: known by their sockets.
_IGNORED = ("anon_inode:[eventpoll]", "anon_inode:[eventfd]", "anon_inode:[timerfd]")


def mark_family() -> None:
    """Marks the environment that children get from now on."""
    os.environ[_VARIABLE] = uuid.uuid4().hex


def descriptors(without: set[int]) -> dict[str, str]:
    """Descriptor -> what it is, `socket:[inode]` or a path. Not the standard streams: pytest moves them."""
    found = {}
    names = {str(number) for number in {0, 1, 2} | without}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 (called after every test)
        if name in names:
            continue
        try:
            target = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
        except FileNotFoundError:  # the listing's own
            continue
        if target not in _IGNORED:
            found[name] = target
    return found


def has_children() -> bool:
    """Whether there is any child process, running or not waited for."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def family() -> dict[int, str]:
    """Process -> its command line: our children, and whoever of theirs is left."""
    mark = f"{_VARIABLE}={os.environ.get(_VARIABLE)}".encode()
    me = os.getpid()
    found = {}
    names = {name for name in os.listdir("/proc") if name.isdigit()} - {str(me)}  # noqa: PTH208
    _strangers.intersection_update(names)
    for name in names - _strangers:
        try:
            if _parent(name) == me or mark in _read(name, "environ").split(b"\0"):
                line = _read(name, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
                found[int(name)] = line or "a process that ended and was not waited for"
            else:
                _strangers.add(name)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def _parent(name: str) -> int:
    # After the program's name, which is in brackets and may hold anything: state, parent, ...
    return int(_read(name, "stat").rpartition(b")")[2].split()[1])


def _read(name: str, what: str) -> bytes:
    with open(f"/proc/{name}/{what}", "rb") as file:  # noqa: PTH123
        return file.read()

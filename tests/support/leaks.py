"""A pytest plugin that charges what a test leaves behind to that test.

Every socket, asyncio transport, task, thread, gRPC channel and server, open file, temporary file and child
process has an owner: the test that ran when it was made, or the module or session if a fixture of that scope
made it, or if the test runs on the loop of its module. When pytest has torn the owner down, nothing of it may
be left. What is left is told as an error in the teardown of the last test, with the place that made it.

What is on its way out (gRPC's core closes its sockets in threads of its own) is waited for.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support import made, processes
from tests.support.made import Made, Place

#: Only what nobody ends takes so long.
_GRACE_SECONDS = 5.0
_TEMPORARY = tempfile.gettempdir()
_SCOPES: dict[str, type[pytest.Item | pytest.Collector]] = {
    "class": pytest.Class,
    "module": pytest.Module,
    "package": pytest.Package,
    "session": pytest.Session,
}


@dataclass
class _Owned:
    """What one test, module or session has made."""

    made: list[Made] = field(default_factory=list)
    descriptors: dict[str, str] = field(default_factory=dict)
    processes: dict[int, str] = field(default_factory=dict)
    opened: dict[str, Place] = field(default_factory=dict)
    temporary: dict[str, Place] = field(default_factory=dict)

    def left(self) -> list[str]:
        """What of it is still there."""
        things = [(one, text) for one in self.made if (text := one.is_left())]
        lines = [f"{text}, made by {made.described(one.place)}" for one, text in things]
        known = {str(one.reference().fileno()) for one, text in things if text.startswith("socket ")}
        now = processes.descriptors(made.shared_descriptors()) if self.descriptors else {}
        for number, target in self.descriptors.items():
            if now.get(number) == target and number not in known:
                lines.append(f"descriptor {number} of {target}{self._opened_by(target)}")
        running = processes.family() if self.processes else {}
        lines += [f"process {number}: {line}" for number, line in self.processes.items() if number in running]
        lines += [
            f"temporary file or directory {path}, made by {made.described(place)}"
            for path, place in self.temporary.items()
            if Path(path).exists()
        ]
        return lines

    def _opened_by(self, path: str) -> str:
        return f", opened by {made.described(self.opened[path])}" if path in self.opened else ""

    def dispose(self) -> None:
        """Ends what can be ended, lest it be charged to the next one as well."""
        for one in self.made:
            one.dispose()
        for number in processes.family() if self.processes else ():
            if number in self.processes:
                with contextlib.suppress(OSError):
                    os.kill(number, signal.SIGKILL)
        self.made.clear()
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                gc.collect()
        finally:
            sys.unraisablehook = hook


class LeakCheck:
    """The hooks."""

    def __init__(self) -> None:
        self._owners: dict[Any, _Owned] = {}
        self._descriptors: dict[str, str] = {}
        self._processes: dict[int, str] = {}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """What pytest itself has made by now is nobody's."""
        self._book(_Owned())
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """What a fixture of a wider scope makes outlives the test that happened to ask for it first."""
        if fixturedef.scope == "function":
            return (yield)
        self._book(self._owned(_owner(request._pyfuncitem)))
        try:
            return (yield)
        finally:
            self._book(self._owned(request.node))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """The last thing of a test: everything that was torn down with it is looked at."""
        try:
            result = yield
        except BaseException as error:
            for line in self._charge(item, nextitem):
                error.add_note(line)
            raise
        lines = self._charge(item, nextitem)
        if lines:
            pytest.fail("\n".join(lines), pytrace=False)
        return result

    def _charge(self, item: pytest.Item, nextitem: pytest.Item | None) -> list[str]:
        self._book(self._owned(_owner(item)))
        staying = set(nextitem.listchain()) if nextitem is not None else set()
        lines = []
        for node in reversed(item.listchain()):
            owned = self._owners.pop(node, None) if node not in staying else None
            # What the session owns ends with its process.
            left = [] if owned is None or isinstance(node, pytest.Session) else _left_at_last(owned)
            if owned is not None and left:
                owned.dispose()
                lines += [f"{node.nodeid} leaves:", *(f"  {line}" for line in left)]
        return lines

    def _owned(self, node: Any) -> _Owned:
        return self._owners.setdefault(node, _Owned())

    def _book(self, owned: _Owned) -> None:
        """Everything that is new is this one's."""
        new = made.taken()
        owned.made += [one for one in new.made if one.reference() is not None]
        now = processes.descriptors(made.shared_descriptors())
        owned.descriptors.update(
            (name, target) for name, target in now.items() if self._descriptors.get(name) != target
        )
        self._descriptors = now
        if new.has_spawned or self._processes or processes.has_children():
            family = processes.family()
            owned.processes.update(
                (number, line) for number, line in family.items() if number not in self._processes
            )
            self._processes = family
        owned.opened.update(
            (path, place) for path, place in new.opened.items() if path in owned.descriptors.values()
        )
        # pytest removes what is below its own directories.
        owned.temporary.update(
            (path, place) for path, place in new.temporary.items() if str(Path(path).parent) == _TEMPORARY
        )


def _owner(item: pytest.Item) -> Any:
    """Who answers for what happens in this test: itself, or the module if they share a loop."""
    marker = item.get_closest_marker("asyncio")
    scope = marker.kwargs.get("loop_scope", "function") if marker is not None else "function"
    return item.getparent(_SCOPES[scope]) if scope in _SCOPES else item


def _left_at_last(owned: _Owned) -> list[str]:
    """What is left when nothing goes of itself any more."""
    left = owned.left()
    pause, deadline = 0.001, time.monotonic() + _GRACE_SECONDS
    while left and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
        left = owned.left()
    return left


def pytest_configure(config: pytest.Config) -> None:
    """For `-p tests.support.leaks`, and called by tests/conftest.py: whichever comes first."""
    if not config.pluginmanager.has_plugin("leak-check"):
        made.install()
        processes.mark_family()
        config.pluginmanager.register(LeakCheck(), "leak-check")

"""The guard that fails the suite for a blocking call on the loop's thread: each kind, planted.

Breaks when: a kind of call is not noted, one in a thread or of a test's own is, or a child's notes are lost.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.house.source import ROOT
from tests.support import loop_guard

_PRODUCT_FILE = str(ROOT / "ingest_service" / "ingests" / "planted.py")
_TEST_FILE = str(ROOT / "tests" / "planted.py")
_IMPORTS = "import hashlib, os, pathlib, socket, sqlite3, time\n"
#: What -> how the product might come to do it; `path` is a file of 100 000 bytes, `fd` the same, opened.
PLANTED = {
    "hashlib.sha256": "hashlib.sha256().update(bytes(100_000))",
    "hashlib.blake2b": "hashlib.blake2b(bytearray(100_000))",
    "hashlib.sha1": "hashlib.sha1().copy().update(memoryview(bytes(100_000)))",
    "os.pwrite": "os.pwrite(fd, b'x', 0)",
    "os.pwritev": "os.pwritev(fd, [b'x'], 0)",
    "os.fsync": "os.fsync(fd)",
    "os.fdatasync": "os.fdatasync(fd)",
    "os.ftruncate": "os.ftruncate(fd, 100_000)",
    "os.read": "os.read(fd, 10)",
    "os.pread": "os.pread(fd, 10, 0)",
    "os.preadv": "os.preadv(fd, [bytearray(10)], 0)",
    "os.stat": "pathlib.Path(path).stat()",
    "os.open": "os.close(os.open(path, os.O_RDONLY))",
    "os.listdir": "os.listdir(os.path.dirname(path))",
    "os.rename": "os.rename(path, path)",
    "os.statvfs": "os.statvfs(path)",
    "sqlite3.connect": "sqlite3.connect(':memory:').close()",
    "socket.getaddrinfo": "socket.getaddrinfo('127.0.0.1', 80)",
    "socket.gethostbyname": "socket.gethostbyname('127.0.0.1')",
    "time.sleep": "time.sleep(0)",
}
#: Legal where it stands.
HARMLESS = {
    "a small hash": "hashlib.sha256(bytes(60_000)).hexdigest()",
    "a pipe that is read": "r, w = os.pipe(); os.write(w, b'x'); os.read(r, 1); os.close(r); os.close(w)",
    "the clock": "time.monotonic()",
}


def _function(source: str, file: str, kind: str = "def") -> Callable[[str, int], Any]:
    names: dict[str, Any] = {}
    code = f"{_IMPORTS}{kind} planted(path, fd):\n    {source}\n"
    exec(compile(code, file, "exec"), names)
    planted: Callable[[str, int], Any] = names["planted"]
    return planted


@pytest.fixture
def opened(tmp_path: Path) -> Any:
    path = tmp_path / "file"
    path.write_bytes(bytes(100_000))
    with path.open("r+b") as file:
        yield str(path), file.fileno()


@pytest.mark.parametrize("what", PLANTED)
async def test_a_blocking_call_of_the_product_is_noted(what: str, opened: tuple[str, int]) -> None:
    await _function(PLANTED[what], _PRODUCT_FILE, "async def")(*opened)
    (note,) = loop_guard.taken()
    assert note.partition(":")[0].partition(" ")[0] == what
    assert "planted.py:3 planted" in note
    assert loop_guard.taken() == []


async def test_so_is_one_in_a_callback(opened: tuple[str, int]) -> None:
    asyncio.get_running_loop().call_soon(_function(PLANTED["os.fsync"], _PRODUCT_FILE), *opened)
    await asyncio.sleep(0)
    assert [note.partition(":")[0] for note in loop_guard.taken()] == ["os.fsync"]


@pytest.mark.parametrize("what", PLANTED)
async def test_not_in_a_thread_and_not_of_a_test(what: str, opened: tuple[str, int]) -> None:
    await asyncio.to_thread(_function(PLANTED[what], _PRODUCT_FILE), *opened)
    await _function(PLANTED[what], _TEST_FILE, "async def")(*opened)
    # A plain function of the product that a test calls.
    _function(PLANTED[what], _PRODUCT_FILE)(*opened)
    assert loop_guard.taken() == []


@pytest.mark.parametrize("what", PLANTED)
def test_not_without_a_loop(what: str, opened: tuple[str, int]) -> None:
    _function(PLANTED[what], _PRODUCT_FILE)(*opened)
    assert loop_guard.taken() == []


@pytest.mark.parametrize("what", HARMLESS)
async def test_what_blocks_nobody_is_not_noted(what: str, opened: tuple[str, int]) -> None:
    await _function(HARMLESS[what], _PRODUCT_FILE, "async def")(*opened)
    assert loop_guard.taken() == []


@pytest.fixture
def new_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module that no process has imported, and that imports another one."""
    (tmp_path / "planted_module.py").write_text("import planted_second\n")
    (tmp_path / "planted_second.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield "planted_module"
    for name in ("planted_module", "planted_second"):
        sys.modules.pop(name, None)


@pytest.fixture
def serving() -> Iterator[None]:
    loop_guard.serving_began()
    yield
    loop_guard.serving_ended()


async def test_an_import_while_a_service_is_serving_is_noted_once(new_module: str, serving: None) -> None:
    planted = _function(f"import {new_module}", _PRODUCT_FILE, "async def")
    await planted("", 0)
    (note,) = loop_guard.taken()
    assert note.startswith("import of planted_module: ")
    assert "planted.py:3 planted" in note
    await planted("", 0)
    assert loop_guard.taken() == []


async def test_so_is_one_that_looks_in_vain_each_time(serving: None) -> None:
    source = "try: import planted_nowhere\n    except ImportError: pass"
    for _ in range(2):
        await _function(source, _PRODUCT_FILE, "async def")("", 0)
    assert [note.partition(":")[0] for note in loop_guard.taken()] == ["import of planted_nowhere"] * 2


async def test_not_while_it_boots_not_in_a_thread_and_not_of_a_test(new_module: str) -> None:
    source = f"import {new_module}"
    await _function(source, _PRODUCT_FILE, "async def")("", 0)
    sys.modules.pop(new_module)
    loop_guard.serving_began()
    try:
        await asyncio.to_thread(_function(source, _PRODUCT_FILE), "", 0)
        sys.modules.pop(new_module)
        await _function(source, _TEST_FILE, "async def")("", 0)
    finally:
        loop_guard.serving_ended()
    assert loop_guard.taken() == []


def test_a_hash_is_what_it_was() -> None:
    import hashlib

    one = hashlib.sha256(b"a")
    two = one.copy()
    two.update(b"b")
    assert (one.hexdigest()[:8], two.hexdigest()[:8]) == ("ca978112", "fb8e20fc")
    assert (one.digest_size, one.name) == (32, "sha256")


_CHILD = f"""
import asyncio, os
from tests.support import loop_guard
loop_guard.install_from_environment()
names = {{}}
source = "import os\\nasync def planted():\\n    os.fsync(file.fileno())\\n"
exec(compile(source, {_PRODUCT_FILE!r}, "exec"), names)
import tempfile
async def main():
    with tempfile.TemporaryFile() as names["file"]:
        await names["planted"]()
asyncio.run(main())
"""


@pytest.mark.extended
@pytest.mark.parametrize("on", [True, False])
def test_a_child_writes_it_to_its_log(on: bool, tmp_path: Path) -> None:
    log, variables = tmp_path / "log", {"PATH": "/usr/bin:/bin"}
    with log.open("wb") as sink:
        subprocess.run(
            [sys.executable, "-c", _CHILD], cwd=ROOT, check=True, stderr=sink,
            env=loop_guard.switched_on(variables) if on else variables,
        )  # fmt: skip
    if on:
        with pytest.raises(AssertionError, match=r"os\.fsync"):
            loop_guard.check_log(log)
    else:
        loop_guard.check_log(log)

"""What a test leaves behind is charged to that test, with its place; one planted test leaves each kind.

Breaks when: a kind is not charged, or to the wrong test, or what a wider scope or nobody owns is.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.source import ROOT

_HEAD = '''
import asyncio, gc, os, socket, subprocess, sys, tempfile, threading, time
import grpc, pytest
from tests.support import leaks

kept = []
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]

@pytest.fixture(autouse=True)
def patience(request):
    """What is left on purpose is not waited for; what ends of itself is."""
    leaks._GRACE_SECONDS = 30 if "clean" in request.node.name else 0.1

@pytest.fixture(scope="module")
def shared():
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    with socket.socket() as made, open(__file__) as file:
        yield made
    stop.set()
    thread.join()

@pytest.fixture
def own():
    with socket.socket() as made:
        yield made
'''
#: Kind -> what is told, what leaves it.
LEFT = {
    "socket": ("socket <", "def test():\n    kept.append(socket.socket())"),
    "socket_in_garbage": (
        "socket <",
        "def test():\n    a, b = socket.socketpair()\n    b.close()\n    ring = [a]\n    ring.append(ring)",
    ),
    "transport": (
        "transport <",
        (
            "async def test():\n    async def serve(r, w):\n        await asyncio.sleep(600)\n"
            "    server = await asyncio.start_server(serve, '127.0.0.1', 0)\n"
            "    kept.append(await asyncio.open_connection(*server.sockets[0].getsockname()))\n"
            "    server.close()"
        ),
    ),
    "task": (
        "task <",
        "async def test():\n    kept.append(asyncio.create_task(asyncio.sleep(600), name='lost'))",
    ),
    "thread": (
        "thread <",
        "def test():\n    threading.Thread(target=time.sleep, args=(20,), daemon=True).start()",
    ),
    "child": ("process ", "def test():\n    kept.append(subprocess.Popen(SLEEP))"),
    "zombie": (
        "process ",
        "def test():\n    os.posix_spawn(sys.executable, [sys.executable, '-c', ''], os.environ)",
    ),
    "orphan": (
        "process ",
        (
            "def test():\n"
            "    code = 'import subprocess, sys; subprocess.Popen(sys.argv[1:])'\n"
            "    subprocess.run([sys.executable, '-c', code, *SLEEP], check=True)"
        ),
    ),
    "file": ("descriptor ", "def test(tmp_path):\n    kept.append((tmp_path / 'file').open('w'))"),
    "pipe": ("descriptor ", "def test():\n    os.pipe()"),
    "temporary": ("temporary ", "def test():\n    kept.append(tempfile.mkdtemp())"),
    "channel": (
        "gRPC channel <",
        "async def test():\n    kept.append(grpc.aio.insecure_channel('127.0.0.1:1'))",
    ),
    "server": (
        "gRPC server <",
        (
            "async def test():\n    server = grpc.aio.server()\n"
            "    server.add_insecure_port('127.0.0.1:0')\n    await server.start()\n    kept.append(server)"
        ),
    ),
    "by_a_fixture": ("socket <", "def test(own, shared):\n    kept.append(own.dup())"),
}
#: Nothing is left of these, or not of the test.
CLEAN = {
    "its_own": "def test():\n    with socket.socket(), open(__file__), tempfile.TemporaryDirectory(): pass",
    "of_the_module": "def test(shared):\n    assert shared.fileno() >= 0",
    "of_the_module_again": "def test(shared):\n    assert shared.fileno() >= 0",
    "late": "def test():\n    threading.Thread(target=time.sleep, args=(0.05,)).start()",
    "its_child": "def test():\n    subprocess.run([sys.executable, '-c', ''], check=True)",
    "grpc": (
        "async def test():\n    server = grpc.aio.server()\n"
        "    port = server.add_insecure_port('127.0.0.1:0')\n"
        "    await server.start()\n"
        "    async with grpc.aio.insecure_channel(f'127.0.0.1:{port}') as channel:\n"
        "        await channel.channel_ready()\n"
        "    await server.stop(0)"
    ),
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest says of all of them; after every leak comes a test that is clean."""
    directory: Path = tmp_path_factory.mktemp("leaks")
    tests = []
    for name, (_, source) in LEFT.items():
        tests += [(f"left_{name}", source), (f"clean_after_{name}", "def test(own):\n    pass")]
    tests += [(f"clean_{name}", source) for name, source in CLEAN.items()]
    # Its loop is its module's, so the module answers for it: told at the module's last test.
    last = "@pytest.mark.asyncio(loop_scope='module')\nasync def test():\n    kept.append(socket.socket())"
    bodies = [
        source.replace("def test(", f"def test_{name}(", 1) for name, source in [*tests, ("last", last)]
    ]
    path = directory / "test_planted.py"
    path.write_text("\n\n".join([_HEAD, *bodies]))
    (directory / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
        "filterwarnings = error\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "tests.support.leaks", "-p", "no:cacheprovider"]
    command += ["-p", "no:randomly", "-c", str(directory / "pytest.ini"), str(path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)
    return ended.stdout + ended.stderr


def _charged(report: str) -> dict[str, str]:
    """Test -> what is told at its end."""
    parts = re.split(r"^_+ ERROR at teardown of test_(\w+) _+$", report, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.extended
@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_is_charged(report: str, name: str) -> None:
    told = _charged(report)[f"left_{name}"].partition("\n_")[0]
    assert f"test_planted.py::test_left_{name} leaves:\n" in told
    assert f"\n  {LEFT[name][0]}" in told
    if LEFT[name][0] not in {"process ", "descriptor "} or name == "file":
        assert re.search(rf", (made|opened) by \S*test_planted.py:\d+ test_left_{name}", told)


@pytest.mark.extended
def test_nobody_else_is_charged(report: str) -> None:
    charged = set(_charged(report))
    assert charged == {f"left_{name}" for name in LEFT} | {"last"}
    assert f"{2 * len(LEFT) + len(CLEAN) + 1} passed, {len(charged)} errors" in report


def test_a_module_answers_for_tests_on_its_loop(report: str) -> None:
    told = _charged(report)["last"]
    assert re.search(r"test_planted.py leaves:\n  socket <.*, made by \S*test_planted.py:\d+ test_last", told)

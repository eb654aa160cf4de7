"""`python -m ingest_service rebuild` as a program: names from a file, a terminal, Ctrl-C, a kill, many blobs.

Breaks when: a name is read wrongly or passed over, progress is written into a file or pipe, an interruption
ends with a traceback, a rebuild that was killed cannot be repeated, or its memory grows with the blobs.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ingest_service import rebuilding
from ingest_service.app import Service
from ingest_service.process import StartError
from tests.app.test_rebuild import FIRST, SECOND, SHARDS, lay
from tests.conftest import StartService
from tests.support.files import digest, gguf
from tests.support.models import MODEL, model
from tests.support.service import ROOT, environment, settings_for

ONE, TWO = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"


async def store_of(tmp_path: Path, *blobs: bytes) -> Path:
    """A data directory that has a store's id and these blobs; its database is lost."""
    data_dir = tmp_path / "data"
    service = Service(settings_for(data_dir, f"sqlite+aiosqlite:///{tmp_path}/lost.db"))
    try:
        await service.opened.open()
    finally:
        await service.opened.close()
    lay(data_dir, *blobs)
    return data_dir


def variables(tmp_path: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("INGEST_")}
    return {**inherited, **environment(tmp_path / "data", f"sqlite+aiosqlite:///{tmp_path}/new.db")}


#: The command, which sends itself a signal the n-th time that it comes by a method.
_SIGNALLED = """
import os, sys
from ingest_service.store_opening import OpenedStore
from ingest_service.database.blob_queries import BlobQueries
from ingest_service.ingests.service import Ingests
from ingest_service.storage import LocalQuarantine
from ingest_service.__main__ import main
owner, name, number, phase, sent = sys.argv[1].split(":")
owner, left = globals()[owner], [int(number)]
real = getattr(owner, name)
async def signalled(*arguments, **values):
    left[0] -= 1
    if left[0] == 0 and phase == "before":
        os.kill(os.getpid(), int(sent))
    answer = await real(*arguments, **values)
    if left[0] == 0 and phase == "after":
        os.kill(os.getpid(), int(sent))
    return answer
setattr(owner, name, signalled)
sys.argv[1:] = ["rebuild", *sys.argv[2:]]
sys.exit(main())
"""


async def run(tmp_path: Path, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments,
        cwd=ROOT, env=variables(tmp_path), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def listed(out: str) -> dict[str, Any]:
    lines = [json.loads(line) for line in out.splitlines()]
    return {line["model"]: line["digests"] for line in lines if line.get("outcome") == "listed"}


def test_names_from_a_file(tmp_path: Path) -> None:
    names = tmp_path / "names"
    names.write_text(f"# all of them\n\n {ONE} = one:q8 # the first\nsha256-{'2' * 64}=two\n{ONE}=one:q8\n")
    assert rebuilding._names([f"{TWO}=two"], str(names)) == {TWO: "two", ONE: "one:q8"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"{ONE}", "line 2: write sha256:HEX=NAME"),
        ("sha256:12=name", "line 2: write sha256:HEX=NAME"),
        (f"{ONE}=a b", "line 2: write sha256:HEX=NAME"),
        (f"{TWO}=other", "line 2: .* was given another name before"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(line: str, words: str, tmp_path: Path) -> None:
    names = tmp_path / "names"
    names.write_text(f"{TWO}=two\n{line}\n")
    with pytest.raises(StartError, match=words):
        rebuilding._names([], str(names))


def test_a_file_of_names_that_cannot_be_read_or_is_no_such_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StartError, match="cannot be read"):
        rebuilding._names([], str(tmp_path / "none"))
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(StartError, match="cannot be read"):
        rebuilding._names([], str(tmp_path / "bytes"))
    # Not cut off in the middle of a line.
    monkeypatch.setattr(rebuilding, "_MAX_NAMES_BYTES", 100)
    (tmp_path / "long").write_text(f"{ONE}=one\n" * 2)
    with pytest.raises(StartError, match="longer than 100 bytes"):
        rebuilding._names([], str(tmp_path / "long"))


@pytest.mark.extended
async def test_progress_goes_to_a_terminal_only(tmp_path: Path) -> None:
    await store_of(tmp_path, FIRST)
    ours, theirs = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ingest_service", "rebuild",
            cwd=ROOT, env=variables(tmp_path), stdout=asyncio.subprocess.PIPE, stderr=theirs,
        )  # fmt: skip
    finally:
        os.close(theirs)
    reading = asyncio.create_task(asyncio.to_thread(_all_of, ours))
    out, _ = await process.communicate()
    shown = (await reading).decode()
    assert process.returncode == 0
    assert "\rblob 1 of 1, 0.0 of 0.0 GB read\x1b[K" in shown
    assert "blob 1" not in out.decode()
    _, out_again, err = await run(tmp_path, "-m", "ingest_service", "rebuild")
    assert "known: " in out_again
    assert "\r" not in err
    assert "blob 1" not in err


def _all_of(descriptor: int) -> bytes:
    read = bytearray()
    # A terminal whose other end is closed answers EIO.
    with os.fdopen(descriptor, "rb", buffering=0) as terminal, suppress(OSError):
        while part := terminal.read(4096):
            read += part
    return bytes(read)


@pytest.mark.extended
@pytest.mark.parametrize(
    "where", ["BlobQueries:make_live:2:before", "OpenedStore:open:1:before", "OpenedStore:open:1:after"]
)
async def test_ctrl_c_ends_it_in_good_order(where: str, tmp_path: Path) -> None:
    await store_of(tmp_path, FIRST, SECOND)
    code, _, err = await run(tmp_path, "-c", _SIGNALLED, f"{where}:{signal.SIGINT:d}")
    assert code == 130, err
    assert "Traceback" not in err
    assert "interrupted: run it again" in err
    code, out, _ = await run(tmp_path, "-m", "ingest_service", "rebuild", "--json")
    assert (code, len(listed(out))) == (0, 2)


@pytest.mark.extended
@pytest.mark.parametrize(
    "where",
    [
        "BlobQueries:make_live:1:before",
        "BlobQueries:make_live:3:after",
        "LocalQuarantine:take_back:1:before",
        "LocalQuarantine:take_back:1:after",
        "Ingests:create:1:before",
        "Ingests:create:2:after",
        "OpenedStore:give_store_id:1:before",
        "OpenedStore:give_store_id:1:after",
    ],
)
async def test_one_that_was_killed_is_repeated_and_right(
    where: str, tmp_path: Path, start_service: StartService
) -> None:
    data_dir = await store_of(tmp_path, FIRST, SECOND, *SHARDS)
    aside = gguf(50_000, seed=7)
    lay(data_dir, aside, under="quarantine")
    code, out, err = await run(tmp_path, "-c", _SIGNALLED, f"{where}:{signal.SIGKILL:d}", "--json")
    assert code == -signal.SIGKILL, err
    url = f"sqlite+aiosqlite:///{tmp_path}/new.db"
    if not where.startswith("OpenedStore:give_store_id:1:after"):
        with pytest.raises(StartError, match="rebuild"):
            await start_service(data_dir=data_dir, database_url=url)
    code, again, err = await run(tmp_path, "-m", "ingest_service", "rebuild", "--json")
    assert code == 0, err
    # Nothing is listed twice.
    said = [digest for one in (out, again) for digests in listed(one).values() for digest in digests]
    assert len(said) == len(set(said))
    service = await start_service(data_dir=data_dir, database_url=url)
    models, _ = await service.service.ingests.models(prefix="", after=None, limit=99)
    found = sorted(tuple(file.sha256 for file in one.newest.files) for one in models)
    single = [(digest(data),) for data in (FIRST, SECOND, aside)]
    assert found == sorted([*single, tuple(map(digest, SHARDS))])


@pytest.mark.extended
async def test_its_memory_does_not_grow_with_the_number_of_blobs(tmp_path: Path) -> None:
    peaks = []
    for number in (5, 600):
        directory = tmp_path / str(number)
        directory.mkdir()
        blobs = (model(600, seed, MODEL | {"general.name": f"Model {seed}"}) for seed in range(number))
        await store_of(directory, *blobs)
        peaks.append(await asyncio.to_thread(_peak_bytes, variables(directory)))
    assert peaks[1] - peaks[0] < 16 * 1024 * 1024


def _peak_bytes(of: dict[str, str]) -> int:
    """Of the resident memory of a rebuild."""
    command = [sys.executable, "-m", "ingest_service", "rebuild", "--json"]
    with Path(os.devnull).open("wb") as sink:
        pid = os.posix_spawn(
            sys.executable, command, {**of, "PYTHONPATH": str(ROOT)},
            file_actions=[(os.POSIX_SPAWN_DUP2, sink.fileno(), 1), (os.POSIX_SPAWN_DUP2, sink.fileno(), 2)],
        )  # fmt: skip
    _, status, usage = os.wait4(pid, 0)
    assert status == 0
    return usage.ru_maxrss * 1024

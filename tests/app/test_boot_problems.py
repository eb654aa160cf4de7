"""A database or directory that cannot be used: one line that names what is wrong and the right remedy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest_service.app import Service
from ingest_service.process import StartError
from ingest_service.vocabulary.errors import DatabaseFull
from tests.app.test_boot import assert_refused
from tests.support.ports import ReservedPort
from tests.support.postgres import PostgresCluster
from tests.support.service import ROOT, environment, settings_for
from tests.support.unprivileged import run_service


async def refusal(data_dir: Path, database_url: str) -> str:
    """What a boot in this process says."""
    service = Service(settings_for(data_dir, database_url))
    with pytest.raises(StartError) as caught:
        await service.start()
    await service.stop(0.0)
    message = str(caught.value)
    assert "\n" not in message
    return message


def _damage_pages(path: Path) -> None:
    """Behind the first page: the file still looks like a database."""
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)


def _make_text(path: Path) -> None:
    path.write_text("GGUF or anything else" * 100)


def _make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.extended_unless("damaged", "text")
@pytest.mark.parametrize(
    ("spoil", "cause", "remedy"),
    [
        pytest.param(_damage_pages, "the file is damaged", "restore it from a backup", id="damaged"),
        pytest.param(_make_text, "no SQLite database", "the service's own database", id="text"),
        pytest.param(_make_directory, "it is a directory", "name a file", id="directory"),
        pytest.param(_make_fifo, "no regular file", "name a file", id="fifo"),
    ],
)
async def test_a_file_that_is_no_database(
    tmp_path: Path, sqlite_url: str, spoil: Callable[[Path], None], cause: str, remedy: str
) -> None:
    spoil(Path(sqlite_url.partition("///")[2]))
    message = await refusal(tmp_path / "data", sqlite_url)
    assert message.startswith("INGEST_DATABASE_URL")
    assert cause in message
    assert remedy in message
    assert "password" not in message


async def test_a_database_whose_directory_is_missing(tmp_path: Path) -> None:
    message = await refusal(tmp_path / "data", f"sqlite+aiosqlite:///{tmp_path}/none/a.db")
    assert f"its directory {tmp_path}/none does not exist" in message


async def test_a_database_that_stays_locked(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ingest_service.database.migrate.LOCK_SECONDS", 1.5)
    with contextlib.closing(sqlite3.connect(sqlite_url.partition("///")[2])) as other:
        other.execute("BEGIN EXCLUSIVE")
        message = await refusal(tmp_path / "data", sqlite_url)
    assert "another program has locked it" in message
    assert "end the program" in message
    waits = [r for r in caplog.records if r.message.startswith("waiting for the database")]
    assert len(waits) == 1


async def test_a_full_database_disk(tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(_: object) -> None:
        raise DatabaseFull

    monkeypatch.setattr("ingest_service.database.Database.prove_writable", full)
    message = await refusal(tmp_path / "data", sqlite_url)
    assert "its disk is full" in message
    assert f"make room on the disk of {tmp_path}" in message


async def test_sigterm_ends_a_boot_that_waits(tmp_path: Path, sqlite_url: str) -> None:
    variables = environment(tmp_path / "data", sqlite_url)
    with contextlib.closing(sqlite3.connect(sqlite_url.partition("///")[2])) as other:
        other.execute("BEGIN EXCLUSIVE")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ingest_service", "serve", cwd=ROOT,
            env={**os.environ, **variables}, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stderr is not None
        async with asyncio.timeout(20):
            while b"waiting for the database" not in (line := await process.stderr.readline()):
                assert line, "it has ended"
            process.send_signal(signal.SIGTERM)
            rest = await process.stderr.read()
            assert await process.wait() == 0
    assert b"Traceback" not in rest


@pytest.mark.extended
def test_permissions_are_no_password(tmp_path: Path, sqlite_url: str) -> None:
    file = Path(sqlite_url.partition("///")[2])
    file.chmod(0o400)
    result = run_service("serve", environment(tmp_path / "data", sqlite_url), is_privileged=False)
    assert_refused(result, "INGEST_DATABASE_URL", f"may not read and write {file}", "give")
    assert "password" not in result.stderr


@pytest.mark.extended
def test_a_directory_of_the_database_that_cannot_be_written(tmp_path: Path, sqlite_url: str) -> None:
    directory = tmp_path / "closed"
    directory.mkdir()
    Path(sqlite_url.partition("///")[2]).rename(directory / "a.db")
    directory.chmod(0o500)
    variables = environment(tmp_path / "data", f"sqlite+aiosqlite:///{directory}/a.db")
    result = run_service("serve", variables, is_privileged=False)
    directory.chmod(0o700)
    assert_refused(result, "INGEST_DATABASE_URL", f"may not write in its directory {directory}")


@pytest.mark.extended_unless("blobs")
@pytest.mark.parametrize("name", ["blobs", "uploads"])
def test_a_part_of_the_directory_that_cannot_be_written(tmp_path: Path, sqlite_url: str, name: str) -> None:
    for part in ("blobs", "uploads", "uploads/.locks"):
        (tmp_path / "data" / part).mkdir(parents=True, mode=0o755 if part == "blobs" else 0o700)
    (tmp_path / "data" / name).chmod(0o500)
    result = run_service("serve", environment(tmp_path / "data", sqlite_url), is_privileged=False)
    (tmp_path / "data" / name).chmod(0o700)
    assert result.returncode == 2, result.stderr
    # Beside it the log says what was made private, and which call failed.
    *_, last = result.stderr.splitlines()
    assert last.startswith(f"error: INGEST_DATA_DIR {tmp_path}/data cannot be written (Permission denied in")
    assert f"{tmp_path}/data/{name})" in last
    assert "give it to" in last
    assert "Traceback" not in result.stderr


@pytest.mark.extended_unless("metrics_listen-1")
@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("setting", ["listen", "metrics_listen"])
def test_a_port_that_is_taken_is_found_before_anything_is_made(
    tmp_path: Path, setting: str, workers: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1] - (setting == "metrics_listen" and workers == "2")
        variables = environment(tmp_path / "data", "", **{setting: f"127.0.0.1:{port}"})
        result = run_service("serve", variables, "--workers", workers)
    assert_refused(result, f"INGEST_{setting.upper()}=127.0.0.1:", "another program listens there")
    assert not (tmp_path / "data").exists()
    # gRPC writes its own line, with its source file in it.
    assert ".cc:" not in result.stderr


async def test_one_port_for_both(tmp_path: Path, sqlite_url: str) -> None:
    free = ReservedPort()
    both = {"listen": free.address, "metrics_listen": free.address}
    service = Service(settings_for(tmp_path / "data", sqlite_url, **both))
    with pytest.raises(StartError, match="INGEST_METRICS_LISTEN"):
        await service.start()
    await service.stop(0.0)


@pytest.mark.extended_unless("3D000")
@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        pytest.param(lambda url: url + "?sslmode=require", "correct sslmode", id="sslmode"),
        pytest.param(lambda url: url + "_none", "create the database", id="3D000"),
        pytest.param(lambda url: url + "?sslmode=sometimes", "the arguments behind `?`", id="nonsense"),
        pytest.param(
            lambda url: url + "?sslmode=verify-full&sslrootcert=/none/ca.pem", "behind `?`", id="sslrootcert"
        ),
        pytest.param(lambda url: url.replace("127.0.0.1", "no-such-host.invalid"), "DNS", id="name"),
    ],
)
async def test_what_is_wrong_with_a_postgresql(
    tmp_path: Path, postgres: PostgresCluster, change: Callable[[str], str], remedy: str
) -> None:
    assert remedy in await refusal(tmp_path / "data", change(postgres.url("postgres")))


async def test_libpqs_names_are_taken(tmp_path: Path, database_url: str) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("PostgreSQL only")
    url = f"{database_url}?sslmode=prefer&connect_timeout=5&application_name=mine"
    service = Service(settings_for(tmp_path / "data", url))
    await service.start()
    async with asyncio.timeout(20):
        while not service.hints.is_connected:
            await asyncio.sleep(0.01)
    await service.stop(0.0)

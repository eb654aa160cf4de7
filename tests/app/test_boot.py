"""A boot that cannot succeed says in one line which setting is wrong and what to do, and exits with 2."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.ports import ReservedPort
from tests.support.service import ROOT, ServiceProcess, environment


def run(command: str, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """`python -m ingest_service <command>`, to its end."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("INGEST_")}
    return subprocess.run(
        [sys.executable, "-m", "ingest_service", command],
        cwd=ROOT, env={**inherited, **variables}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def assert_refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2, and one line that holds all the words: no traceback, and no log beside it.

    But for the one line of any outage of the database.
    """
    assert result.returncode == 2, result.stderr
    others = ("warning: INGEST_ALLOW_", "the database cannot be used")
    lines = [line for line in result.stderr.splitlines() if not any(other in line for other in others)]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in result.stderr


@pytest.mark.extended
def test_a_data_directory_that_is_a_file(tmp_path: Path, sqlite_url: str) -> None:
    (tmp_path / "data").write_text("not a directory")
    assert_refused(
        run("serve", environment(tmp_path / "data", sqlite_url)), "INGEST_DATA_DIR", "cannot be written"
    )


@pytest.mark.extended
def test_a_data_directory_that_cannot_be_written(tmp_path: Path, sqlite_url: str) -> None:
    # /proc takes no directories from anybody, root included.
    result = run("serve", environment(Path("/proc/model-ingest"), sqlite_url))
    assert_refused(result, "INGEST_DATA_DIR", "cannot be written")


@pytest.mark.extended_unless("listen-nonsense")
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("listen", "nonsense", "HOST:PORT"),
        ("listen", "0.0.0.0:50051", "INGEST_ALLOW_INSECURE"),
        ("targets", "http://127.0.0.1:11434", "NAME=URL"),
        ("database_url", "mysql://x", "sqlite+aiosqlite"),
        ("file_threads", "many", "number"),
        ("log_level", "LOUD", "DEBUG"),
    ],
)
def test_a_setting_that_cannot_be_used(
    tmp_path: Path, sqlite_url: str, name: str, value: str, words: str
) -> None:
    variables = environment(tmp_path / "data", sqlite_url) | {f"INGEST_{name.upper()}": value}
    assert_refused(run("serve", variables), f"INGEST_{name.upper()}", words)


@pytest.mark.extended
def test_a_setting_that_nobody_knows(tmp_path: Path, sqlite_url: str) -> None:
    variables = environment(tmp_path / "data", sqlite_url) | {"INGEST_DATADIR": "/x"}
    assert_refused(run("serve", variables), "INGEST_DATADIR", "no setting")


@pytest.mark.extended
def test_a_database_out_of_reach(tmp_path: Path) -> None:
    nobody = ReservedPort()
    url = f"postgresql+asyncpg://somebody:secret@{nobody.address}/ingest"
    result = run("serve", environment(tmp_path / "data", url))
    assert_refused(
        result, "INGEST_DATABASE_URL", "cannot be opened", "start the database", "Connection refused"
    )
    assert "secret" not in result.stderr


@pytest.mark.extended
def test_a_port_that_is_taken(tmp_path: Path, sqlite_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        variables = environment(tmp_path / "data", sqlite_url, listen=f"127.0.0.1:{port}")
        assert_refused(run("serve", variables), "INGEST_LISTEN", "cannot be listened on")


@pytest.mark.extended
@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "192.0.2.1:{port}"], ids=["taken", "not ours"])
def test_metrics_that_cannot_be_listened_for(tmp_path: Path, sqlite_url: str, address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = address.format(port=taken.getsockname()[1])
        variables = environment(tmp_path / "data", sqlite_url, metrics_listen=listen)
        assert_refused(
            run("serve", variables),
            f"INGEST_METRICS_LISTEN={listen}",
            "cannot be listened on",
            "Choose another",
        )


@pytest.mark.extended
async def test_a_data_directory_that_is_not_the_databases_own(tmp_path: Path, sqlite_url: str) -> None:
    async with ServiceProcess(environment(tmp_path / "data", sqlite_url), tmp_path / "log"):
        pass
    unmounted = environment(tmp_path / "empty", sqlite_url)
    # An empty database may move to a new directory; one that holds an ingest must not.
    async with ServiceProcess(environment(tmp_path / "data", sqlite_url), tmp_path / "log") as process:
        import grpc

        from tests.support.files import create_request, gguf
        from tests.support.stubs import ingest_stub

        async with grpc.aio.insecure_channel(process.address) as channel:
            await ingest_stub(channel).CreateIngest(create_request(gguf()))
    assert_refused(run("serve", unmounted), "INGEST_DATA_DIR", "mounted")


@pytest.mark.extended
async def test_the_boot_log_tells_what_is_there(tmp_path: Path, sqlite_url: str) -> None:
    process = ServiceProcess(
        environment(tmp_path / "data", sqlite_url, targets="a=http://u:pw@h:1"), tmp_path / "log"
    )
    async with process:
        pass
    log = process.log.read_text()
    assert re.search(r'message="store opened".* models=0 blobs=0 .*free_bytes=\d+', log)
    assert "pw" not in log
    assert log.index('message="store opened"') < log.index("message=serving")


@pytest.mark.extended
async def test_the_boot_log_tells_which_targets_share_their_directory(
    tmp_path: Path, sqlite_url: str
) -> None:
    (tmp_path / "models" / "blobs").mkdir(parents=True)
    targets = tmp_path / "targets.toml"
    targets.write_text(
        '[near]\nurl = "http://127.0.0.1:9"\nmodels_dir = "models"\n'
        '[far]\nurl = "http://127.0.0.1:8"\nmodels_dir = "none"\n'
    )
    variables = environment(tmp_path / "data", sqlite_url, targets_file=targets)
    del variables["INGEST_TARGETS"]
    process = ServiceProcess(variables, tmp_path / "log")
    async with process:
        pass
    log = process.log.read_text()
    assert re.search(r'message="a target gets its files without sending their bytes".* target=near ', log)
    assert re.search(r'message="a target gets its files over HTTP".* target=far .*looked at there', log)


@pytest.mark.extended
def test_migrate_and_check(tmp_path: Path) -> None:
    variables = environment(tmp_path / "data", f"sqlite+aiosqlite:///{tmp_path / 'new.db'}")
    newest = max(
        path.name[1:5] for path in (ROOT / "ingest_service/database/migrations/versions").glob("v*.py")
    )
    assert run("migrate", variables).stdout == f"schema: none -> {newest}\n"
    assert run("migrate", variables).stdout == f"schema: {newest} -> {newest}\n"
    checked = run("check", variables)
    assert checked.returncode == 0
    assert f"INGEST_DATA_DIR={tmp_path / 'data'}\n" in checked.stdout


@pytest.mark.extended
@pytest.mark.parametrize("command", ["migrate", "serve"])
def test_a_database_that_a_newer_version_migrated(command: str, tmp_path: Path, sqlite_url: str) -> None:
    variables = environment(tmp_path / "data", sqlite_url)
    run("migrate", variables)
    with contextlib.closing(sqlite3.connect(sqlite_url.partition("///")[2])) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    assert_refused(run(command, variables), "INGEST_DATABASE_URL", "newer")

"""Fixtures: real databases, a real service on a socket, the Ollama emulator."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from ingest_service.database import Database
from ingest_service.database.migrate import migrate
from tests.ollama_emulator import OllamaEmulator
from tests.support import leaks, loop_guard, quick_database, tiers
from tests.support.postgres import PostgresCluster
from tests.support.service import RunningService, settings_for

# A machine that is busy is no fault: no test here is judged by the clock.
settings.register_profile("house", deadline=None)
settings.load_profile("house")

_TEMPLATE = "migrated"
_USED_DATABASES: list[str] = []


# httpcore asks for it at each request, and a module that is not there is looked for anew each time.
sys.modules.setdefault("sniffio", None)  # type: ignore[arg-type]
loop_guard.install()
quick_database.install()


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop() -> Iterator[None]:
    """Fails a test in which the product made a blocking call on the loop's thread, whatever came of it."""
    loop_guard.taken()
    yield
    assert loop_guard.taken() == []


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--times`: for scripts/test_beside_load.py."""
    parser.addoption("--times", type=int, default=1, help="run each test so many times")


def pytest_configure(config: pytest.Config) -> None:
    """What a test leaves behind is an error of that test: see tests/README.md."""
    leaks.pytest_configure(config)
    # Programs that tests interrupt must not inherit that SIGINT is ignored, as background jobs do.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`extended_when` and `extended_unless`: see tests/README.md."""
    tiers.mark_variants(items, is_whole=not any("::" in argument for argument in config.args))
    times: int = config.getoption("--times")
    items += [_again(item) for _ in range(times - 1) for item in items]


def _again(item: pytest.Item) -> pytest.Item:
    """The same test once more: pytest's own way to name a test twice works for files only."""
    again = copy.copy(item)
    if isinstance(again, pytest.Function):
        again._initrequest()
    return again


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    """One PostgreSQL for the whole run, with a migrated database to copy."""
    with tempfile.TemporaryDirectory(prefix="model-ingest-postgres-") as directory:
        yield from _running_cluster(Path(directory))


def _running_cluster(directory: Path) -> Iterator[PostgresCluster]:
    cluster = PostgresCluster(directory)
    cluster.start()

    _migrate(cluster.create_database(_TEMPLATE))
    yield cluster
    cluster.stop("immediate")
    cluster.close()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy: migrating takes longer than most tests."""
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    _migrate(f"sqlite+aiosqlite:///{path}")
    return path


def _migrate(url: str) -> None:
    async def prepare() -> None:
        database = Database(url)
        await migrate(database)
        await database.close()

    asyncio.run(prepare())


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A migrated database of each kind: a test that takes this runs on both."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_url")
        return
    cluster: PostgresCluster = request.getfixturevalue("postgres")
    # A test's service may outlive this fixture: its database goes when the next one comes.
    while _USED_DATABASES:
        cluster.drop_database(_USED_DATABASES.pop())
    name = f"test_{uuid.uuid4().hex}"
    _USED_DATABASES.append(name)
    yield cluster.create_database(name, _TEMPLATE)


@pytest.fixture
def sqlite_url(tmp_path: Path, migrated_sqlite: Path) -> str:
    """A migrated SQLite database, for tests whose subject is not the database."""
    path = tmp_path / "test.db"
    shutil.copy(migrated_sqlite, path)
    return f"sqlite+aiosqlite:///{path}"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The same, opened."""
    opened = Database(database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def no_task_left() -> AsyncIterator[None]:
    """Checked after every other asynchronous fixture has cleaned up, if it is asked for first."""
    yield
    left = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
    assert left == set()


@pytest.fixture
async def emulator(tmp_path: Path) -> AsyncIterator[OllamaEmulator]:
    """An Ollama of era A."""
    async with OllamaEmulator(version="0.24.0", data_dir=tmp_path / "ollama") as running:
        yield running


StartService = Callable[..., Any]


@pytest.fixture
async def start_service(tmp_path: Path, sqlite_url: str) -> AsyncIterator[StartService]:
    """Starts services in this process: `await start_service(targets="a=http://...", window_bytes=...)`."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            targets: str = "",
            *,
            database_url: str = sqlite_url,
            data_dir: Path = tmp_path / "data",
            **settings: Any,
        ) -> RunningService:
            running = RunningService(settings_for(data_dir, database_url, targets, **settings))
            return await stack.enter_async_context(running)

        yield start


@pytest.fixture
async def service(start_service: StartService, emulator: OllamaEmulator) -> RunningService:
    """A service with one target, the emulator."""
    running: RunningService = await start_service(f"default={emulator.url}")
    return running

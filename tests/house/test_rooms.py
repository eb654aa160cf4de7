"""Who may know whom (design.md section 3): the contract names every room, and each keeps to its own trade."""

from __future__ import annotations

import ast
import tomllib

import pytest

from tests.house.source import HOUSE, ROOT, dotted, imports, modules

_STANDARD_WAYS_TO_FILES = {"os.open", "os.read", "os.write", "shutil", "tempfile", "aiofiles", "io.open"}
#: What rules and words alone must not know.
_PURE = {"grpc", "google.protobuf", "model_ingest", "sqlalchemy", "httpx", "asyncio", "os", "pathlib"}
#: Room or module -> what it must not know.
FORBIDDEN: dict[str, set[str]] = {
    "rpc": {"sqlalchemy", "httpx", "aiosqlite", "asyncpg", "alembic", *_STANDARD_WAYS_TO_FILES},
    "ingests": {
        "grpc",
        "grpc_status",
        "google.protobuf",
        "google.rpc",
        "model_ingest",
        "sqlalchemy",
        "httpx",
    },
    "forwarding": {"grpc", "grpc_status", "google.protobuf", "google.rpc", "model_ingest", "sqlalchemy"},
    "events": {"grpc", "google.protobuf", "model_ingest", "sqlalchemy", "httpx"},
    "blobs": {"grpc", "google.protobuf", "model_ingest", "sqlalchemy", "httpx", "os", "pathlib"},
    "formats": {"grpc", "google.protobuf", "model_ingest", "sqlalchemy", "httpx", "asyncio"},
    "storage": {"grpc", "google.protobuf", "model_ingest", "sqlalchemy", "httpx"},
    "database": {"grpc", "google.protobuf", "model_ingest", "httpx"},
    "telemetry": {"grpc", "google.protobuf", "model_ingest", "sqlalchemy", "httpx"},
    # The parent of workers must not load grpc before it starts them (peers.md P14).
    "rebuilding": {"grpc", "google.protobuf", "model_ingest", "sqlalchemy", "httpx", "ingest_service.config"},
    # A part of the app.
    "store_opening": {"grpc", "google.protobuf", "model_ingest", "sqlalchemy", "httpx"},
    "workers": {"grpc", "google.protobuf", "model_ingest", "sqlalchemy", "httpx", "ingest_service.config"},
    "process": {
        "grpc",
        "google.protobuf",
        "model_ingest",
        "sqlalchemy",
        "httpx",
        "asyncio",
        "ingest_service",
    },
    "lifecycle": _PURE,
    "vocabulary": _PURE,
}


def _layers() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = project["tool"]["importlinter"]["contracts"]
    return [layer.removeprefix("ingest_service.") for layer in contract["layers"]]


def _knows(module: str, forbidden: str) -> bool:
    return any(name == forbidden or name.startswith(f"{forbidden}.") for name in imports(modules()[module]))


def test_the_contract_names_every_room() -> None:
    rooms = {path.name for path in HOUSE.iterdir() if (path / "__init__.py").is_file()}
    single = {path.stem for path in HOUSE.glob("*.py")} - {"__init__"}
    assert set(_layers()) == rooms | single


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_knows_nothing_that_is_not_its_trade(room: str) -> None:
    assert modules(room)
    broken = {
        f"{module} knows {forbidden}"
        for module in modules(room)
        for forbidden in FORBIDDEN[room]
        if _knows(module, forbidden)
    }
    assert broken == set()


def test_every_room_has_its_rules_here() -> None:
    assert set(FORBIDDEN) | {"__main__", "app", "config"} == set(_layers())


@pytest.mark.parametrize("room", FORBIDDEN)
def test_no_room_imports_upward(room: str) -> None:
    """What lint-imports says, without it: also an import that hides in a function."""
    above = _layers()[: _layers().index(room)]
    broken = {
        f"{module} imports {upper}"
        for module in modules(room)
        for upper in above
        if _knows(module, f"ingest_service.{upper}")
    }
    assert broken == set()


def test_settings_are_read_in_the_app_only() -> None:
    outside = {module for module in modules() if not module.startswith("config/")}
    readers = {module for module in outside if _knows(module, "ingest_service.config")}
    assert readers <= {"app.py", "store_opening.py", "__main__.py"}


def test_nobody_but_config_reads_the_environment() -> None:
    readers = {
        module
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and dotted(node) in {"os.environ", "os.environb", "os.getenv"}
    }
    assert readers <= {"config/settings.py"}


def test_rows_and_sessions_do_not_leave_the_database_room() -> None:
    outside = {module for module in modules() if not module.startswith("database/")}
    knowing = {module for module in outside if _knows(module, "sqlalchemy")}
    # It only checks that a URL is one.
    assert knowing <= {"config/settings.py"}

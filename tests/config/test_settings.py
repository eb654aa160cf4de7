"""Every setting: what it is when nobody sets it, what it takes, and what is said when it cannot be used."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from ingest_service.config import SETTINGS, SettingError, Settings, TargetSetting, load_settings

_MEBIBYTE = 1024**2
#: name -> (default, texts that are taken with what they mean, texts that are refused)
TABLE: dict[str, tuple[Any, dict[str, Any], list[str]]] = {
    "LISTEN": (
        "127.0.0.1:50051",
        {one: one for one in ("127.0.0.1:0", "localhost:1", "[::1]:65535", "127.9.9.9:50051")},
        [
            "",
            "x",
            ":1",
            "h:",
            "h:x",
            "h:65536",
            "h:-1",
            "h:\u0661",
            "h:²",
            "::1:50051",
            "a b:1",
            "h\nx:1",
            "h:1\n",
            "/x:1",
        ],
    ),
    "ALLOW_INSECURE": (
        False,
        {
            "1": True,
            "true": True,
            "YES": True,
            " on ": True,
            "0": False,
            "False": False,
            "no": False,
            "off": False,
        },
        ["", "2", "y", "maybe"],
    ),
    "DATA_DIR": (Path("data"), {"/a b/ü": Path("/a b/ü"), ".": Path()}, ["", "a\nb", "what?", "\x1b"]),
    "DATABASE_URL": (
        "sqlite+aiosqlite:///data/ingest.db",
        {
            "sqlite+aiosqlite:////abs/x.db": "sqlite+aiosqlite:////abs/x.db",
            "postgresql+asyncpg://u:p@h:5432/n": "postgresql+asyncpg://u:p@h:5432/n",
            "postgresql+asyncpg:///n?host=/run/pg": "postgresql+asyncpg:///n?host=/run/pg",
        },
        [
            "x",
            "sqlite:///x.db",
            "postgres://h/n",
            "postgresql://h/n",
            "mysql://h/n",
            "postgresql+asyncpg://h:port/n",
            "postgresql+asyncpg://h",
            "sqlite+aiosqlite:///",
            "sqlite+aiosqlite:///:memory:",
            "sqlite+aiosqlite:///a\nb",
        ],
    ),
    "TARGETS": (
        (TargetSetting("default", "http://127.0.0.1:11434"),),
        {
            "": (),
            " , ": (),
            "a=http://h:1/, b-2_=https://[::1]/x": (
                TargetSetting("a", "http://h:1"),
                TargetSetting("b-2_", "https://[::1]/x"),
            ),
            "a=http://u:p@h": (TargetSetting("a", "http://u:p@h"),),
        },
        [
            "a",
            "=http://h",
            "a b=http://h",
            "ä=http://h",
            f"{'a' * 65}=http://h",
            "a=h:1",
            "a=ftp://h",
            "a=http://",
            "a=http://h:99999",
            "a=http://h:x",
            "a=http://h:0",
            "a=http://[::1",
            "a=http://h?q",
            "a=http://h#f",
            "a=http://h\nx",
            "a=http://h,a=http://i",
        ],
    ),
    # What a file may hold: test_targets.py.
    "TARGETS_FILE": (None, {"": None}, ["a\nb"]),
    "REQUIRE_DIGEST": (True, {"false": False}, ["", "sometimes"]),
    "ALLOW_FROM": (False, {"true": True, "0": False}, ["", "sometimes"]),
    "ALLOW_SAFETENSORS": (False, {"1": True, "off": False}, ["", "sometimes"]),
    "ALLOW_TRAILING_BYTES": (False, {"yes": True, "0": False}, ["", "few"]),
    "ALLOW_UNSAFE_TEMPLATES": (False, {"true": True, "no": False}, ["", "some"]),
    "RULES_AS_WARNINGS": (
        (),
        {"": (), " , ": (), "K8": ("K8",), "t2, k8,T2": ("K8", "T2")},
        ["K9", "8", "K", "K8;T2", "x", "K\u0662", "A2", "B1", "C1", "C4", "F4", "H4", "K7", "S2", "V4", "X1"],
    ),
    "MAX_FILE_BYTES": (2**40, {"1": 1, str(2**62): 2**62}, ["0", "-1", str(2**62 + 1), "1.5", "x", ""]),
    "WINDOW_BYTES": (16 * _MEBIBYTE, {str(4 * _MEBIBYTE): 4 * _MEBIBYTE}, [str(4 * _MEBIBYTE - 1), "16MiB"]),
    "TOTAL_WINDOW_BYTES": (256 * _MEBIBYTE, {str(2**30): 2**30}, ["0", str(2**40)]),
    "CALL_WINDOW_BYTES": (
        262_144,
        {"0": 0, "65536": 65536, str(2**26): 2**26},
        ["1", "65535", str(2**26 + 1)],
    ),
    "CHECKPOINT_BYTES": (64 * _MEBIBYTE, {str(_MEBIBYTE): _MEBIBYTE}, ["0", str(2**31)]),
    "CHECKPOINT_SECONDS": (5.0, {"0.05": 0.05, "60": 60.0}, ["0", "61", "nan", "inf", "x", "-1"]),
    "UPLOAD_IDLE_SECONDS": (60.0, {"0.1": 0.1, "3600": 3600.0}, ["0", "3601", "nan"]),
    "UPLOAD_MIN_BYTES_PER_MINUTE": (65536, {"0": 0, str(2**30): 2**30}, ["-1", str(2**30 + 1), "x"]),
    "MAX_UPLOADS": (1024, {"1": 1, "10000": 10_000}, ["0", "10001", "1.0"]),
    "FREE_FLOOR_BYTES": (256 * _MEBIBYTE, {"0": 0, str(2**62): 2**62}, ["-1", str(2**62 + 1)]),
    "UPLOAD_EXPIRY_SECONDS": (604800.0, {"1": 1.0, "31536000": 31_536_000.0}, ["0", "31536001", "nan"]),
    "BLOB_GRACE_SECONDS": (86400.0, {"0": 0.0, "31536000": 31_536_000.0}, ["-1", "31536001", "inf"]),
    "IMPORT_AT_BOOT": (True, {"off": False}, ["", "maybe"]),
    "SWEEP_SECONDS": (60.0, {"0.1": 0.1, "86400": 86400.0}, ["0", "86401"]),
    "VERIFY_DAYS": (0.0, {"0.5": 0.5, "3650": 3650.0}, ["-1", "3651", "nan"]),
    "VERIFY_BYTES_PER_SECOND": (50_000_000, {"0": 0, str(2**40): 2**40}, ["-1", str(2**40 + 1), "1.5"]),
    "RETENTION": ("keep", {"keep": "keep"}, ["", "drop"]),
    "CUT_THROUGH": (True, {"off": False}, ["", "maybe"]),
    "DEPLOYMENT_RETRY_SECONDS": (3600.0, {"0": 0.0, "604800": 604800.0}, ["-1", "604801", "forever"]),
    "CREATE_SECONDS": (7200.0, {"1": 1.0}, ["0", "2592001"]),
    "LEASE_SECONDS": (15.0, {"0.5": 0.5, "600": 600.0}, ["0", "601"]),
    "MAX_DEPLOYMENTS": (64, {"1": 1, "1024": 1024}, ["0", "1025", "1.0"]),
    "MAX_WATCHES": (2000, {"1": 1, "100000": 100_000}, ["0", "100001"]),
    "WATCH_SECONDS": (3600.0, {"1": 1.0, "604800": 604800.0}, ["0.9", "604801", "nan"]),
    "DIRECT_IO": ("auto", {"on": "on", "off": "off"}, ["", "true", "ON"]),
    "FILE_THREADS": (8, {"2": 2, "64": 64}, ["1", "65"]),
    "DRAIN_SECONDS": (20.0, {"0": 0.0, "3600": 3600.0}, ["-0.1", "3601"]),
    "READINESS_SECONDS": (5.0, {"0.1": 0.1, "300": 300.0}, ["0", "301"]),
    "STALL_SECONDS": (0.1, {"0.01": 0.01, "60": 60.0}, ["0", "61", "nan"]),
    "METRICS_LISTEN": (
        "",
        {one: one for one in ("", "127.0.0.1:9464", "0.0.0.0:0", "[::1]:65535", "host.example:9464")},
        ["x", ":1", "9464", "h:", "h:65536", "h:-1", "h:\u0661", "::1:9464", " ", "h:1\n", "http://h:1"],
    ),
    "LOG_LEVEL": ("INFO", {"DEBUG": "DEBUG", "ERROR": "ERROR"}, ["", "info", "TRACE"]),
    "LOG_FORMAT": ("text", {"json": "json"}, ["", "xml"]),
}


def _value(name: str, **variables: str) -> Any:
    return getattr(load_settings({f"INGEST_{key}": text for key, text in variables.items()}), name.lower())


def test_the_table_here_is_complete() -> None:
    assert list(TABLE) == [setting.name for setting in SETTINGS]


def test_settings_and_their_object_are_in_step() -> None:
    assert [setting.name.lower() for setting in SETTINGS] == [field.name for field in fields(Settings)]
    assert all(setting.help and "\n" not in setting.help for setting in SETTINGS)


@pytest.mark.parametrize("name", TABLE)
def test_the_default(name: str) -> None:
    assert _value(name) == TABLE[name][0]


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, row in TABLE.items() for text in row[1]])
def test_what_is_taken(name: str, text: str) -> None:
    assert _value(name, **{name: text}) == TABLE[name][1][text]


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, row in TABLE.items() for text in row[2]])
def test_what_is_refused_says_so_in_one_line_with_name_and_remedy(name: str, text: str) -> None:
    with pytest.raises(SettingError) as caught:
        load_settings({f"INGEST_{name}": text})
    line = str(caught.value)
    assert line.isprintable()
    assert line.startswith(f"INGEST_{name}=")
    remedy = line.partition("cannot be used: ")[2]
    assert remedy.startswith(("it must ", "the URL of ", "the target "))
    is_number = isinstance(TABLE[name][0], int | float) and not isinstance(TABLE[name][0], bool)
    assert is_number or "number" not in remedy


def test_the_database_lies_in_the_data_directory_unless_it_is_told_otherwise() -> None:
    assert _value("DATABASE_URL", DATA_DIR="/srv/m") == "sqlite+aiosqlite:////srv/m/ingest.db"
    assert _value("DATABASE_URL", DATABASE_URL="", DATA_DIR="/m") == "sqlite+aiosqlite:////m/ingest.db"


@pytest.mark.parametrize("name", ["INGEST_TARGET", "INGEST_", "INGEST_listen", "INGEST_LISTEN_"])
def test_a_name_that_nobody_knows_is_refused(name: str) -> None:
    with pytest.raises(SettingError) as caught:
        load_settings({name: "x"})
    assert "is no setting" in str(caught.value)
    assert str(caught.value).isprintable()


def test_other_peoples_variables_are_none_of_our_business() -> None:
    assert load_settings({"XINGEST_A": "x", "ingest_b": "x", "PATH": "/"}) == load_settings({})


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:50051", "[::]:50051", "10.0.0.1:1", "example.org:1", "localhost.x:1"]
)
def test_an_address_that_others_reach_has_to_be_allowed(listen: str) -> None:
    with pytest.raises(SettingError) as caught:
        load_settings({"INGEST_LISTEN": listen})
    assert "INGEST_LISTEN" in str(caught.value)
    assert "INGEST_ALLOW_INSECURE=1" in str(caught.value)
    assert _value("LISTEN", LISTEN=listen, ALLOW_INSECURE="1") == listen


def test_one_uploads_window_fits_into_that_of_all() -> None:
    with pytest.raises(SettingError, match=r"INGEST_TOTAL_WINDOW_BYTES.*INGEST_WINDOW_BYTES"):
        load_settings({"INGEST_WINDOW_BYTES": str(2**27), "INGEST_TOTAL_WINDOW_BYTES": str(2**26)})

"""One frozen, validated settings object. Every setting is an environment variable with the prefix INGEST_.

Read by `app` only. `serve --help` and the README's table are made from `SETTINGS`.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from ingest_service.config.masking import masked_database_url, masked_refused, masked_target_url
from ingest_service.config.targets import TargetSetting, load_targets, parse_targets
from ingest_service.database.postgres_url import unknown_argument
from ingest_service.database.types import LONGEST_LEASE_SECONDS
from ingest_service.formats.policies import policies_named

PREFIX = "INGEST_"
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_HOST = re.compile(r"[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]")


class SettingError(Exception):
    """A setting is wrong; the message names it and the remedy."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name without prefix, its default as it would be written, what it does."""

    name: str
    default: str
    parse: Callable[[str], Any]
    help: str


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError("it must be a whole number") from None
        if not low <= value <= high:
            raise ValueError(f"it must be {low} to {high}")
        return value

    return parse


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError("it must be a number") from None
        if not low <= value <= high:
            raise ValueError(f"it must be {low:g} to {high:g}")
        return value

    return parse


def _zero_or(parse: Callable[[str], int]) -> Callable[[str], int]:
    def parse_or_zero(text: str) -> int:
        return 0 if text == "0" else parse(text)

    return parse_or_zero


def _boolean(text: str) -> bool:
    folded = text.strip().lower()
    if folded in _TRUE:
        return True
    if folded in _FALSE:
        return False
    raise ValueError("it must be true or false")


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"it must be one of {', '.join(choices)}")
        return text

    return parse


def _listen(text: str) -> str:
    host, separator, port = text.rpartition(":")
    usable = separator and _HOST.fullmatch(host) and re.fullmatch(r"[0-9]{1,5}", port)
    if not usable or int(port) > 65535:
        raise ValueError("it must be HOST:PORT, for example 127.0.0.1:50051 or [::1]:50051")
    return text


def _optional_listen(text: str) -> str:
    return _listen(text) if text else ""


def _directory(text: str) -> Path:
    # A line break would tear a log line; a question mark ends the path in the default database's URL.
    if not text or not text.isprintable() or "?" in text:
        raise ValueError("it must name a directory, without `?` and control characters")
    return Path(text)


def _optional_file(text: str) -> Path | None:
    if not text.isprintable():
        raise ValueError("it must name a file")
    return Path(text) if text else None


def _database_url(text: str) -> str:
    if not text:
        return text
    if not text.startswith(("sqlite+aiosqlite:///", "postgresql+asyncpg://")) or not text.isprintable():
        raise ValueError("it must start with sqlite+aiosqlite:/// or postgresql+asyncpg://")
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError("it must be postgresql+asyncpg://USER@HOST:PORT/NAME") from None
    if url.database in {None, "", ":memory:"}:
        raise ValueError("it must name a database or, for SQLite, a file")
    if url.get_backend_name() == "postgresql":
        unknown = unknown_argument(url.query)
        if unknown is not None:
            raise ValueError(
                f"{unknown[:64]!r} is no argument of PostgreSQL's that is taken here; there are sslmode,"
                " sslrootcert, sslcert, sslkey, connect_timeout, application_name, target_session_attrs"
            )
    return text


_GIBIBYTE = 1024**3

SETTINGS: tuple[Setting, ...] = (
    Setting("LISTEN", "127.0.0.1:50051", _listen, "address of the gRPC port"),
    Setting(
        "ALLOW_INSECURE", "false", _boolean,
        "allow LISTEN on an address that others reach, without authentication",
    ),
    Setting("DATA_DIR", "./data", _directory, "directory of the stored bytes; local disk only"),
    Setting(
        "DATABASE_URL", "", _database_url,
        "sqlite+aiosqlite:///FILE or postgresql+asyncpg://USER@HOST/NAME; default: ingest.db in DATA_DIR",
    ),
    Setting(
        "TARGETS", "default=http://127.0.0.1:11434", parse_targets,
        "Ollama endpoints as NAME=URL, comma-separated; set but empty: store only",
    ),
    Setting(
        "TARGETS_FILE", "", _optional_file,
        "TOML file with a table for each target (url, models_dir, headers, ca), instead of TARGETS",
    ),
    Setting("REQUIRE_DIGEST", "true", _boolean, "refuse files whose sha256 the client never gives"),
    Setting(
        "ALLOW_FROM", "false", _boolean,
        "take the create option `from`: build upon a model of the target (resources.proto tells of its race)",
    ),
    Setting(
        "ALLOW_SAFETENSORS", "false", _boolean,
        "take sets of safetensors; their headers are checked, yet shapes that a converter of Ollama does not"
        " expect kill its server (docs/formats.md)",
    ),
    Setting(
        "ALLOW_TRAILING_BYTES", "false", _boolean,
        "take a GGUF with bytes behind its tensors; Ollama up to 0.5 reads them as further layers",
    ),
    Setting(
        "ALLOW_UNSAFE_TEMPLATES", "false", _boolean,
        "take a chat template that breaks out of a sandbox or takes an engine down; with a warning then",
    ),
    Setting(
        "RULES_AS_WARNINGS", "", policies_named,
        "ids of rules, comma-separated: what breaks them is taken with a warning; policies only"
        " (docs/formats.md says which rules are)",
    ),
    Setting(
        "MAX_FILE_BYTES", str(1024 * _GIBIBYTE), _integer(1, 2**62), "a larger file is refused",
    ),
    Setting(
        "WINDOW_BYTES", str(16 * 1024**2), _integer(4 * 1024**2, 1024**3),
        "received-but-unwritten bytes of one upload",
    ),
    Setting(
        "TOTAL_WINDOW_BYTES", str(256 * 1024**2), _integer(4 * 1024**2, 64 * _GIBIBYTE),
        "received-but-unwritten bytes of all uploads together",
    ),
    Setting(
        "CALL_WINDOW_BYTES", str(256 * 1024), _zero_or(_integer(64 * 1024, 64 * 1024**2)),
        "bytes of each call that gRPC may buffer unread; raise it for fast links over long distances; 0: as"
        " much as the link's speed asks for, which many hostile connections can use up (docs/limits.md)",
    ),
    Setting(
        "CHECKPOINT_BYTES", str(64 * 1024**2), _integer(1024**2, _GIBIBYTE),
        "received bytes are made durable at least this often",
    ),
    Setting(
        "CHECKPOINT_SECONDS", "5", _number(0.05, 60), "and this long after the first that is not",
    ),
    Setting(
        "UPLOAD_IDLE_SECONDS", "60", _number(0.1, 3600),
        "an upload's stream without a message for this long is ended",
    ),
    Setting(
        "UPLOAD_MIN_BYTES_PER_MINUTE", str(64 * 1024), _integer(0, _GIBIBYTE),
        "an upload's stream that brings fewer is ended; it can be resumed",
    ),
    Setting("MAX_UPLOADS", "1024", _integer(1, 10_000), "Upload calls that receive bytes at once"),
    Setting(
        "FREE_FLOOR_BYTES", str(256 * 1024**2), _integer(0, 2**62),
        "bytes of DATA_DIR's disk that no upload may use",
    ),
    Setting(
        "UPLOAD_EXPIRY_SECONDS", str(7 * 86400), _number(1, 365 * 86400),
        "an upload that got no bytes for this long is given up",
    ),
    Setting(
        "BLOB_GRACE_SECONDS", "86400", _number(0, 365 * 86400),
        "stored bytes that nothing refers to are removed after this long",
    ),
    Setting(
        "IMPORT_AT_BOOT", "true", _boolean,
        "take in the files that lie in DATA_DIR/import/ when the service starts (docs/import.md)",
    ),
    Setting("SWEEP_SECONDS", "60", _number(0.1, 86400), "how often expiry and removal are looked at"),
    Setting(
        "VERIFY_DAYS", "0", _number(0, 3650),
        "stored bytes that nobody has read for so many days are read again and compared; 0: never",
    ),
    Setting(
        "VERIFY_BYTES_PER_SECOND", "50000000", _integer(0, 2**40),
        "how fast VERIFY_DAYS reads, 0: no limit; VerifyModel, which somebody waits for, has no limit",
    ),
    Setting(
        "RETENTION", "keep", _choice("keep"),
        "our copy once all targets have the model: kept; after a hardlink both names are one copy, not two",
    ),
    Setting(
        "CUT_THROUGH", "true", _boolean,
        "send a file whose sha256 was declared on to its targets while it arrives",
    ),
    Setting(
        "DEPLOYMENT_RETRY_SECONDS", "3600", _number(0, 7 * 86400),
        "how long a target that does not answer is tried again",
    ),
    Setting(
        "CREATE_SECONDS", "7200", _number(1, 30 * 86400),
        "a create on a target is given up after this long, or what its bytes take at 2 MB/s if that is more",
    ),
    Setting(
        "LEASE_SECONDS", "15", _number(0.5, LONGEST_LEASE_SECONDS),
        "after this long a killed worker's work is taken over",
    ),
    Setting("MAX_DEPLOYMENTS", "64", _integer(1, 1024), "deployments driven at once, one per target"),
    Setting("MAX_WATCHES", "2000", _integer(1, 100_000), "WatchIngest calls at once"),
    Setting(
        "WATCH_SECONDS", "3600", _number(1, 7 * 86400),
        "a WatchIngest call that lasted this long is ended; clients watch on in a new one",
    ),
    Setting(
        "DIRECT_IO", "auto", _choice("auto", "on", "off"),
        "write past the page cache: `auto` where the file system can, `on` or do not start, `off` never",
    ),
    Setting("FILE_THREADS", "8", _integer(2, 64), "threads for file and hash work"),
    Setting("DRAIN_SECONDS", "20", _number(0, 3600), "on SIGTERM, running uploads may go on for this long"),
    Setting("READINESS_SECONDS", "5", _number(0.1, 300), "how often directory and database are re-checked"),
    Setting(
        "STALL_SECONDS", "0.1", _number(0.01, 60),
        "an event loop that is stuck for longer is logged, with the stack of what holds it",
    ),
    Setting(
        "METRICS_LISTEN", "", _optional_listen,
        "HOST:PORT of `GET /metrics` for Prometheus, without authentication and ALLOW_INSECURE; empty: none;"
        " worker K of `serve --workers` listens on PORT + K, nobody on PORT",
    ),
    Setting("LOG_LEVEL", "INFO", _choice("DEBUG", "INFO", "WARNING", "ERROR"), "least level that is logged"),
    Setting("LOG_FORMAT", "text", _choice("text", "json"), "`text` (logfmt) or `json`, on stderr"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings, parsed; see SETTINGS for what each does."""

    listen: str
    allow_insecure: bool
    data_dir: Path
    database_url: str
    targets: tuple[TargetSetting, ...]
    targets_file: Path | None
    require_digest: bool
    allow_from: bool
    allow_safetensors: bool
    allow_trailing_bytes: bool
    allow_unsafe_templates: bool
    rules_as_warnings: tuple[str, ...]
    max_file_bytes: int
    window_bytes: int
    total_window_bytes: int
    call_window_bytes: int
    checkpoint_bytes: int
    checkpoint_seconds: float
    upload_idle_seconds: float
    upload_min_bytes_per_minute: int
    max_uploads: int
    free_floor_bytes: int
    upload_expiry_seconds: float
    blob_grace_seconds: float
    import_at_boot: bool
    sweep_seconds: float
    verify_days: float
    verify_bytes_per_second: int
    retention: str
    cut_through: bool
    deployment_retry_seconds: float
    create_seconds: float
    lease_seconds: float
    max_deployments: int
    max_watches: int
    watch_seconds: float
    direct_io: str
    file_threads: int
    drain_seconds: float
    readiness_seconds: float
    stall_seconds: float
    metrics_listen: str
    log_level: str
    log_format: str

    def public(self) -> dict[str, str]:
        """For the log: every setting, secrets masked."""
        values = {name: str(getattr(self, name)) for name in self.__slots__}
        values["rules_as_warnings"] = ",".join(self.rules_as_warnings)
        values["database_url"] = masked_database_url(self.database_url)
        values["targets"] = ",".join(
            f"{target.name}={masked_target_url(target.url)}" for target in self.targets
        )
        return values


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Reads the environment. Raises SettingError, naming the setting, also for a name that nobody knows."""
    variables = os.environ if environment is None else environment
    known = {PREFIX + setting.name for setting in SETTINGS}
    for name in sorted(variables):
        if name.startswith(PREFIX) and name not in known:
            raise SettingError(f"{name} is no setting; `python -m ingest_service serve --help` lists them")
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        text = variables.get(PREFIX + setting.name, setting.default)
        try:
            values[setting.name.lower()] = setting.parse(text)
        except ValueError as error:
            raise SettingError(
                f"{PREFIX}{setting.name}={masked_refused(text)!r} cannot be used: {error}"
            ) from None
    if not values["database_url"]:
        values["database_url"] = f"sqlite+aiosqlite:///{values['data_dir'] / 'ingest.db'}"
    if values["targets_file"] is not None:
        values["targets"] = _from_file(values["targets_file"], variables)
    settings = Settings(**values)
    _check_together(settings)
    return settings


def _from_file(path: Path, variables: Mapping[str, str]) -> tuple[TargetSetting, ...]:
    if variables.get(PREFIX + "TARGETS"):
        raise SettingError("INGEST_TARGETS and INGEST_TARGETS_FILE exclude each other: set one of them")
    try:
        return load_targets(path)
    except ValueError as error:
        raise SettingError(f"INGEST_TARGETS_FILE={path} cannot be used: {error}") from None


def _check_together(settings: Settings) -> None:
    if settings.window_bytes > settings.total_window_bytes:
        raise SettingError("INGEST_TOTAL_WINDOW_BYTES must not be smaller than INGEST_WINDOW_BYTES")
    host = settings.listen.rpartition(":")[0].strip("[]")
    if not _is_loopback(host) and not settings.allow_insecure:
        raise SettingError(
            f"INGEST_LISTEN={settings.listen} can be reached by others and there is no authentication yet:"
            " listen on 127.0.0.1, or set INGEST_ALLOW_INSECURE=1 if the network is trusted"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""Targets, from NAME=URL pairs or from a TOML file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_TARGET_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
#: Each has a driver of its own, and each driver a chunk in memory.
_MOST_TARGETS = 1024
_KEYS = frozenset({"url", "models_dir", "headers", "ca"})


@dataclass(frozen=True, slots=True)
class TargetSetting:
    """One target, by name. `headers` go with every request and may hold a secret: they are never shown."""

    name: str
    url: str
    #: The target's models directory as this process sees it, if they share a file system.
    models_dir: Path | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: A file with the certificates of those who may sign the target's, beside the system's.
    ca: Path | None = None


def parse_targets(text: str) -> tuple[TargetSetting, ...]:
    """NAME=URL pairs, comma-separated. Raises ValueError."""
    targets: list[TargetSetting] = []
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, separator, url = pair.partition("=")
        if not separator or not _TARGET_NAME.fullmatch(name):
            raise ValueError("it must be NAME=URL pairs, comma-separated, names of letters, digits, - and _")
        targets.append(TargetSetting(name, _url(name, url)))
    return _checked(targets)


def load_targets(path: Path) -> tuple[TargetSetting, ...]:
    """A TOML file with a table `[NAME]` for each target: url, and where wanted models_dir, headers, ca.

    Raises ValueError, also for a file that cannot be read.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"it is not TOML ({str(error)[:100]})") from None
    return _checked([_from_table(name, table, path.parent) for name, table in tables.items()])


def _from_table(name: str, table: Any, directory: Path) -> TargetSetting:
    if not _TARGET_NAME.fullmatch(name) or not isinstance(table, dict):
        raise ValueError(
            f"it must hold tables [NAME], names of letters, digits, - and _; {name[:64]!r} is none"
        )
    for key in table:
        if key not in _KEYS:
            raise ValueError(f"[{name}] has {key[:64]!r}; there are {', '.join(sorted(_KEYS))}")
    url = table.get("url")
    if not isinstance(url, str):
        raise ValueError(f"[{name}] needs a url")  # noqa: TRY004 (a setting is wrong, not our call)
    ca = _path(name, table, "ca", directory)
    if ca is not None and not ca.is_file():
        raise ValueError(f"[{name}] ca: {ca} is no file")
    return TargetSetting(
        name,
        _url(name, url),
        models_dir=_path(name, table, "models_dir", directory),
        headers=_headers(name, table.get("headers", {})),
        ca=ca,
    )


def _path(name: str, table: Mapping[str, Any], key: str, directory: Path) -> Path | None:
    """Relative ones are meant from the file's own place."""
    value = table.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError(f"[{name}] {key} must name a file or directory")
    return directory / value


def _headers(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError(f"[{name}] headers must be a table of names and texts")  # noqa: TRY004 (as above)
    for header, content in value.items():
        is_text = isinstance(content, str) and content.isascii() and content.isprintable()
        if not _HEADER_NAME.fullmatch(header) or not is_text:
            # Never the content: it may be a secret.
            raise ValueError(f"[{name}] headers: {header[:64]!r} is no header's name, or has no plain text")
    return dict(value)


def _url(name: str, url: str) -> str:
    if not _is_http(url):
        raise ValueError(f"the URL of {name} must be http://HOST:PORT or https://HOST:PORT")
    return url.rstrip("/")


def _checked(targets: list[TargetSetting]) -> tuple[TargetSetting, ...]:
    names = [target.name for target in targets]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"the target {name} is there twice")
    urls: dict[str, str] = {}
    for target in targets:
        if urls.setdefault(target.url, target.name) != target.name:
            # Each name has its own turn to create: one Ollama under two would be given two at once.
            raise ValueError(f"the targets {urls[target.url]} and {target.name} have the same URL")
    if len(targets) > _MOST_TARGETS:
        raise ValueError(f"there may be at most {_MOST_TARGETS} targets")
    return tuple(targets)


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        is_port = parts.port != 0
    except ValueError:
        return False
    is_plain = url.isprintable() and not parts.query and not parts.fragment
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and is_port and is_plain

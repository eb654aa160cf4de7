"""Arguments behind `?` in a PostgreSQL URL: libpq's names, as `psql` and other programs take them.

asyncpg knows libpq's names for TLS only in its own kind of URL, and SQLAlchemy passes every argument on as a
keyword. So they are put into such a URL, which holds nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

import asyncpg

#: Libpq's names that asyncpg reads in a URL of its own.
_TLS = (
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslcrl",
    "sslnegotiation",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
)
#: What SQLAlchemy's dialect takes for itself.
_SQLALCHEMY = ("prepared_statement_cache_size",)
#: Keywords of `asyncpg.connect` that no text in a URL can give.
_NO_TEXT = frozenset({"dsn", "loop", "connection_class", "record_class", "server_settings"})


def unknown_argument(names: Iterable[str]) -> str | None:
    """The first name that neither libpq nor asyncpg has for us."""
    known = {*_TLS, *_SQLALCHEMY, "connect_timeout", "application_name"}
    known.update(name for name in inspect.signature(asyncpg.connect).parameters if name not in _NO_TEXT)
    return next((name for name in names if name not in known), None)


def take_libpq_names(arguments: dict[str, Any]) -> None:
    """Changes keywords for `asyncpg.connect`, in place: libpq's names become what asyncpg takes."""
    tls = {name: arguments.pop(name) for name in _TLS if name in arguments}
    if tls:
        arguments["dsn"] = f"postgresql:///?{urlencode(tls)}"
    if "connect_timeout" in arguments:
        arguments["timeout"] = float(arguments.pop("connect_timeout"))
    if "application_name" in arguments:
        settings = arguments.get("server_settings", {})
        arguments["server_settings"] = {**settings, "application_name": arguments.pop("application_name")}

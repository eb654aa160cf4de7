"""Structured logs: one line per record, as logfmt for people or as JSON for machines.

What a record carries in `extra` becomes fields; everything is escaped, so that nothing a client or a target
sends can forge a line (security.md section 7, #27).
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
from datetime import UTC, datetime
from typing import Any

from ingest_service.telemetry.log_limit import LogLimit

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PLAIN = re.compile(r"[A-Za-z0-9_.:/@+,-]+")
_MAX_VALUE_CHARACTERS = 2000
#: A traceback's end says most.
_MAX_EXCEPTION_CHARACTERS = 20_000


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    fields: dict[str, Any] = {
        "time": moment.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "message": record.getMessage(),
        "logger": record.name,
    }
    fields |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
    if record.exc_info:
        text = logging.Formatter().formatException(record.exc_info)
        cut = len(text) > _MAX_EXCEPTION_CHARACTERS
        fields["exception"] = "…" + text[-_MAX_EXCEPTION_CHARACTERS:] if cut else text
    return fields


def _short(value: Any) -> Any:
    if isinstance(value, bool | int) or value is None or (isinstance(value, float) and math.isfinite(value)):
        return value
    text = str(value)
    return text if len(text) <= _MAX_VALUE_CHARACTERS else text[:_MAX_VALUE_CHARACTERS] + "…"


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        exception = fields.pop("exception", None)
        short = {name: _short(value) for name, value in fields.items()}
        if exception is not None:
            short["exception"] = exception
        return json.dumps(short, ensure_ascii=True)


class LogfmtFormatter(logging.Formatter):
    """`time=... level=... message="..." name=value`, a traceback indented below."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        exception = fields.pop("exception", None)
        line = " ".join(f"{name}={self._value(_short(value))}" for name, value in fields.items())
        if exception is None:
            return line
        # An exception's text may quote a client or a target: indented, and free of control characters.
        return line + "".join(f"\n    {_escaped(part)}" for part in str(exception).splitlines())

    @staticmethod
    def _value(value: Any) -> str:
        text = "" if value is None else str(value)
        return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=True)


class _OfWorker(logging.Filter):
    """Adds the field `worker`: several processes write into one log."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def filter(self, record: logging.LogRecord) -> bool:
        record.worker = self._number
        return True


def configure_logs(level: str, log_format: str, *, worker: int | None = None) -> None:
    """Sends every record to stderr. `log_format` is `text` or `json`; `worker` numbers one of several."""
    handler = logging.StreamHandler(sys.stderr)
    if worker is not None:
        handler.addFilter(_OfWorker(worker))
    handler.addFilter(LogLimit(handler))
    handler.setFormatter(JsonFormatter() if log_format == "json" else LogfmtFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # These tell their own business at INFO, once per request or migration step.
    for name in ("httpx", "httpcore", "aiosqlite", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)

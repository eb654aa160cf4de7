"""One record is one line, in both formats, whatever a client or a target put into it (security.md, #27)."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_service.telemetry.logs import JsonFormatter, LogfmtFormatter, configure_logs

_HOSTILE = [
    'x\nlevel=error message="forged"',
    "x\r\nforged",
    "\x1b[2K\x1b[1A\x1b[31mforged\x1b[0m",
    "\u202eforged\u2066",
    "\u2028forged\u2029\x85\x0b\x0c\x1c",
    "\x00\x07\x08\x7f\x9b",
    "zero\u200bwidth\ufeff",
    'quote" level=error \\" \\',
    "\ud800lone",
    "a=b c=d",
    "",
    " ",
    "=",
]
_FORMATTERS = [JsonFormatter(), LogfmtFormatter()]
_BOTH = pytest.mark.parametrize("formatter", _FORMATTERS, ids=["json", "text"])


def _line(
    formatter: logging.Formatter, message: str, error: BaseException | None = None, **extra: Any
) -> str:
    info = None if error is None else (type(error), error, error.__traceback__)
    logger = logging.getLogger("house.room")
    record = logger.makeRecord("house.room", logging.WARNING, "file", 1, message, (), info, extra=extra)
    return formatter.format(record)


def _is_one_plain_line(line: str) -> bool:
    return line.isascii() and line.isprintable() and len(line.splitlines()) == 1


def _parse(line: str) -> dict[str, str]:
    """logfmt, read back by somebody who knows nothing of how it was written."""
    fields = {}
    rest = line
    while rest:
        found = re.match(r'([A-Za-z_]+)=("(?:[^"\\]|\\.)*"|[^ "]*)(?: |$)', rest)
        assert found, rest
        name, value = found[1], found[2]
        assert name not in fields
        fields[name] = json.loads(value) if value.startswith('"') else value
        rest = rest[found.end() :]
    return fields


def _read(formatter: logging.Formatter, line: str) -> dict[str, Any]:
    return dict(json.loads(line)) if isinstance(formatter, JsonFormatter) else dict(_parse(line))


@_BOTH
@pytest.mark.parametrize("hostile", _HOSTILE, ids=ascii)
def test_no_value_forges_a_line(formatter: logging.Formatter, hostile: str) -> None:
    line = _line(formatter, hostile, model=hostile, words=hostile)
    assert _is_one_plain_line(line)
    read = _read(formatter, line)
    assert (read["message"], read["model"], read["words"]) == (hostile, hostile, hostile)
    assert (read["level"], read["logger"]) == ("warning", "house.room")


@given(st.text(), st.text())
def test_whatever_the_text_is_it_is_read_back_as_it_was(message: str, value: str) -> None:
    for formatter in _FORMATTERS:
        line = _line(formatter, message.replace("%", "%%"), ingest=value)
        assert _is_one_plain_line(line)
        read = _read(formatter, line)
        assert (read["message"], read["ingest"]) == (message.replace("%", "%%"), value)


@_BOTH
def test_what_is_given_as_extra_becomes_fields(formatter: logging.Formatter) -> None:
    line = _line(formatter, "upload progress", ingest="abc", size_bytes=7, seconds=0.5, ok=True, none=None)
    read = _read(formatter, line)
    names = ["time", "level", "message", "logger", "ingest", "size_bytes", "seconds", "ok", "none"]
    assert list(read) == names
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", read["time"])
    if isinstance(formatter, JsonFormatter):
        assert [read[name] for name in names[5:]] == [7, 0.5, True, None]
    else:
        assert [read[name] for name in names[5:]] == ["7", "0.5", "True", ""]


@_BOTH
def test_numbers_that_json_has_not_leave_a_readable_line(formatter: logging.Formatter) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    line = _line(formatter, "x", a=float("nan"), b=float("inf"))
    assert _read(formatter, line)["a"] == "nan"
    if isinstance(formatter, JsonFormatter):
        json.loads(line, parse_constant=refuse)


@_BOTH
def test_a_long_value_is_cut(formatter: logging.Formatter) -> None:
    line = _line(formatter, "m" * 100_000, words="w" * 100_000, blob=b"\n" * 100_000)
    assert len(line) < 15_000
    read = _read(formatter, line)
    assert read["message"] == "m" * 2000 + "…"
    assert read["words"] == "w" * 2000 + "…"


def _raised(text: str) -> Exception:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


@pytest.mark.parametrize("hostile", _HOSTILE, ids=ascii)
def test_an_exceptions_text_forges_no_line_either(hostile: str) -> None:
    error = _raised(hostile)
    record = json.loads(_line(JsonFormatter(), "failed", error, ingest="abc"))
    assert record["exception"].startswith("Traceback")
    assert record["exception"].endswith(f"ValueError: {hostile}" if hostile else "ValueError")
    first, *others = _line(LogfmtFormatter(), "failed", error, ingest="abc").split("\n")
    assert _read(LogfmtFormatter(), first)["ingest"] == "abc"
    assert len(others) >= 4
    for other in others:
        assert other.startswith("    ")
        assert other.isprintable()
    assert "ValueError" in "".join(others)


@_BOTH
def test_a_long_exception_keeps_its_end(formatter: logging.Formatter) -> None:
    line = _line(formatter, "failed", _raised("x" * 1_000_000 + "the end"))
    assert len(line) < 25_000
    assert "the end" in line


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("logging_as_it_was")
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_every_record_from_the_level_on_goes_to_stderr_as_a_line(
    monkeypatch: pytest.MonkeyPatch, log_format: str
) -> None:
    sink = io.StringIO()
    monkeypatch.setattr("sys.stderr", sink)
    configure_logs("WARNING", log_format)
    logger = logging.getLogger("ingest_service.test")
    logger.info("too little")
    logger.warning("a\nb", extra={"ingest": "abc"})
    logging.getLogger("httpx").error("theirs")
    lines = sink.getvalue().splitlines()
    formatter: logging.Formatter = JsonFormatter() if log_format == "json" else LogfmtFormatter()
    assert [_read(formatter, line)["message"] for line in lines] == ["a\nb", "theirs"]


@pytest.mark.usefixtures("logging_as_it_was")
def test_libraries_do_not_tell_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = io.StringIO()
    monkeypatch.setattr("sys.stderr", sink)
    configure_logs("DEBUG", "text")
    for name in ("httpx", "httpcore", "aiosqlite", "alembic"):
        logging.getLogger(name).info("one more")
    assert sink.getvalue() == ""

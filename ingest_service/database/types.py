"""Column types and the database's own clock, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Dialect, TypeDecorator, or_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

#: No lease is longer (INGEST_LEASE_SECONDS). One that says it holds for longer was written by a clock ahead.
LONGEST_LEASE_SECONDS = 600.0
#: Clocks of several processes may differ by so much. A time further ahead comes from a clock that was wrong.
CLOCK_SLACK_SECONDS = 60.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Whole microseconds since 1970 in UTC."""
    return (moment - _EPOCH) // _MICROSECOND


class UtcMicros(TypeDecorator[datetime]):
    """An aware datetime, kept as whole microseconds since 1970: SQLite has no time zones of its own."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else to_micros(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        return None if value is None else _EPOCH + timedelta(microseconds=int(value))


class database_now(FunctionElement[int]):  # noqa: N801 (reads as the SQL function it is)
    """The database's clock in microseconds: leases of several processes are compared by one clock."""

    type = BigInteger()
    inherit_cache = True


def lease_has_ended(
    until_us: ColumnElement[Any], now: database_now, longest_seconds: float = LONGEST_LEASE_SECONDS
) -> ColumnElement[bool]:
    """The lease ran out, or says that it holds for longer than `longest_seconds` from now."""
    return or_(until_us < now, until_us > now + int(longest_seconds * 1_000_000))


def latest_believed(now: datetime, longest_seconds: float = CLOCK_SLACK_SECONDS) -> datetime:
    """No stored time after this one is believed: `longest_seconds` is the furthest ahead that it may lie."""
    return now + timedelta(seconds=longest_seconds)


@compiles(database_now, "sqlite")
def _now_sqlite(element: database_now, compiler: SQLCompiler, **options: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"


@compiles(database_now, "postgresql")
def _now_postgresql(element: database_now, compiler: SQLCompiler, **options: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"

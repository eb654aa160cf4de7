"""Which streams are too slow: bytes within a minute, and bytes that are new."""

from __future__ import annotations

from ingest_service.ingests.limits import Limits
from ingest_service.rpc.upload_pace import Pace

_CHUNK = 64 * 1024


def test_a_minute_that_brings_enough_is_fine_and_one_that_does_not_is_not() -> None:
    pace = Pace(Limits(), 0.0)
    assert not pace._is_too_slow(_CHUNK, _CHUNK, 61.0)
    assert not pace._is_too_slow(10, _CHUNK + 10, 100.0)
    assert pace._is_too_slow(10, _CHUNK + 20, 122.0)


def test_a_wait_for_the_store_does_not_count() -> None:
    pace = Pace(Limits(), 0.0)
    pace.pause(1000.0)
    assert not pace._is_too_slow(1, 1, 1050.0)


def test_the_same_bytes_again_and_again_are_no_progress() -> None:
    pace = Pace(Limits(), 0.0)
    ended = [minute for minute in range(1, 20) if pace._is_too_slow(_CHUNK, _CHUNK, minute * 60.0)]
    # It grew with the first, and has ten minutes from there.
    assert ended[0] == 12


def test_a_limit_of_zero_is_none() -> None:
    pace = Pace(Limits(min_bytes_per_minute=0), 0.0)
    assert not any(pace._is_too_slow(0, 0, minute * 60.0) for minute in range(1, 100))

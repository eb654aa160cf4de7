"""Lines of an outage: few, however often something is tried."""

from __future__ import annotations

import pytest

from ingest_service.telemetry.outage import OutageLog


def test_a_long_outage_and_one_that_flickers(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    now = [0.0]
    outage = OutageLog("the database", clock=lambda: now[0])
    for second in range(150):
        now[0] = float(second)
        outage.failed("writing", "no route")
        outage.worked("reading")  # which never failed, and ends nothing
    outage.worked("writing")
    told = [(record.getMessage(), vars(record)["failures"]) for record in caplog.records]
    assert told == [
        ("the database cannot be used", 1),
        ("the database still cannot be used", 61),
        ("the database still cannot be used", 121),
        ("the database can be used again", 150),
    ]
    caplog.clear()
    for tick in range(100):
        now[0] = 200 + tick / 100
        outage.failed("writing", "a lock")
        outage.worked("writing")
    assert len(caplog.records) == 2

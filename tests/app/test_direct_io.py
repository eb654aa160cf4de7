"""INGEST_DIRECT_IO at the start."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from ingest_service.process import StartError
from tests.support.service import RunningService, settings_for


async def test_direct_io_that_is_asked_for_and_cannot_be_had_stops_the_start(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refusing(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(StartError, match="INGEST_DIRECT_IO is on"):
        async with RunningService(settings_for(tmp_path / "on", sqlite_url, direct_io="on")):
            pass
    # By default it is only a matter of speed.
    async with RunningService(settings_for(tmp_path / "auto", f"sqlite+aiosqlite:///{tmp_path / 'auto.db'}")):
        pass

"""A process without free descriptors says so in its log, once a minute, with the setting to raise.

Breaks when: it is told as a target, a database or a disk that fails, or fills the log.
"""

from __future__ import annotations

import errno
import logging
import os

import pytest

from ingest_service.forwarding import Target, TargetError
from ingest_service.forwarding import ollama as ollama_module
from ingest_service.forwarding.ollama import OllamaClient
from ingest_service.storage import posix
from ingest_service.telemetry.descriptors import DescriptorShortage
from tests.ollama_emulator import OllamaEmulator


async def test_it_is_said_once_a_minute(
    emulator: OllamaEmulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    moment = [0.0]
    shortage = DescriptorShortage(clock=lambda: moment[0])
    monkeypatch.setattr(ollama_module, "SHORTAGE", shortage)
    monkeypatch.setattr(posix, "SHORTAGE", shortage)

    def none_left(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as short:
        # What anyio opens for a connection; the error comes through it, httpcore and httpx.
        short.setattr("socket.socket.__init__", none_left)
        for _ in range(3):
            async with OllamaClient(Target("a", emulator.url)) as client:
                with pytest.raises(TargetError, match="run out of file descriptors"):
                    await client.version()
    posix.storage_error(OSError(errno.ENFILE, "full"))
    lines = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert len(lines) == 1
    assert "ulimit -n" in lines[0].message
    assert vars(lines[0])["soft_limit"] > 0
    moment[0] = 60.0
    posix.storage_error(OSError(errno.ENFILE, "full"))
    assert [vars(one)["failures"] for one in caplog.records if one.levelno == logging.WARNING] == [1, 4]
    assert "fs.file-max" in caplog.records[-1].message

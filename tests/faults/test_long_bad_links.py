"""The real command over links that break again and again: it gets there, and each stretch brings it on.

Breaks when: what arrived before a cut is not kept, the client begins anew, or its budget of tries is not
renewed by progress.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
from pathlib import Path

import pytest

from tests.client.test_cli_process import start
from tests.conftest import StartService
from tests.support.files import MEBIBYTE, gguf
from tests.support.proxy import Faults, Plan, TcpProxy
from tests.support.service import RunningService

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]


def starts(caplog: pytest.LogCaptureFixture) -> list[int]:
    """Where each Upload call began, by the service's log."""
    return [
        int(vars(record)["committed_size"])
        for record in caplog.records
        if record.getMessage() == "upload started"
    ]


async def push_through(service: RunningService, plan: Plan, path: Path) -> TcpProxy:
    """`model-ingest push` over that link, to its good end."""
    async with TcpProxy(service.address, lambda number: plan) as proxy:
        process = await start(proxy.address, "push", path, "--name", "far", "--store-only")
        try:
            async with asyncio.timeout(800):
                _, said = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, said
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    with (service.settings.data_dir / "blobs" / f"sha256-{sha256}").open("rb") as blob:
        assert hashlib.file_digest(blob, "sha256").hexdigest() == sha256
    return proxy


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("MODEL_INGEST_SERVER", raising=False)
    return tmp_path / "model.gguf"


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_cut_every_20_mebibytes_it_still_completes(
    reset: bool, path: Path, start_service: StartService, caplog: pytest.LogCaptureFixture
) -> None:
    size_bytes = 200 * MEBIBYTE
    path.write_bytes(gguf(size_bytes))
    service = await start_service()
    link = Faults(cut_after_bytes=20 * MEBIBYTE, reset=reset, bytes_per_second=40 * MEBIBYTE)
    with caplog.at_level(logging.INFO):
        proxy = await push_through(service, Plan(up=link), path)
    began = starts(caplog)
    print(f"{proxy.connections} connections, uploads began at {[at // MEBIBYTE for at in began]} MiB")
    assert proxy.connections > 10
    assert began == sorted(began)
    # What arrived was kept: it did not send much of it twice.
    assert proxy.bytes_up < 1.5 * size_bytes


async def test_ten_megabits_a_second_cut_every_30_seconds_make_steady_progress(
    path: Path, start_service: StartService, caplog: pytest.LogCaptureFixture
) -> None:
    rate, size_bytes = 1_250_000, 100_000_000
    path.write_bytes(gguf(size_bytes))
    # So seldom that what came since the last checkpoint, and would be lost, is more than is allowed below.
    service = await start_service(checkpoint_seconds=20)
    link = Faults(cut_after_bytes=30 * rate, bytes_per_second=rate)
    with caplog.at_level(logging.INFO):
        proxy = await push_through(service, Plan(up=link), path)
    began = starts(caplog)
    print(f"{proxy.connections} connections, uploads began at {began}")
    assert len(began) >= 3
    for earlier, later in itertools.pairwise(began):
        # A stretch brings 37.5 MB; a MiB or so of it may be a chunk that was cut in two.
        assert later - earlier > 34_000_000

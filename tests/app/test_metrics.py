"""`GET /metrics` of a running service, asked for over HTTP as Prometheus does.

Breaks when: a metric is missing, stands still or says something else than the part that it is about; the port
is open though nobody asked for it, stays open after the stop, or answers anything else; or the event loop, a
connection that says nothing, or many of them keep the answer back. Workers: test_workers.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import psutil
import pytest
from model_ingest.v1.ingest_service_pb2 import ListIngestsRequest
from prometheus_client import CollectorRegistry

from ingest_service.storage.local_partial import LocalPartial
from ingest_service.telemetry import metrics_server
from tests.conftest import StartService
from tests.support.files import MEBIBYTE, create_request, gguf, upload_messages
from tests.support.metrics import Figures, ask, figures
from tests.support.service import RunningService

_ANYWHERE = "127.0.0.1:0"
_STALL_SECONDS = 0.05
#: Only a metric that stands still lets it pass.
_GIVE_UP_SECONDS = 15.0


async def _scrape(service: RunningService) -> Figures:
    return await asyncio.to_thread(figures, service.service.metrics_port)


async def _until(service: RunningService, name: str, is_wanted: Callable[[float], bool]) -> float:
    """Asks until that metric is so; answers it."""
    async with asyncio.timeout(_GIVE_UP_SECONDS):
        while not is_wanted(value := (await _scrape(service))[name]):
            await asyncio.sleep(0.01)
    return value


def _listening() -> set[int]:
    connections = psutil.Process().net_connections(kind="tcp")
    return {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}


async def _block_once(
    service: RunningService, monkeypatch: pytest.MonkeyPatch, how: Any, *, beats: int = 1
) -> None:
    """Calls `how` within a call of the service, and waits for the loop's next heartbeats."""
    page = service.service.ingests.page

    async def blocking_page(*arguments: Any, **values: Any) -> Any:
        how()
        return await page(*arguments, **values)

    with monkeypatch.context() as patch:
        patch.setattr(service.service.ingests, "page", blocking_page)
        await service.ingests.ListIngests(ListIngestsRequest())
    monitor = service.service.loop_monitor
    wanted = monitor.lag.beats + beats
    while monitor.lag.beats < wanted:
        await asyncio.sleep(0.005)


async def test_nobody_listens_by_default(start_service: StartService) -> None:
    before = _listening()
    service = await start_service()
    assert _listening() - before == {service.service.port}
    assert service.service.metrics_port == 0


async def test_what_runs_and_the_process_are_told(start_service: StartService) -> None:
    service = await start_service(metrics_listen=_ANYWHERE)
    seen = await _scrape(service)
    assert seen[f'ingest_build_info{{version="{version("model-ingest-service")}"}}'] == 1
    process = psutil.Process()
    assert seen["process_start_time_seconds"] == pytest.approx(process.create_time(), abs=60)
    assert seen["process_resident_memory_bytes"] > MEBIBYTE
    # Nobody else's: what other parts of a process may have put into the library's own registry.
    assert {name.partition("_")[0] for name in seen} == {"ingest", "process"}


async def test_a_loop_that_waits_and_one_that_computes_are_counted(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start_service(metrics_listen=_ANYWHERE, stall_seconds=_STALL_SECONDS)
    before = await _scrape(service)

    await _block_once(service, monkeypatch, lambda: threading.Event().wait(0.2))
    waited = await _scrape(service)
    # A heartbeat was due 20 ms after the sleep began, at the latest.
    assert waited["ingest_event_loop_stalls_total"] > before["ingest_event_loop_stalls_total"]
    name = "ingest_event_loop_stalled_seconds_total"
    assert waited[name] - before[name] >= 0.15
    assert waited["ingest_event_loop_longest_lag_seconds"] >= 0.15
    assert waited["ingest_event_loop_lag_seconds_sum"] - before["ingest_event_loop_lag_seconds_sum"] >= 0.15

    def compute() -> None:
        end = time.thread_time() + 0.2
        while time.thread_time() < end:
            pass

    await _block_once(service, monkeypatch, compute)
    computed = await _scrape(service)
    name = "ingest_event_loop_stalled_cpu_seconds_total"
    assert computed[name] - waited[name] >= 0.2


async def test_the_histogram_is_the_monitors(start_service: StartService) -> None:
    service = await start_service(metrics_listen=_ANYWHERE)
    service.service.loop_monitor.stop()
    # Nothing moves any more: the figures are those of this moment.
    service.service.loop_monitor._note(0.004, 0.0)
    service.service.loop_monitor._note(9.0, 0.25)
    lag = service.service.loop_monitor.lag
    seen = await _scrape(service)
    bucket = 'ingest_event_loop_lag_seconds_bucket{{le="{}"}}'
    assert seen[bucket.format("0.001")] == lag.histogram[0]
    assert seen[bucket.format("0.005")] == sum(lag.histogram[:3])
    assert seen[bucket.format("5.0")] == lag.beats - 1
    assert seen[bucket.format("+Inf")] == seen["ingest_event_loop_lag_seconds_count"] == lag.beats
    assert seen["ingest_event_loop_lag_seconds_sum"] == lag.lag_seconds
    assert seen["ingest_event_loop_longest_lag_seconds"] == lag.longest_seconds == 9.0
    assert seen["ingest_event_loop_stalls_total"] == lag.stalls >= 1
    assert seen["ingest_event_loop_stalled_seconds_total"] == lag.stalled_seconds
    assert seen["ingest_event_loop_stalled_cpu_seconds_total"] == lag.stalled_cpu_seconds


async def test_uploads_and_their_window_rise_and_fall(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start_service(metrics_listen=_ANYWHERE)
    data = gguf(2 * MEBIBYTE)
    ingest = await service.ingests.CreateIngest(create_request(data))
    start, *chunks = upload_messages(ingest.files[0].name, data)
    assert (await _scrape(service))["ingest_uploads_active"] == 0
    call = service.ingests.Upload(timeout=60)
    await call.write(start)
    await _until(service, "ingest_uploads_active", lambda value: value == 1)
    # Nothing is written for now: what arrives is held.
    gate = asyncio.Event()
    write = LocalPartial.write

    async def waiting_write(self: LocalPartial, *arguments: Any) -> None:
        await gate.wait()
        await write(self, *arguments)

    monkeypatch.setattr(LocalPartial, "write", waiting_write)
    try:
        await call.write(chunks[0])
        held_bytes = await _until(service, "ingest_window_held_bytes", lambda value: value > 0)
        assert held_bytes == MEBIBYTE
    finally:
        gate.set()
    for chunk in chunks[1:]:
        await call.write(chunk)
    await call.done_writing()
    await call
    seen = await _scrape(service)
    assert (seen["ingest_uploads_active"], seen["ingest_window_held_bytes"]) == (0, 0)


async def test_it_answers_while_the_event_loop_is_stuck(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start_service(metrics_listen=_ANYWHERE)
    seen: list[Figures] = []
    # The loop itself asks, and does not turn until it has the answer.
    await _block_once(service, monkeypatch, lambda: seen.append(figures(service.service.metrics_port)))
    assert "ingest_event_loop_stalls_total" in seen[0]


@pytest.mark.extended_unless("GET-/-404", "GET-/metrics-200")
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/metrics", 200),
        ("GET", "/metrics?name[]=ingest_uploads_active", 200),
        ("GET", "/", 404),
        ("GET", "/metrics/", 404),
        ("GET", "/metricsx", 404),
        ("POST", "/metrics", 501),
    ],
)
async def test_nothing_else_is_answered(
    start_service: StartService, method: str, path: str, status: int
) -> None:
    service = await start_service(metrics_listen=_ANYWHERE)
    answer = await asyncio.to_thread(ask, service.service.metrics_port, path, method)
    assert answer[0] == status
    assert ("ingest_uploads_active 0" in answer[1]) == (status == 200)
    assert "Python" not in answer[2]


async def test_connections_that_say_nothing_keep_nobody_out(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None is ended for its silence.
    monkeypatch.setattr(metrics_server._Handler, "timeout", 3 * _GIVE_UP_SECONDS)
    service = await start_service(metrics_listen=_ANYWHERE)
    with contextlib.ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", service.service.metrics_port)))
            for _ in range(metrics_server._MAX_CONNECTIONS + 2)
        ]
        assert (await _scrape(service))["ingest_uploads_active"] == 0
        # The oldest made room.
        silent[0].settimeout(_GIVE_UP_SECONDS)
        assert await asyncio.to_thread(silent[0].recv, 1) == b""
        handlers = [one for one in threading.enumerate() if "process_request_thread" in one.name]
        assert len(handlers) <= metrics_server._MAX_CONNECTIONS + 1


async def test_a_connection_that_says_nothing_is_ended(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_server._Handler, "timeout", 0.05)
    service = await start_service(metrics_listen=_ANYWHERE)
    with socket.create_connection(("127.0.0.1", service.service.metrics_port)) as silent:
        silent.settimeout(_GIVE_UP_SECONDS)
        assert await asyncio.to_thread(silent.recv, 1) == b""


async def test_a_stop_ends_it(start_service: StartService) -> None:
    service = await start_service(metrics_listen=_ANYWHERE)
    await _scrape(service)
    thread = service.service.metrics._thread
    assert thread is not None
    assert thread.is_alive()
    await service.service.stop(0.0)
    assert not thread.is_alive()
    assert service.service.metrics_port not in _listening()
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        await _scrape(service)


@pytest.mark.parametrize("listen", ["127.0.0.1:65536", f"{'a' * 64}:1"])
def test_what_no_address_can_be(listen: str) -> None:
    server = metrics_server.MetricsServer(CollectorRegistry())
    with pytest.raises(OSError, match=r".+"):
        server.start(listen)
    server.stop()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET http://[/ HTTP/1.0\r\n\r\n", b" 400 "),
        (b"GET /metrics HTTP/1.0\r\nAccept: application/openmetrics-text;version=x\r\n\r\n", b" 200 "),
    ],
)
async def test_what_cannot_be_parsed_is_answered_and_not_logged(
    start_service: StartService, request_bytes: bytes, status: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    service: RunningService = await start_service(metrics_listen="127.0.0.1:0")
    assert service.service.metrics_port is not None

    def ask_plainly(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=15) as plain:
            plain.sendall(request_bytes)
            return plain.makefile("rb").readline()

    answer = await asyncio.to_thread(ask_plainly, service.service.metrics_port)
    assert status in answer
    assert "unforeseen" not in caplog.text

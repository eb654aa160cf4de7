"""The server's options are those of the design (section 2) and no others; a port has one server."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path

import pytest

from ingest_service.process import StartError
from ingest_service.rpc.server import SERVER_OPTIONS, server_options
from tests.support.service import RunningService, settings_for

#: Of HTTP/2 (RFC 9113, 6.5).
_SETTINGS_FRAME, _INITIAL_WINDOW_SIZE = 4, 4
DESIGN = {
    "grpc.max_receive_message_length": 4 * 1024 * 1024,
    "grpc.max_send_message_length": 4 * 1024 * 1024,
    "grpc.max_metadata_size": 16 * 1024,
    "grpc.max_concurrent_streams": 100,
    # A dead peer is noticed, with calls or without.
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.keepalive_permit_without_calls": 1,
    # A client that pings every 10 s is not sent away.
    "grpc.http2.min_recv_ping_interval_without_data_ms": 10_000,
    "grpc.http2.max_ping_strikes": 2,
    "grpc.so_reuseport": 0,
    # A set of bits: identity alone.
    "grpc.compression_enabled_algorithms_bitset": 1,
}


def test_the_options_are_those_of_the_design_and_no_others() -> None:
    assert len(SERVER_OPTIONS) == len(DESIGN)
    assert dict(SERVER_OPTIONS) == DESIGN


def test_workers_share_their_port_and_differ_in_nothing_else() -> None:
    assert server_options() == SERVER_OPTIONS
    assert dict(server_options(shares_port=True)) == DESIGN | {"grpc.so_reuseport": 1}


def test_a_fixed_window_bounds_what_a_call_has_unread() -> None:
    fixed = {"grpc.http2.bdp_probe": 0, "grpc.http2.lookahead_bytes": 131_072}
    assert dict(server_options(call_window_bytes=131_072)) == DESIGN | fixed


async def test_a_calls_window_is_what_the_setting_says(service: RunningService) -> None:
    """Else each call may bring 4 MiB before anybody has seen it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.service.port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
    try:
        head = await reader.readexactly(9)
        payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
    finally:
        writer.close()
        await writer.wait_closed()
    assert head[3] == _SETTINGS_FRAME
    assert dict(struct.iter_unpack(">HI", payload))[_INITIAL_WINDOW_SIZE] == 256 * 1024


async def test_a_second_server_on_the_same_port_does_not_start(
    service: RunningService, tmp_path: Path
) -> None:
    settings = settings_for(
        tmp_path / "other", f"sqlite+aiosqlite:///{tmp_path / 'other.db'}", listen=service.address
    )
    with pytest.raises(StartError, match=f"INGEST_LISTEN={service.address} .* Choose another"):
        async with RunningService(settings):
            pass


async def test_a_port_that_somebody_else_has_does_not_serve(tmp_path: Path, sqlite_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        settings = settings_for(tmp_path / "data", sqlite_url, listen=address)
        with pytest.raises(StartError, match="INGEST_LISTEN"):
            async with RunningService(settings):
                pass

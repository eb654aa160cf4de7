"""A reserved port is its test's alone, and a server of that test can take it again and again."""

from __future__ import annotations

import contextlib
import socket

import pytest
from grpc import aio

from ingest_service.rpc.server import SERVER_OPTIONS
from tests.support.ports import ReservedPort


def test_nobody_who_asks_for_any_port_gets_a_reserved_one() -> None:
    # 300 of the 28 232 that Linux gives away: of 1 500 given without regard to them, 16 would be ours.
    reserved = [ReservedPort() for _ in range(300)]
    ours = {one.port for one in reserved}
    assert len(ours) == len(reserved)
    with socket.create_server(("127.0.0.1", 0)) as server:
        for _ in range(1500):
            with socket.create_server(("127.0.0.1", 0)) as other:
                assert other.getsockname()[1] not in ours
        for _ in range(100):
            with socket.create_connection(server.getsockname()) as client:
                assert client.getsockname()[1] not in ours
                server.accept()[0].close()


async def test_a_server_takes_a_reserved_port_as_often_as_it_starts() -> None:
    reserved = ReservedPort()
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", reserved.port))
        server = aio.server(options=SERVER_OPTIONS)
        assert server.add_insecure_port(reserved.address) == reserved.port
        await server.start()
        with contextlib.closing(socket.create_connection(("127.0.0.1", reserved.port))):
            pass
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", reserved.port))
        await server.stop(None)

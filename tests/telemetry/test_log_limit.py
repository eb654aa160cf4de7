"""A caller cannot fill the log."""

from __future__ import annotations

import io
import logging

from ingest_service.telemetry.log_limit import PEER, LogLimit, peer_address


def test_a_flood_of_one_peer_is_counted_and_others_are_heard() -> None:
    sink, now = io.StringIO(), [0.0]
    handler = logging.StreamHandler(sink)
    limit = LogLimit(handler, clock=lambda: now[0])
    handler.addFilter(limit)
    handler.setFormatter(
        logging.Formatter("%(message)s %(peer)s %(count)s", defaults={"peer": "", "count": ""})
    )

    def say(peer: str, message: str, times: int) -> None:
        token = PEER.set(peer)
        for _ in range(times):
            handler.handle(logging.LogRecord("x", logging.INFO, "", 0, message, (), None))
        PEER.reset(token)

    say("1.2.3.4", "call refused", 1000)
    say("5.6.7.8", "call refused", 3)
    say("1.2.3.4", "ingest accepted", 2)
    say("", "repaired", 100)
    limit.flush()
    lines = [line.strip() for line in sink.getvalue().splitlines()]
    assert lines.count("call refused 1.2.3.4") == 20
    assert lines.count("call refused 5.6.7.8") == 3
    assert lines.count("ingest accepted 1.2.3.4") == 2
    assert lines.count("repaired") == 100
    assert lines[-1] == "more lines like this were left out 1.2.3.4 980"
    now[0] = 2.0
    say("1.2.3.4", "call refused", 1)
    assert sink.getvalue().splitlines()[-1].strip() == "call refused 1.2.3.4"
    if limit._timer is not None:
        limit._timer.cancel()


def test_all_ports_of_a_peer_are_one() -> None:
    assert peer_address("ipv4:127.0.0.1:50051") == "ipv4:127.0.0.1"
    assert peer_address("ipv6:%5B::1%5D:1") == "ipv6:%5B::1%5D"

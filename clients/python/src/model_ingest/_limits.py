"""The client's times, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Every wait ends: these say when.

    timeout_seconds: one unary call, waits that the server asks for included.
    connect_timeout_seconds: a peer that accepts the connection and does not speak.
    stall_seconds: a stream on which nothing moves (the server sends heartbeats every 15 s).
    patience_seconds: trying again without any progress; progress renews it.
    """

    timeout_seconds: float = 30.0
    connect_timeout_seconds: float = 15.0
    stall_seconds: float = 60.0
    patience_seconds: float = 120.0

"""The record of every call the emulator received, in order of arrival."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Call:
    """One HTTP request. `outcome`: open, answered, reset, hung_up, cut, client_gone, aborted."""

    number: int
    name: str
    method: str
    path: str
    headers: dict[str, str]
    connection: int
    started: float = field(default_factory=time.monotonic)
    finished: float | None = None
    status: int | None = None
    body_bytes: int = 0
    json: Any = None
    lines: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    outcome: str = "open"

    def as_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "name": self.name,
            "method": self.method,
            "path": self.path,
            "headers": self.headers,
            "connection": self.connection,
            "started": self.started,
            "finished": self.finished,
            "status": self.status,
            "body_bytes": self.body_bytes,
            "json": self.json,
            "lines": self.lines,
            "faults": self.faults,
            "outcome": self.outcome,
        }


class Calls(list[Call]):
    """A plain list with the questions tests ask most."""

    def named(self, name: str) -> list[Call]:
        return [call for call in self if call.name == name]

    def names(self) -> list[str]:
        return [call.name for call in self]

    def body_bytes(self, name: str = "blob_post") -> int:
        """Body bytes the handlers of one call read; the short circuit reads none."""
        return sum(call.body_bytes for call in self if call.name == name)

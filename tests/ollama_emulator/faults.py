"""The fault plan: what goes wrong, at which call, how often (contract section 9).

`emulator.faults.add(Fault(...))` in-process, `POST /__emulator__/faults` from outside.
`README.md` has one example of every kind.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import time
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    # instead of an answer, or of the rest of one
    RESET = "reset"
    HANG_UP = "hang_up"
    RESPOND = "respond"
    NO_SPACE = "no_space"
    CUT = "cut"
    END_EARLY = "end_early"
    ERROR_LINE = "error_line"
    REFUSE = "refuse"
    RESTART = "restart"
    # timing
    STALL = "stall"
    LINE_DELAY = "line_delay"
    SLOW_READ = "slow_read"
    # what is on disk
    VANISH_BLOB = "vanish_blob"
    TRUNCATE_BLOB = "truncate_blob"
    CORRUPT_UPLOAD = "corrupt_upload"
    # how an answer looks
    RAW_LINE = "raw_line"
    SPLIT_LINES = "split_lines"
    JOIN_LINES = "join_lines"
    GZIP = "gzip"


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    kind: a `Kind` or its name; any other name is a ValueError.
    call: `blob_head blob_post create show tags copy delete ps version pull root unknown`, or `any`.
    after: so many matching calls pass first. times: how often it fires; None is for ever.
    match: text that must occur in the path or the JSON body.
    takes_effect: for reset, hang_up, respond, cut, end_early, error_line: the server does its
        work all the same (the blob is stored, the model exists); only the client cannot see it.
    at_bytes: after that many body bytes of a blob POST; None is after all of them.
    after_line: in an NDJSON answer: after the first line whose status starts with this text,
        or after that many lines; 0 or None is after the headers (a stall without it: before).
    """

    kind: str
    call: str = "any"
    times: int | None = 1
    after: int = 0
    match: str = ""
    takes_effect: bool = False
    at_bytes: int | None = None
    after_line: str | int | None = None
    status: int = 500
    body: bytes | str = b""
    content_type: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float | None = None
    bytes_per_second: float = 1 << 20
    size: int = 0
    reset: bool = False
    prune: str = "grace"
    version: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", Kind(self.kind))
        if self.prune not in ("none", "grace", "all"):
            raise ValueError(f"prune: {self.prune!r} is not none, grace or all")

    @property
    def payload(self) -> bytes:
        return self.body.encode() if isinstance(self.body, str) else self.body

    def hits_line(self, count: int, status: str) -> bool:
        """Whether `after_line` means the line just sent, number `count` (0: the headers)."""
        if isinstance(self.after_line, str):
            return count > 0 and status.startswith(self.after_line)
        return count == (self.after_line or 0)

    @classmethod
    def from_json(cls, data: Any) -> Fault:
        """The control endpoint's form; bytes come as `body_base64`."""
        if not isinstance(data, dict) or "kind" not in data:
            raise ValueError("a fault is an object with a kind")
        data = dict(data)
        if "body_base64" in data:
            data["body"] = base64.b64decode(data.pop("body_base64"))
        unknown = set(data) - {item.name for item in fields(cls)}
        if unknown:
            raise ValueError(f"unknown fields: {', '.join(sorted(unknown))}")
        return cls(**data)


class Armed:
    """A fault in the plan: how often it was seen and fired; releases what it stalls."""

    def __init__(self, number: int, fault: Fault) -> None:
        self.number = number
        self.fault = fault
        self.seen = 0
        self.fired = 0
        self.stalled = 0
        self.released = False

    @property
    def spent(self) -> bool:
        return self.fault.times is not None and self.fired >= self.fault.times

    def release(self) -> None:
        """Ends every stall of this fault, now and later. Safe from any thread."""
        self.released = True

    async def wait_fired(self, times: int = 1, timeout: float = 5) -> None:
        await _until(lambda: self.fired >= times, timeout, f"{self.fault.kind} did not fire")

    async def wait_stalled(self, timeout: float = 5) -> None:
        await _until(lambda: self.stalled > 0, timeout, f"{self.fault.kind} stalls nothing")

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.number,
            "kind": str(self.fault.kind),
            "call": self.fault.call,
            "seen": self.seen,
            "fired": self.fired,
            "stalled": self.stalled,
            "released": self.released,
        }


async def _until(condition: Any, timeout: float, complaint: str) -> None:
    # Polled, so that it also works from another thread's event loop.
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(complaint)
        await asyncio.sleep(0.005)


class FaultPlan:
    def __init__(self) -> None:
        self._armed: list[Armed] = []
        self._numbers = itertools.count(1)

    def add(self, fault: Fault) -> Armed:
        armed = Armed(next(self._numbers), fault)
        self._armed.append(armed)
        return armed

    def remove(self, armed: Armed) -> None:
        armed.release()
        self._armed.remove(armed)

    def clear(self) -> None:
        for armed in self._armed:
            armed.release()
        self._armed = []

    def release(self, number: int | None = None) -> int:
        """Releases one fault's stalls, or all; returns how many faults that were."""
        chosen = [armed for armed in self._armed if number in (None, armed.number)]
        for armed in chosen:
            armed.release()
        return len(chosen)

    def all(self) -> list[Armed]:
        return list(self._armed)

    def take(self, call: str, text: str) -> list[Armed]:
        """The faults that fire at this call, in the order they were added."""
        firing = []
        for armed in self._armed:
            fault = armed.fault
            if fault.call not in ("any", call) or fault.match not in text or armed.spent:
                continue
            armed.seen += 1
            if armed.seen > fault.after:
                armed.fired += 1
                firing.append(armed)
        return firing

"""How Go prints things: JSON, %q, RFC 3339 times, human numbers (contract sections 1 and 7)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

_HTML = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\a": "\\a"}


def dumps(value: Any, *, sort: bool = False) -> bytes:
    """`json.Marshal`: compact, UTF-8, with `<`, `>` and `&` escaped; `sort` for Go maps."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=sort)
    for char, escape in _HTML.items():
        text = text.replace(char, escape)
    return text.encode("utf-8", "replace")


def quote(text: str) -> str:
    """`%q`."""
    out = []
    for char in text:
        if char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif char.isprintable():
            out.append(char)
        elif ord(char) < 0x80:
            out.append(f"\\x{ord(char):02x}")
        else:
            out.append(f"\\u{ord(char):04x}" if ord(char) <= 0xFFFF else f"\\U{ord(char):08x}")
    return '"' + "".join(out) + '"'


def rfc3339(nanoseconds: int, offset_minutes: int = 0) -> str:
    """RFC3339Nano: up to nine fractional digits, trailing zeros trimmed, offset or Z."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    zone = UTC if offset_minutes == 0 else timezone(timedelta(minutes=offset_minutes))
    stamp = datetime.fromtimestamp(seconds, zone).strftime("%Y-%m-%dT%H:%M:%S")
    if fraction:
        stamp += "." + f"{fraction:09d}".rstrip("0")
    if offset_minutes == 0:
        return stamp + "Z"
    sign = "+" if offset_minutes > 0 else "-"
    hours, minutes = divmod(abs(offset_minutes), 60)
    return f"{stamp}{sign}{hours:02d}:{minutes:02d}"


def human_number(value: int) -> str:
    """`format.HumanNumber`: what `details.parameter_size` shows."""
    for unit, suffix, digits in ((10**9, "B", 1), (10**6, "M", 2)):
        if value >= unit:
            number = value / unit
            return f"{number:.0f}{suffix}" if number == int(number) else f"{number:.{digits}f}{suffix}"
    return f"{value / 1000:.0f}K" if value >= 1000 else str(value)

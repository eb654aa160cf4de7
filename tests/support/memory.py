"""How much memory this process came to hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_KIBIBYTE = 1024


@dataclass
class Growth:
    """Of the resident memory at its peak; filled in at the end of `peak_growth`."""

    peak_bytes: int = 0


@contextmanager
def peak_growth() -> Iterator[Growth]:
    """Measures the body of the `with`. Linux only."""
    # 5: the kernel starts its record of the peak anew.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_bytes("VmRSS")
    growth = Growth()
    yield growth
    growth.peak_bytes = _status_bytes("VmHWM") - before


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * _KIBIBYTE
    raise AssertionError(name)

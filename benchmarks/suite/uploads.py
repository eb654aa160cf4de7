"""One upload against what the machine can do, and many at once."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.suite.sides import MEBIBYTE, Sent, Server, hash_rate, new_file, ours, send, write_rate

AT_ONCE = (1, 4, 16, 64)
#: Who sends, and to whom; `known` has the goals.
_SENDERS = ("known", "thin", "real", "naive")
_Rates = dict[str, list[float]]


def _middle(values: list[float]) -> float:
    return round(statistics.median(values), 3)


def ratios(over: list[float], under: list[float]) -> dict[str, Any]:
    """Of figures taken in the same round: each round's ratio, and the middle one."""
    each = [round(a / b, 3) for a, b in zip(over, under, strict=True)]
    return {"median": _middle(each), "rounds": each}


async def _round(servers: dict[str, Server], here: Path, size_bytes: int, number: int) -> dict[str, Any]:
    """Each contestant once, with new bytes for each."""
    taken: dict[str, Any] = {}
    for what in _SENDERS:
        file = new_file(here / "file.gguf", size_bytes)
        side = "naive" if what == "naive" else "ours"
        how = "thin" if what == "naive" else what
        taken[what] = await send(servers[side], how, [file], f"one-{what}-{number}")
    (taken["sha256"], taken["sha256_cpu"]), taken["write"] = hash_rate(file[0]), write_rate(file[0])
    Path(file[0]).unlink()
    return taken


async def one(directory: Path, size_bytes: int, rounds: int, servers: dict[str, Server]) -> dict[str, Any]:
    """A durable upload: the digest remembered (known), given to a bare stub (thin), or found out (real)."""
    taken = [await _round(servers, directory, size_bytes, number) for number in range(rounds)]
    rates: _Rates = {what: [one[what].bytes_per_second for one in taken] for what in _SENDERS}
    rates |= {what: [one[what] for one in taken] for what in ("sha256", "write")}
    sent: dict[str, list[Sent]] = {what: [one[what] for one in taken] for what in _SENDERS}
    # Both processes on as many cores as they get: a second of CPU hashes so many bytes.
    both = [one.cpu_per_gb(both=True) for one in sent["real"]]
    return {
        "bytes_per_second": {what: round(statistics.median(each)) for what, each in rates.items()},
        "ratio": {
            "declared digest / one core's sha256": ratios(rates["known"], rates["sha256"]),
            "declared digest / write+fdatasync": ratios(rates["known"], rates["write"]),
            "declared digest / naive handler": ratios(rates["known"], rates["naive"]),
            "bare stub / one core's sha256": ratios(rates["thin"], rates["sha256"]),
            "bare stub / naive handler": ratios(rates["thin"], rates["naive"]),
            "hashing client / one core's sha256": ratios(rates["real"], rates["sha256"]),
            "hashing client / what both processes' CPU allows on 2 cores": ratios(
                rates["real"], [2e9 / one for one in both]
            ),
        },
        "cpu_seconds_per_gb": {
            "server, declared digest": _middle([one.cpu_per_gb() for one in sent["known"]]),
            "server, bare stub": _middle([one.cpu_per_gb() for one in sent["thin"]]),
            "server, hashing client": _middle([one.cpu_per_gb() for one in sent["real"]]),
            "server, naive handler": _middle([one.cpu_per_gb() for one in sent["naive"]]),
            "both, declared digest": _middle([one.cpu_per_gb(both=True) for one in sent["known"]]),
            "both, bare stub": _middle([one.cpu_per_gb(both=True) for one in sent["thin"]]),
            "both, hashing client": _middle(both),
            # Where this is high, others share the cores' caches and threads, and all above is high as well.
            "sha256 alone": _middle([one["sha256_cpu"] for one in taken]),
        },
    }


async def many(directory: Path, size_bytes: int, rounds: int) -> dict[str, Any]:
    """As many bytes in all, by 1, 4, 16 and 64 uploads at once; a server for each, whose memory is theirs."""
    rates: dict[int, list[float]] = {count: [] for count in AT_ONCE}
    memory: dict[int, list[float]] = {count: [] for count in AT_ONCE}
    cpu: dict[int, list[float]] = {count: [] for count in AT_ONCE}
    for number in range(rounds):
        for count in AT_ONCE:
            with tempfile.TemporaryDirectory(dir=directory) as name:
                here = Path(name)
                files = [new_file(here / f"{index}.gguf", size_bytes // count) for index in range(count)]
                async with ours(here) as server:
                    sent = await send(server, "thin", files, f"many-{count}-{number}")
            rates[count].append(sent.bytes_per_second)
            memory[count].append((sent.peak_bytes - sent.resting_bytes) / MEBIBYTE / count)
            cpu[count].append(sent.cpu_per_gb())
    return {
        "ratio_to_one": {count: ratios(rates[count], rates[1]) for count in AT_ONCE},
        "rss_mib_per_active_upload": {count: round(statistics.median(memory[count]), 1) for count in AT_ONCE},
        "server_cpu_seconds_per_gb": {count: _middle(cpu[count]) for count in AT_ONCE},
    }

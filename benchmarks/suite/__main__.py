"""Every figure of the service in one run, as ratios taken in alternation: `make bench`.

    BENCH_BYTES=268435456 BENCH_ROUNDS=3 BENCH_ONLY="one unary" make bench

Prints a table; writes bench.json and, where matplotlib is installed, bench.png into build/bench/. What each
row means and which goal it has: docs/performance.md.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.suite import others, table, uploads, ways
from benchmarks.suite.sides import MEBIBYTE, naive, ours
from tests.support.service import ROOT

_OUT = ROOT / "build" / "bench"
_SECTIONS = ("one", "many", "unary", "to_ready", "again", "after_a_kill", "workers")


async def _section(name: str, directory: Path, size_bytes: int, rounds: int) -> dict[str, Any]:
    if name == "one":
        (directory / "one").mkdir()
        async with ours(directory / "one") as served, naive(directory / "one" / "naive") as other:
            servers = {"ours": served, "naive": other}
            return await uploads.one(directory, size_bytes, rounds, servers)
    sections = {
        "many": uploads.many,
        "unary": others.unary,
        "to_ready": ways.to_ready,
        "again": ways.again,
        "after_a_kill": ways.after_a_kill,
        "workers": others.workers,
    }
    return await sections[name](directory, size_bytes, rounds)


async def _run(names: list[str], size_bytes: int, rounds: int) -> dict[str, Any]:
    told: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "size_bytes": size_bytes,
        "rounds": rounds,
        "seconds": {},
        "load": {"before": os.getloadavg()},
    }
    for name in names:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(
            prefix="model-ingest-bench-", dir=os.environ.get("BENCH_DIRECTORY")
        ) as at:
            told[name] = await _section(name, Path(at), size_bytes, rounds)
        told["seconds"][name] = round(time.perf_counter() - began, 1)
        told["load"][name] = os.getloadavg()
        print(
            f"{name}: {told['seconds'][name]} s, load {told['load'][name][0]:.1f}",
            file=sys.stderr,
            flush=True,
        )
    return told


def main() -> int:
    size_bytes = int(os.environ.get("BENCH_BYTES") or 256 * MEBIBYTE)
    rounds = int(os.environ.get("BENCH_ROUNDS") or 3)
    names = (os.environ.get("BENCH_ONLY") or " ".join(_SECTIONS)).split()
    if unknown := set(names) - set(_SECTIONS):
        sys.stderr.write(f"make bench: BENCH_ONLY knows {' '.join(_SECTIONS)}, not {' '.join(unknown)}\n")
        return 2
    if size_bytes < 64 * MEBIBYTE:
        sys.stderr.write("make bench: BENCH_BYTES must be 67108864 at least, a MiB for each of 64 uploads\n")
        return 2
    told = asyncio.run(_run(names, size_bytes, rounds))
    _OUT.mkdir(parents=True, exist_ok=True)
    (_OUT / "bench.json").write_text(json.dumps(told, indent=2) + "\n")
    drawn = table.plot(told, _OUT / "bench.png")
    print(table.text(told))
    print(f"\nload {[round(one[0], 1) for one in told['load'].values()]}, {os.cpu_count()} cores")
    print(f"{_OUT.relative_to(ROOT)}/bench.json{' and bench.png' if drawn else '; no plot: no matplotlib'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

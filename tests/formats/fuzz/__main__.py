"""`make fuzz`: every reader in turn, first by atheris where it is installed, then by mutations of our own.

FUZZ_SECONDS: for all readers together. FUZZ_EXECUTIONS: for each reader and engine, at most. FUZZ_READERS,
FUZZ_ENGINES: some of them. An input that breaks a property is kept in build/fuzz and named.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.formats.corpus_files import CORPUS
from tests.formats.fuzz.mutate import MAX_BYTES, Mutator
from tests.formats.fuzz.properties import check

_ROOT = Path(__file__).resolve().parents[3]
_FOUND = _ROOT / "build" / "fuzz"
#: A process that does nothing but read small inputs has some 60 MB; more is a leak, or one large input.
_MAX_RSS_MIB = 512


def mutations(kind: str, seconds: float, executions: int) -> int:
    """How many inputs were tried. Whatever escapes ends it."""
    seed = int(os.environ.get("FUZZ_SEED", time.time_ns() % 2**32))
    mutator = Mutator(kind, list(CORPUS[kind].values()), seed)
    known: set[tuple[str, object]] = set()
    verdicts: Counter[str] = Counter()
    started, done = time.monotonic(), 0
    for data in mutator:
        if done >= executions or (done % 256 == 0 and time.monotonic() - started > seconds):
            break
        try:
            verdict = check(kind, data)
        except BaseException:
            keep(kind, data)
            raise
        if verdict not in known and len(known) < 5000:
            known.add(verdict)
            mutator.keep(data)
        verdicts[verdict[0]] += 1
        done += 1
    used_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    spent = time.monotonic() - started
    print(
        f"{kind}: {done} mutations in {spent:.0f} s (seed {seed}), none escaped; most memory {used_mib} MiB"
    )
    print("  " + ", ".join(f"{rule} {count}" for rule, count in sorted(verdicts.items())), flush=True)
    if used_mib > _MAX_RSS_MIB:
        raise SystemExit(f"{kind}: {used_mib} MiB")
    return done


def keep(kind: str, data: bytes) -> None:
    """So that it can be tried again: `python -m tests.formats.fuzz FILE`, in a directory of its reader."""
    path = _FOUND / kind / hashlib.sha256(data).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    print(f"{kind}: broken by {path.relative_to(_ROOT)}", file=sys.stderr, flush=True)


def guided(kind: str, seconds: float, executions: int) -> int:
    """By atheris, in a process of its own: it ends its process itself."""
    with tempfile.TemporaryDirectory() as work:
        for name, data in CORPUS[kind].items():
            (Path(work) / name).write_bytes(data)
        command = [
            sys.executable, "-m", "tests.formats.fuzz.guided", kind, work, f"-max_total_time={seconds:.0f}",
            f"-runs={executions}", f"-max_len={MAX_BYTES}", f"-rss_limit_mb={_MAX_RSS_MIB}", "-timeout=10",
            "-print_final_stats=1", f"-artifact_prefix={work}/",
        ]  # fmt: skip
        done = subprocess.run(
            command, cwd=_ROOT, stderr=subprocess.PIPE, text=True, errors="replace", check=False
        )
    found = re.search(r"stat::number_of_executed_units: (\d+)", done.stderr)
    count = int(found[1]) if found else 0
    covered = re.findall(r"cov: (\d+) ft: (\d+)", done.stderr)
    print(f"{kind}: {count} by atheris, coverage {'/'.join(covered[-1]) if covered else '?'}", flush=True)
    if done.returncode or not found:
        print(done.stderr[-4000:], file=sys.stderr)
        raise SystemExit(f"{kind}: atheris ended with {done.returncode}")
    return count


def main() -> int:
    """Tries one file, or goes on until the time is up."""
    if len(sys.argv) > 1:
        path = Path(sys.argv[1])
        print(check(path.parent.name, path.read_bytes()))
        return 0
    kinds = os.environ.get("FUZZ_READERS", " ".join(CORPUS)).split()
    engines = {"atheris": guided, "mutations": mutations}
    if importlib.util.find_spec("atheris") is None:
        del engines["atheris"]
        print("atheris is not installed: mutations only", file=sys.stderr)
    wanted = os.environ.get("FUZZ_ENGINES", " ".join(engines)).split()
    seconds = float(os.environ.get("FUZZ_SECONDS", "180")) / len(kinds) / len(wanted)
    executions = int(os.environ.get("FUZZ_EXECUTIONS", str(10**12)))
    total = sum(engines[name](kind, seconds, executions) for kind in kinds for name in wanted)
    print(f"{total} executions, none escaped")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

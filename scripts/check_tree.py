"""House rules that a machine can see, on what git tracks: file sizes, machine paths, registry addresses."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 600
MAX_MEDIAN_LINES = 150
GENERATED = "clients/python/src/model_ingest/v1/"
# Written with a class so that this file does not match itself.
MACHINE_PATH = re.compile(r"/(w[o]rk|f[a]rm|opt/pypi|opt/wheels)/|/r[o]ot/(?!\.ollama)")
REGISTRY = re.compile(r"https?://[^ \"]*(p[y]pi|pythonh[o]sted|n[p]mjs|proxy\.g[o]lang|deb\.d[e]bian)")


def tracked(root: Path) -> list[Path]:
    """Every file git knows or would add."""
    output = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [root / name for name in output.split("\0") if name and (root / name).is_file()]


def problems_of(root: Path) -> list[str]:
    """One line for each broken rule."""
    problems: list[str] = []
    sizes: list[int] = []
    for path in tracked(root):
        name = str(path.relative_to(root))
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if path.suffix == ".py" and not name.startswith(GENERATED):
            lines = text.count("\n")
            sizes.append(lines)
            if lines > MAX_LINES:
                problems.append(f"{name}: {lines} lines, more than {MAX_LINES}: does it still have one idea?")
        for pattern, what in ((MACHINE_PATH, "a machine's path"), (REGISTRY, "a registry's address")):
            found = pattern.search(text)
            if found:
                problems.append(f"{name}: {what}: {found.group(0)}")
    if sizes and statistics.median(sizes) > MAX_MEDIAN_LINES:
        problems.append(f"median file size {statistics.median(sizes)} lines, more than {MAX_MEDIAN_LINES}")
    return problems


def main() -> int:
    """Prints each broken rule; the exit code is 1 when there is one."""
    problems = problems_of(ROOT)
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())

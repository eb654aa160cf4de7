"""Pins every dependency with its hashes; the lock files name no registry."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECTS = ["pyproject.toml", "clients/python/pyproject.toml"]
LOCKS: dict[str, list[str]] = {
    "build": ["--group", "build"],
    "runtime": PROJECTS,
    "fuzz": ["--group", "fuzz"],
    "dev": ["--group", "dev", "-c", "requirements/runtime.lock", *PROJECTS],
    "bench": ["--group", "bench", "-c", "requirements/dev.lock"],
}


def main() -> int:
    """Writes requirements/{build,runtime,fuzz,bench,dev}.lock."""
    uv = Path(sys.executable).parent / "uv"
    options = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate"]
    for name, arguments in LOCKS.items():
        command = [
            str(uv), "pip", "compile", "--quiet", *options, "--no-emit-index-url", "--no-emit-find-links",
            "--no-emit-package", "model-ingest", *sys.argv[1:], *arguments, "-o", f"requirements/{name}.lock",
        ]  # fmt: skip
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)  # noqa: S603 (our own tool)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""What this process has open."""

from __future__ import annotations

from pathlib import Path


def open_files(directory: Path) -> list[str]:
    """The files below the directory that are open."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue
        if target.startswith(f"{directory}/"):
            found.append(target)
    return found

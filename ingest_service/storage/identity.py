"""Is this the right data directory, on a file system that keeps what it promises?

An unmounted volume must not look like an empty store, and a network file system breaks locks, renames
and syncs (design.md section 4, "the right store").
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ingest_service.storage import posix

STORE_ID_FILE = "store-id"
_TRIES = 100
_MOUNTS_FILE = Path("/proc/self/mountinfo")
#: proc(5): space, tab, newline and backslash in a mount point are written as octal digits.
_ESCAPED = re.compile(rb"\\([0-7]{3})")
_NETWORK_TYPES = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "lustre", "afs", "9p", "davfs"}
)
_NETWORK_FUSE = ("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.rclone", "fuse.davfs")


def read_store_id(data_directory: Path) -> str | None:
    """The store's id as the directory has it; None if it has none."""
    try:
        content = (data_directory / STORE_ID_FILE).read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return None
    return content.strip() or None


def write_store_id(data_directory: Path, store_id: str) -> None:
    """Writes the id of a new store, durably; another process in its first boot may do the same."""
    for tries_left in reversed(range(_TRIES)):
        try:
            posix.write_durably(data_directory / STORE_ID_FILE, f"{store_id}\n".encode("ascii"), 0o600)
        except (FileNotFoundError, FileExistsError):
            # It took our temporary file, or made its own at the same moment.
            if read_store_id(data_directory) == store_id:
                return
            if not tries_left:
                raise
        else:
            return


def on_one_file_system(*directories: Path) -> bool:
    """A rename from one to the other works."""
    return len({directory.stat().st_dev for directory in directories if directory.exists()}) <= 1


def network_file_system(path: Path, mounts_file: Path = _MOUNTS_FILE) -> str | None:
    """The type of the network file system that holds `path`; None if it is a local one, or unknown."""
    try:
        mounts = mounts_file.read_bytes()
    except OSError:
        return None
    resolved = path.resolve()
    best, best_type = -1, ""
    for line in mounts.rstrip(b"\n").split(b"\n"):
        before, _, after = line.partition(b" - ")
        mount_point = Path(os.fsdecode(_ESCAPED.sub(_unescaped, before.split(b" ")[4])))
        if resolved.is_relative_to(mount_point) and len(mount_point.parts) >= best:
            best, best_type = len(mount_point.parts), after.split(b" ")[0].decode("ascii", "replace")
    is_network = best_type in _NETWORK_TYPES or best_type.startswith(_NETWORK_FUSE)
    return best_type if is_network else None


def _unescaped(escape: re.Match[bytes]) -> bytes:
    return bytes([int(escape[1], 8)])

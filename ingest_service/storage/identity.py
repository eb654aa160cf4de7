"""Is this the right data directory, on a file system that keeps what it promises?

An unmounted volume must not look like an empty store, and a network file system breaks locks, renames
and syncs (design.md section 4, "the right store").
"""

from __future__ import annotations

from pathlib import Path

from ingest_service.storage import posix

STORE_ID_FILE = "store-id"
_NETWORK_TYPES = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "lustre", "afs", "9p", "davfs"}
)
_NETWORK_FUSE = ("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.rclone", "fuse.davfs")


def read_store_id(data_directory: Path) -> str | None:
    """The store's id as the directory has it; None if it has none."""
    try:
        return (data_directory / STORE_ID_FILE).read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None


def write_store_id(data_directory: Path, store_id: str) -> None:
    """Writes the id of a new store, durably."""
    posix.write_durably(data_directory / STORE_ID_FILE, f"{store_id}\n".encode("ascii"), 0o644)


def network_file_system(path: Path) -> str | None:
    """The type of the network file system that holds `path`; None if it is a local one, or unknown."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    resolved = path.resolve()
    best, best_type = -1, ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        mount_point = Path(before.split()[4].encode().decode("unicode_escape"))
        if resolved.is_relative_to(mount_point) and len(mount_point.parts) >= best:
            best, best_type = len(mount_point.parts), after.split()[0]
    is_network = best_type in _NETWORK_TYPES or best_type.startswith(_NETWORK_FUSE)
    return best_type if is_network else None

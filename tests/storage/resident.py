"""How much of a file is in the page cache."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, *[ctypes.c_size_t] * 1, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def resident_bytes(path: Path) -> int:
    """By mincore(2), which counts without touching a page."""
    size = path.stat().st_size
    with path.open("rb") as file:
        address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
    pages = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
    if _libc.mincore(address, size, pages):
        raise OSError(ctypes.get_errno(), "mincore")
    _libc.munmap(address, size)
    return sum(byte & 1 for byte in pages.raw) * mmap.PAGESIZE


def keeps_files_in_memory(directory: Path) -> bool:
    """The page cache is all there is of its files."""
    path = directory / "resident-probe"
    with path.open("wb") as file:
        file.write(bytes(16 * mmap.PAGESIZE))
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        in_memory = resident_bytes(path)
    path.unlink()
    return in_memory > 0

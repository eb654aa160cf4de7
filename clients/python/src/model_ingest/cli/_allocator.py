"""The command's memory allocator. Not done by the library: it would be done to the whole program."""

from __future__ import annotations

import ctypes
from typing import Final

# From glibc's malloc.h.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_MEBIBYTE: Final = 1024 * 1024


def keep_freed_memory() -> bool:
    """Keeps glibc from mapping and unmapping memory for every chunk; True if it took the settings.

    By default each buffer over 128 KiB is a mapping of its own, whose pages the kernel clears and takes
    back again, chunk after chunk (docs/performance-client.md).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wanted = ((_M_MMAP_THRESHOLD, 32 * _MEBIBYTE), (_M_TRIM_THRESHOLD, 64 * _MEBIBYTE))
    return all(mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in wanted)

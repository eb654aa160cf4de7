"""What is set for the process as a whole, before anything else runs; and that it cannot run."""

from __future__ import annotations

import ctypes
import resource

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_MEBIBYTE = 1024 * 1024
_MANY_DESCRIPTORS = 65_536


class StartError(Exception):
    """The service cannot start; the message is one line that names the setting and the remedy."""


def cannot_listen(listen: str, setting: str = "INGEST_LISTEN") -> StartError:
    """The address cannot be had."""
    return StartError(
        f"{setting}={listen} cannot be listened on: is the port taken, the address"
        " not this machine's? Choose another."
    )


def allow_many_descriptors() -> int:
    """Raises the soft limit of open files to the hard one; answers what holds now.

    Each upload holds a socket's share and a partial; the usual soft limit of 1024 is left from the days of
    select(2), and would end in failed uploads long before INGEST_MAX_UPLOADS.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MANY_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MANY_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def tune_allocator() -> bool:
    """Keeps glibc from mapping and unmapping memory for every chunk; True if it took the settings.

    By default each buffer over 128 KiB is a mapping of its own, whose pages the kernel clears and takes back
    again: that doubles the cost of an upload (peers.md section 7; measured again here: 2 GiB in 11.1 s, with
    these settings in 6.1 to 6.8 s). One arena keeps the freed chunks of all threads in one place: without
    it, memory grew by 100 MiB instead of 45.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wanted = (
        (_M_MMAP_THRESHOLD, 32 * _MEBIBYTE),
        (_M_TRIM_THRESHOLD, 64 * _MEBIBYTE),
        (_M_ARENA_MAX, 1),
    )
    return all(mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in wanted)

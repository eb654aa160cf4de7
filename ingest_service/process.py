"""What is set for the process as a whole, before anything else runs; and that it cannot run."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import resource
import socket
from collections.abc import Iterable
from pathlib import Path

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_MEBIBYTE = 1024 * 1024
_MANY_DESCRIPTORS = 65_536
_MAX_PORT = 65_535
_UNKNOWN_WHY = "is the port taken, the address not this machine's?"
_WHY_NOT = {
    errno.EADDRINUSE: "another program listens there.",
    errno.EADDRNOTAVAIL: "this machine has no such address.",
    errno.EACCES: "this user may not listen on so low a port.",
    errno.EINVAL: "there is no such port.",
}


class StartError(Exception):
    """The service cannot start; the message is one line that names the setting and the remedy."""


class StoreInUse(StartError):
    """A service or a sweep works on the store, and a rebuild needs it alone."""


def store_in_use(data_directory: Path, *, alone: bool) -> StartError:
    """The store cannot be had: a rebuild wants it `alone`, or runs."""
    shown = f"INGEST_DATA_DIR {data_directory}"
    if alone:
        return StoreInUse(f"{shown} is in use by a service or a sweep: stop it, then rebuild.")
    return StartError(f"{shown} is being rebuilt: start the service when that has ended.")


def check_holds_store(data_directory: Path) -> None:
    """A rebuild makes no store. Raises StartError. Blocks."""
    if not any((data_directory / name).exists() for name in ("store-id", "blobs", "quarantine")):
        raise StartError(
            f"INGEST_DATA_DIR {data_directory} holds no store: give the rebuild the settings of the service."
        )


def cannot_listen(listen: str, setting: str = "INGEST_LISTEN", error: OSError | None = None) -> StartError:
    """The address cannot be had."""
    why = _WHY_NOT.get(error.errno or 0) if error is not None else None
    if isinstance(error, socket.gaierror):
        why = "its host's name cannot be resolved."
    return StartError(f"{setting}={listen} cannot be listened on: {why or _UNKNOWN_WHY} Choose another.")


def check_addresses(addresses: Iterable[tuple[str, str]]) -> None:
    """(HOST:PORT, its setting's name): raises StartError unless all can be listened on, at the same time.

    Asked before anything is created: a service that does not start leaves nothing behind. It lets go of them
    again, so whoever listens later may still fail. Blocks while a name is resolved.
    """
    with contextlib.ExitStack() as held:
        for listen, setting in addresses:
            try:
                _try_address(listen, held)
            except OSError as error:
                raise cannot_listen(listen, setting, error) from error


def _try_address(listen: str, held: contextlib.ExitStack) -> None:
    host, _, port = listen.rpartition(":")
    if int(port) > _MAX_PORT:
        raise OSError(errno.EINVAL, "no such port")
    found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    unusable: OSError | None = None
    is_usable = False
    for family, kind, protocol, _, address in found:
        one = held.enter_context(socket.socket(family, kind, protocol))
        try:
            # Connections of a former run that are not forgotten yet are no reason to refuse.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((address[0], int(port), *address[2:]))
            # Only this finds one that was bound in the same way.
            one.listen(1)
            is_usable = True
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise
            # A name may stand for several addresses, of which this machine need not have all.
            unusable = error
    if unusable is not None and not is_usable:
        raise unusable


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

"""The port that the workers share: held by the parent, so that it is theirs alone and stays the same."""

from __future__ import annotations

import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReservedPort:
    """A socket that is bound and never listens: the kernel gives it no connections."""

    listen: str
    port: int
    holder: socket.socket


def beside(listen: str, number: int) -> str:
    """What a worker has to itself: for HOST:PORT, HOST and PORT + `number`. No address and port 0 stay."""
    host, _, port = listen.rpartition(":")
    return f"{host}:{int(port) + number}" if listen and int(port) else listen


def reserve(listen: str) -> ReservedPort:
    """Binds HOST:PORT; port 0 becomes a free one. Raises OSError if somebody has it, even another parent."""
    host, _, wanted = listen.rpartition(":")
    family, kind, protocol, _, address = socket.getaddrinfo(
        host.strip("[]"), int(wanted), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    holder = socket.socket(family, kind, protocol)
    try:
        # Connections of a former run that are not forgotten yet are no reason to refuse.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(address)
        # Only from here on shared, and not with another service that would have begun the same way: with
        # SO_REUSEPORT at the bind, two of them would get every other connection of each other's clients.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except BaseException:
        holder.close()
        raise
    port = holder.getsockname()[1]
    return ReservedPort(f"{host}:{port}", port, holder)

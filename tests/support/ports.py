"""A port that one test has to itself, also while no server listens on it."""

from __future__ import annotations

import os
import socket
import weakref


class ReservedPort:
    """A port of 127.0.0.1 that stays bound, without listening, until `close` or the end of this object.

    To bind port 0, read the number and close the socket is a race: the kernel may give the port to a server
    or an outgoing connection of another process before yours binds it. A port that is reserved here

    - goes to nobody who asks the kernel for any port;
    - can be bound by your server, as often as it starts anew: gRPC, asyncio and PostgreSQL set SO_REUSEADDR,
      which lets them share it with a socket that does not listen;
    - refuses connections while your server does not listen.
    """

    def __init__(self, port: int = 0) -> None:
        """Raises OSError if somebody has `port`."""
        with socket.socket() as holder:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", port))
            self.port: int = holder.getsockname()[1]
            self.close = weakref.finalize(self, os.close, holder.detach())

    @property
    def address(self) -> str:
        """As HOST:PORT."""
        return f"127.0.0.1:{self.port}"

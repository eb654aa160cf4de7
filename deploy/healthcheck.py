"""Exit code 0 if the service of this container says SERVING, else 1. The image's HEALTHCHECK runs it.

`python healthcheck.py [HOST:PORT]`; without an address it asks where INGEST_LISTEN says the service listens.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

# Below the HEALTHCHECK's own 5 s, the start of Python included: this script says why, a killed one does not.
TIMEOUT_SECONDS = 3.0
_DEFAULT_LISTEN = "127.0.0.1:50051"
# Addresses to listen on everywhere; to connect to them is not portable.
_ANY = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104


def address_of(listen: str) -> str:
    """Where to connect to a server that listens on `listen`, a HOST:PORT."""
    host, _, port = listen.rpartition(":")
    return f"{_ANY.get(host, host)}:{port}"


def problem(address: str, timeout_seconds: float = TIMEOUT_SECONDS) -> str | None:
    """Why the service at `address` is not healthy; None if it is."""
    # The proxy is switched off: an http_proxy in the container's environment would take even loopback away.
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_seconds)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return None
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def main(arguments: Sequence[str]) -> int:
    """The exit code; one line on stdout, which the container engine keeps in the health log."""
    address = arguments[0] if arguments else address_of(os.environ.get("INGEST_LISTEN", _DEFAULT_LISTEN))
    reason = problem(address)
    sys.stdout.write(f"{address}: {reason or 'SERVING'}\n")
    return 0 if reason is None else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

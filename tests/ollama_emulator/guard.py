"""Origin and Host checks: 403 with an empty body (contract section 5)."""

from __future__ import annotations

import ipaddress
import re
import socket

from .http import Head

_ALLOWED = re.compile(
    r"https?://(localhost|127\.0\.0\.1|0\.0\.0\.0)(:.*)?\Z"
    r"|(app|file|tauri|vscode-webview|vscode-file|chrome-extension|moz-extension"
    r"|safari-extension|safari-web-extension|ms-browser-extension)://"
)


def forbidden(head: Head, bound: str) -> bool:
    """Whether the middleware stops this request before any route."""
    host = head.headers.get("host", "")
    origin = head.headers.get("origin", "")
    same = origin in ("", f"http://{host}", f"https://{host}")
    if not same and not _ALLOWED.match(origin):
        return True
    return ipaddress.ip_address(bound).is_loopback and not _host_allowed(host)


def _host_allowed(host: str) -> bool:
    name = host
    if host.startswith("["):
        name = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        name = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        name = name.lower()
        local = name in ("", "localhost", socket.gethostname().lower())
        return local or name.endswith((".localhost", ".local", ".internal"))
    return address.is_loopback or address.is_private or address.is_unspecified

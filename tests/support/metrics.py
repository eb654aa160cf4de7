"""Asks for a service's metrics over HTTP, and reads what it says with the library's parser."""

from __future__ import annotations

import contextlib
import http.client

from prometheus_client.parser import text_string_to_metric_families

#: By name and labels, as they are written: `ingest_build_info{version="1"}`.
Figures = dict[str, float]
#: Only an endpoint that does not answer at all lets it pass.
_GIVE_UP_SECONDS = 15.0


def ask(port: int, path: str = "/metrics", method: str = "GET") -> tuple[int, str, str]:
    """Status, body and headers. Blocks."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_GIVE_UP_SECONDS)
    with contextlib.closing(connection):
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), str(answer.headers)


def figures(port: int) -> Figures:
    """Every sample. Blocks."""
    status, text, _ = ask(port)
    assert status == 200, text
    found: Figures = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found

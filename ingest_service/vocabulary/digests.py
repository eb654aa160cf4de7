"""Digests are strings `sha256:<64 lower-case hex digits>`, nothing else (security.md R1)."""

from __future__ import annotations

import re

from ingest_service.vocabulary.errors import DigestMalformed

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def parse_digest(text: str, *, field: str) -> str:
    """`text` if it is a digest; raises DigestMalformed naming `field` otherwise."""
    if len(text) == 71 and _DIGEST.fullmatch(text):
        return text
    raise DigestMalformed(field=field)


def digest_of_hex(hex_digest: str) -> str:
    """The digest string for a hashlib hexdigest."""
    return f"sha256:{hex_digest}"

"""Text from outside, made safe to store, log and show."""

from __future__ import annotations

import unicodedata

#: C0, C1, bidirectional controls, line and paragraph separators, surrogates, unassigned.
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def clean(text: str, limit_bytes: int = 1024) -> str:
    """`text` without control characters, cut at `limit_bytes` of UTF-8 (security.md C4)."""
    # Cut first: hostile text may be megabytes long.
    head = text[:limit_bytes]
    if head.isascii() and head.isprintable():
        safe = head
    else:
        safe = "".join(" " if unicodedata.category(c) in _UNSAFE_CATEGORIES else c for c in head)
    squeezed = " ".join(safe.split())
    encoded = squeezed.encode("utf-8", "replace")
    if len(text) <= limit_bytes and len(encoded) <= limit_bytes:
        return squeezed
    return encoded[: limit_bytes - 3].decode("utf-8", "ignore") + "…"

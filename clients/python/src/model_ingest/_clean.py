"""Text that came from elsewhere, made safe to print and to send."""

from __future__ import annotations

import re
import unicodedata

# Cc: controls (escape sequences), Cf: invisible formatting (bidi overrides), Cs: lone surrogates,
# Zl, Zp: line and paragraph separators. Any of them could forge a line or paint over one.
_UNPRINTABLE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_NOT_IN_FILE_NAMES = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_FILE_NAME_BYTES = 255


def printable(text: str, max_characters: int = 2000) -> str:
    """One line that cannot steer a terminal: controls become spaces, the rest is cut at `max_characters`."""
    # Runs of blanks collapse, so a little more than what is shown has to be looked at.
    looked_at = text[: 2 * max_characters]
    kept = "".join(" " if unicodedata.category(c) in _UNPRINTABLE_CATEGORIES else c for c in looked_at)
    line = " ".join(kept.split())
    if len(line) <= max_characters and len(looked_at) == len(text):
        return line
    return line[: max_characters - 1] + "…"


def file_name_for(local_name: str) -> str:
    """A name the service takes for a file: ASCII letters, digits, `.`, `_`, `-`; not led by `.` or `-`.

    The name only tells files of one ingest apart, so a spelling that the service would refuse
    ("My Model.gguf") must not stop a push.
    """
    name = _NOT_IN_FILE_NAMES.sub("_", local_name).lstrip(".-")
    return name[-_MAX_FILE_NAME_BYTES:].lstrip(".-") or "file"

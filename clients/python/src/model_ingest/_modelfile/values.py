"""Whole numbers, truth values and versions in the forms that Go's `strconv` and `semver` packages take.

Every function raises ValueError for a text of another form, or for a value that is out of range.
"""

from __future__ import annotations

import re
from typing import Final

_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
#: What `ollama show` prints of a whole number from a million on. Ollama's parser does not read it again.
_SHOWN_INTEGER: Final = re.compile(r"-?[0-9](\.[0-9]+)?e\+[0-9]{2}")
_INT64: Final = range(-(2**63), 2**63)
_INT64_DIGITS: Final = 19
_TRUE: Final = ("1", "t", "T", "TRUE", "true", "True")
_FALSE: Final = ("0", "f", "F", "FALSE", "false", "False")
_NUMBER: Final = r"(?:0|[1-9][0-9]*)"
_IDENTIFIER: Final = rf"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION: Final = re.compile(
    rf"{_NUMBER}(?:\.{_NUMBER}(?:\.{_NUMBER}(?:-{_IDENTIFIER}(?:\.{_IDENTIFIER})*)?"
    r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?)?)?"
)


def parse_int(text: str) -> int:
    """As `strconv.ParseInt(text, 10, 64)`; also `1.048576e+06`, which `ollama show` prints."""
    if _SHOWN_INTEGER.fullmatch(text):
        shown = float(text)
        if not shown.is_integer():
            raise ValueError
        value = int(shown)
    elif _INTEGER.fullmatch(text):
        digits = text.lstrip("+-").lstrip("0") or "0"
        if len(digits) > _INT64_DIGITS:
            raise ValueError
        value = -int(digits) if text.startswith("-") else int(digits)
    else:
        raise ValueError
    if value not in _INT64:
        raise ValueError
    return value


def parse_bool(text: str) -> bool:
    """As `strconv.ParseBool`."""
    if text not in _TRUE and text not in _FALSE:
        raise ValueError
    return text in _TRUE


def parse_version(text: str) -> str:
    """A semantic version, also a short one (`0.14`); a `v` in front is taken off."""
    version = text.removeprefix("v")
    if not _VERSION.fullmatch(version):
        raise ValueError
    return version

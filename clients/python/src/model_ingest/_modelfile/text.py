"""The bytes of a Modelfile as text, decoded as Ollama decodes them."""

from __future__ import annotations

import codecs
import unicodedata
from typing import Final

_UTF16: Final = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


def decode(content: bytes) -> tuple[str, int]:
    """The text, and the number of the first line with bytes that are no text (0: there is none).

    A byte order mark selects UTF-16 or UTF-8; without one it is UTF-8. Invalid bytes become U+FFFD.
    """
    encoding = _UTF16.get(content[:2], "utf-8")
    body = content.removeprefix(codecs.BOM_UTF8) if encoding == "utf-8" else content[2:]
    try:
        return body.decode(encoding), 0
    except UnicodeDecodeError as error:
        line = body[: error.start].decode(encoding, "replace").count("\n") + 1
        return body.decode(encoding, "replace"), line


def kept(text: str) -> str:
    """The characters that Ollama keeps: those that are printable, blanks, tabs and ends of lines.

    It leaves out the rest, e.g. a no-break space, an ideographic space or a zero-width joiner.
    """
    if text.isprintable():
        return text
    return "".join(character for character in text if _is_kept(character))


def left_out(text: str, max_shown: int = 5) -> str:
    """Names those that are not kept, e.g. `U+200D, U+3000`; an empty string if all are."""
    if text.isprintable():
        return ""
    codes = sorted({ord(character) for character in text if not _is_kept(character)})
    shown = [f"U+{code:04X}" for code in codes[:max_shown]]
    return ", ".join([*shown, "..."] if len(codes) > max_shown else shown)


def _is_kept(character: str) -> bool:
    if character in "\t\r\n" or character.isprintable():
        return True
    # Python's Unicode tables may be older than Ollama's: what they do not know yet may be a new letter.
    return unicodedata.category(character) == "Cn" and not _is_noncharacter(ord(character))


def _is_noncharacter(code: int) -> bool:
    """Whether Unicode keeps the code free for ever."""
    return code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF

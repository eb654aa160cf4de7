"""Splits a Modelfile's text into commands, where Ollama's parser splits it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from model_ingest._clean import printable
from model_ingest._modelfile.lines import Errors, LineError, Warnings
from model_ingest._modelfile.text import kept, left_out

#: The commands, in any case. Ollama calls FROM `model`, and each PARAMETER by the parameter's name.
COMMANDS: Final = (
    "from",
    "adapter",
    "draft",
    "template",
    "system",
    "license",
    "parameter",
    "message",
    "renderer",
    "parser",
    "requires",
)
ROLES: Final = ("system", "user", "assistant")
_BLANKS: Final = " \t"
_WHITE: Final = " \t\r\n"
_TRIPLE: Final = '"""'
_LINE: Final = re.compile(r"([^\r\n]*)(\r\n|\r|\n|\Z)")
_PARAMETER_NAME: Final = re.compile(r"[A-Za-z0-9_]*")
_LETTERS: Final = re.compile(r"[A-Za-z]*")


@dataclass(frozen=True, slots=True)
class Command:
    """One command: `name` as Ollama calls it, and its value without quotation marks.

    The value of a MESSAGE is `ROLE: TEXT`.
    """

    line: int
    name: str
    value: str


def split(text: str, warnings: Warnings, errors: Errors) -> Iterator[Command]:
    """The commands in their order, without those that cannot be read: they are in `errors`."""
    lines = _numbered_lines(text)
    for number, line, end in lines:
        # Only here, where a command could begin, does `#` begin a comment.
        stripped = line.lstrip(_BLANKS)
        if stripped and not stripped.startswith("#"):
            try:
                yield _command(number, stripped, end, lines, warnings)
            except LineError as error:
                errors.add(error)


def _numbered_lines(text: str) -> Iterator[tuple[int, str, str]]:
    """Number, text and end of each line. A lone carriage return ends one, U+2028 and a form feed do not."""
    for number, found in enumerate(_LINE.finditer(text), start=1):
        yield number, found[1], found[2]
        if not found[2]:
            return


def _command(
    number: int, line: str, end: str, lines: Iterator[tuple[int, str, str]], warnings: Warnings
) -> Command:
    word, rest = _command_word(number, line)
    name, role = word, ""
    if word == "from":
        name = "model"
    elif word == "parameter":
        form = "PARAMETER is followed by one blank, a name and a value"
        name, rest = _word(number, rest, _PARAMETER_NAME, form)
    elif word == "message":
        form = "MESSAGE is followed by one blank, a role and a text"
        role, rest = _word(number, rest, _LETTERS, form)
        if role not in ROLES:
            raise LineError(number, f"the role of a MESSAGE is one of {', '.join(ROLES)}, in small letters")
    raw = _raw_value(number, rest + end, lines)
    missing = left_out(raw)
    if missing:
        warnings.add(number, f"Ollama leaves out characters that cannot be printed ({missing}), so they go")
    value = _unquoted(kept(raw))
    return Command(number, name, f"{role}: {value}" if role else value)


def _command_word(number: int, line: str) -> tuple[str, str]:
    # The parser drops one character that cannot be printed in front of a command, e.g. a form feed.
    shown = line if kept(line[0]) else line[1:]
    letters = _LETTERS.match(shown)
    word = letters[0] if letters else ""
    after = shown[len(word) :]
    if word.lower() not in COMMANDS:
        said = printable(re.split(r"[ \t]", shown, maxsplit=1)[0], 40)
        raise LineError(number, f"`{said}` is no command; there are: {', '.join(COMMANDS).upper()}")
    if not after.startswith((" ", "\t")):
        raise LineError(number, f'{word.upper()} is followed by a blank and a value; "" is an empty one')
    return word.lower(), after[1:]


def _word(number: int, rest: str, pattern: re.Pattern[str], rule: str) -> tuple[str, str]:
    """The word before the value, and what stands behind the one blank after it; `rule` is for the error."""
    found = pattern.match(rest)
    word = found[0] if found else ""
    after = rest[len(word) :]
    if not word or not after.startswith((" ", "\t")):
        raise LineError(number, rule)
    return word, after[1:]


def _raw_value(number: int, first: str, lines: Iterator[tuple[int, str, str]]) -> str:
    """To the end of its line; or, if it begins with a quotation mark, to the line that ends with one."""
    parts = [first]
    shown = kept(first).strip(_WHITE)
    quote = _TRIPLE if shown.startswith(_TRIPLE) else '"'
    if not shown.startswith(quote):
        return first
    size = len(shown)
    while size < 2 * len(quote) or not shown.endswith(quote):
        following = next(lines, None)
        if following is None:
            raise LineError(
                number,
                f"a value that begins with {quote} ends with {quote} at the end of a line, and none does:"
                f" close it, or put a text with quotation marks of its own between two {_TRIPLE}",
            )
        _, line, end = following
        parts.append(line + end)
        shown = kept(line).rstrip(_BLANKS)
        size += len(shown)
    return "".join(parts)


def _unquoted(text: str) -> str:
    text = text.strip(_WHITE)
    if text.startswith(_TRIPLE):
        return text[3:-3]
    return text[1:-1] if text.startswith('"') else text

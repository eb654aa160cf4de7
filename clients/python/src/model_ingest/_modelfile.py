"""Reads an Ollama Modelfile: its files, and its options as `CreateOptions`.

Taken: FROM, ADAPTER, TEMPLATE, SYSTEM, LICENSE, PARAMETER, MESSAGE; a command's case does not matter, a value
may stand in `"` or, over several lines, in triple `\"\"\"`; `#` begins a comment where a command could stand.
Anything else is refused by its line's number, never ignored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from model_ingest._clean import printable
from model_ingest._errors import LocalFileError
from model_ingest.v1.resources_pb2 import CreateOptions

_TRIPLE: Final = '"""'
_COMMANDS: Final = ("FROM", "ADAPTER", "TEMPLATE", "SYSTEM", "LICENSE", "PARAMETER", "MESSAGE")
_ROLES: Final = ("system", "user", "assistant")
_MAX_BYTES: Final = 4 * 1024 * 1024


@dataclass(slots=True)
class Modelfile:
    """What a Modelfile says. The first of `models` is the model, another one its projector."""

    options: CreateOptions = field(default_factory=CreateOptions)
    models: list[Path] = field(default_factory=list)
    adapters: list[Path] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Command:
    line: int
    name: str
    value: str


class ModelfileError(LocalFileError):
    """A Modelfile that cannot be used; the message names the line."""

    advice = "correct the Modelfile"


def read_modelfile(path: Path) -> Modelfile:
    """The file's content. Paths in it are relative to it. Raises ModelfileError, LocalFileError."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise LocalFileError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > _MAX_BYTES:
        raise ModelfileError(f"{path}: a Modelfile has at most {_MAX_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ModelfileError(f"{path}: this is no text in UTF-8") from None
    return parse_modelfile(text, path.parent, str(path))


def parse_modelfile(text: str, directory: Path, name: str = "Modelfile") -> Modelfile:
    """The same, of a text whose paths are relative to `directory`."""
    found = Modelfile()
    try:
        for command in _commands(text):
            _apply(found, command, directory)
    except _LineError as error:
        raise ModelfileError(f"{name}, line {error.line}: {error.words}") from None
    if not found.models and not getattr(found.options, "from"):
        raise ModelfileError(f"{name}: there is no FROM")
    return found


class _LineError(Exception):
    def __init__(self, line: int, words: str) -> None:
        super().__init__(words)
        self.line = line
        self.words = words


def _commands(text: str) -> Iterator[_Command]:
    # Not `splitlines`: a form feed or U+2028 within a text is no end of a line.
    lines = iter(enumerate(text.replace("\r\n", "\n").split("\n"), start=1))
    for number, line in lines:
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        word, rest = _first_word(stripped)
        name = word.upper()
        if name not in _COMMANDS:
            raise _LineError(number, f"`{printable(word, 40)}` is none of {', '.join(_COMMANDS)}")
        # What stands before the value, e.g. a parameter's name.
        before = ""
        if name in {"PARAMETER", "MESSAGE"}:
            before, rest = _first_word(rest)
            before += " "
        value = _value(number, rest, line.rstrip(" \t"), lines)
        if not value and name != "MESSAGE":
            raise _LineError(number, f"{name} has no value")
        yield _Command(number, name, before + value)


def _first_word(text: str) -> tuple[str, str]:
    word, *rest = text.split(maxsplit=1) or [""]
    return word, rest[0] if rest else ""


def _value(number: int, rest: str, line: str, lines: Iterator[tuple[int, str]]) -> str:
    """A plain value to the end of its line, one in quotes, or one in triple quotes over several lines."""
    if not rest.startswith(_TRIPLE):
        if rest.startswith('"') and (len(rest) == 1 or not rest.endswith('"')):
            raise _LineError(number, 'a `"` is not closed; a value of several lines stands in """')
        return rest[1:-1] if rest.startswith('"') else rest
    # From the line as it stands: blanks within the quotes belong to the value.
    value = line[line.index(_TRIPLE) + 3 :]
    while _TRIPLE not in value:
        following = next(lines, None)
        if following is None:
            raise _LineError(number, 'a """ is not closed')
        value += "\n" + following[1]
    value, _, after = value.partition(_TRIPLE)
    if after.strip():
        raise _LineError(number, 'nothing may follow a closing """ on its line')
    return value


def _apply(found: Modelfile, command: _Command, directory: Path) -> None:
    options, value = found.options, command.value
    if command.name == "FROM":
        _from(found, command, directory)
    elif command.name == "ADAPTER":
        found.adapters.append(_existing(_path(directory, command), command))
    elif command.name == "TEMPLATE":
        options.template = value
    elif command.name == "SYSTEM":
        options.system = value
    elif command.name == "LICENSE":
        options.licenses.append(value)
    elif command.name == "PARAMETER":
        _parameter(options, command)
    else:
        role, _, content = value.partition(" ")
        if role.lower() not in _ROLES or not content:
            raise _LineError(command.line, f"MESSAGE is followed by one of {', '.join(_ROLES)}, and a text")
        options.messages.add(role=role.lower(), content=content)


def _from(found: Modelfile, command: _Command, directory: Path) -> None:
    path = _path(directory, command)
    if _exists(path):
        found.models.append(path)
    elif command.value.startswith((".", "/", "~")) or command.value.endswith((".gguf", ".safetensors")):
        _existing(path, command)
    elif getattr(found.options, "from"):
        raise _LineError(command.line, "a second FROM of a model that is there already")
    else:
        setattr(found.options, "from", command.value)
    if found.models and getattr(found.options, "from"):
        raise _LineError(command.line, "FROM names a file and a model that is there already: choose one")


def _path(directory: Path, command: _Command) -> Path:
    try:
        return directory / Path(command.value).expanduser()
    except RuntimeError:
        raise _LineError(command.line, f"there is no home of {printable(command.value, 200)}") from None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False  # too long for a name, or not to be looked at


def _existing(path: Path, command: _Command) -> Path:
    if not _exists(path):
        raise _LineError(command.line, f"there is no {printable(str(path), 200)}")
    return path


def _parameter(options: CreateOptions, command: _Command) -> None:
    name, _, text = command.value.partition(" ")
    if name == "stop":
        if "stop" not in options.parameters:
            options.parameters.get_or_create_list("stop")
        options.parameters.get_or_create_list("stop").append(text)
        return
    if name in options.parameters:
        raise _LineError(command.line, f"a second PARAMETER {printable(name, 40)}")
    options.parameters[name] = _typed(text)


def _typed(text: str) -> bool | float | str:
    """A Modelfile has no types; what is no number and no truth value stays a text, and the server judges."""
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text

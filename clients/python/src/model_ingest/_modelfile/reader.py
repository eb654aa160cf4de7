"""Builds create options from a Modelfile's commands."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from model_ingest._clean import printable
from model_ingest._errors import Facts, FieldViolation, LocalFileError
from model_ingest._modelfile.commands import Command, split
from model_ingest._modelfile.lines import Errors, LineError, Warnings
from model_ingest._modelfile.parameters import DEPRECATED, set_parameter
from model_ingest._modelfile.paths import exists, local_path, looks_like_a_path, same_file
from model_ingest._modelfile.text import decode
from model_ingest._modelfile.values import parse_version
from model_ingest.v1.resources_pb2 import CreateOptions

_MAX_BYTES: Final = 4 * 1024 * 1024


@dataclass(slots=True)
class Modelfile:
    """What a Modelfile says.

    `models` are the files of FROM: the model or its shards, then perhaps a projector. If FROM is the name of
    a model, it is `options.from`. `warnings` are for people, one line of text each.
    """

    options: CreateOptions = field(default_factory=CreateOptions)
    models: list[Path] = field(default_factory=list)
    adapters: list[Path] = field(default_factory=list)
    drafts: list[Path] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class ModelfileError(LocalFileError):
    """A Modelfile that cannot be used; the message names the first line, `violations` all others (to 20)."""

    advice = "correct the Modelfile"


def read_modelfile(path: Path, *, replaced_roles: Collection[str] = ()) -> Modelfile:
    """Reads the file. Paths in it are relative to its directory.

    `replaced_roles` are roles (`model`, `adapter`, `draft`) for which the caller has files of its own: what
    the Modelfile names for them is neither looked for nor returned. Raises ModelfileError, LocalFileError.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise LocalFileError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > _MAX_BYTES:
        raise ModelfileError(f"{path}: a Modelfile has at most {_MAX_BYTES} bytes")
    reader = _Reader(path.parent, replaced_roles)
    text, line = decode(content)
    if line:
        Warnings(reader.found.warnings).add(
            line, "there are bytes that are no text; U+FFFD stands for them, as in Ollama"
        )
    reader.read(text)
    if reader.errors.found:
        raise _refusal(path, reader.errors, looks_like_utf_16=b"\0" in content[:4])
    if not reader.has_from:
        raise ModelfileError(f"{path}: there is no FROM; add `FROM ./model.gguf` with the model's file")
    return reader.found


def _refusal(path: Path, errors: Errors, *, looks_like_utf_16: bool) -> ModelfileError:
    """The first line that cannot be used is the message, all others are violations."""
    first, *others = errors.found
    hint = " (the file looks like UTF-16 without a byte order mark)" if looks_like_utf_16 else ""
    more = [FieldViolation(f"line {error.line}", error.words) for error in others]
    if errors.left_out:
        more.append(FieldViolation("further lines", f"{errors.left_out} more cannot be used"))
    return ModelfileError(f"{path}, line {first.line}: {first.words}{hint}", Facts(violations=tuple(more)))


class _Reader:
    """Collects what the commands say."""

    def __init__(self, directory: Path, replaced_roles: Collection[str]) -> None:
        self.found = Modelfile()
        self.has_from = False
        self.errors = Errors()
        self._directory = directory
        self._replaced = replaced_roles
        #: Every DRAFT, of which Ollama uses one.
        self._drafts: list[Path] = []
        self._warnings = Warnings(self.found.warnings)
        self._appliers: dict[str, Callable[[Command], None]] = {
            "model": self._model,
            "adapter": self._adapter,
            "draft": self._draft,
            "license": self._license,
            "message": self._message,
            "requires": self._requires,
        }

    def read(self, text: str) -> None:
        """Applies every command that can be used; the others are in `errors`."""
        for command in split(text, self._warnings, self.errors):
            if command.name in {"template", "system", "renderer", "parser"}:
                setattr(self.found.options, command.name, command.value)
                continue
            try:
                self._appliers.get(command.name, self._parameter)(command)
            except LineError as error:
                self.errors.add(error)

    def _model(self, command: Command) -> None:
        self.has_from = True
        if "model" in self._replaced:
            return
        path = local_path(self._directory, command.line, command.value)
        if exists(path, command.line):
            self._refuse_draft_and_model_alike(path, self._drafts, command)
            if path not in self.found.models:
                self.found.models.append(path)
        else:
            self._model_name(command, path)
        if self.found.models and getattr(self.found.options, "from"):
            raise LineError(
                command.line,
                "FROM names a file here, and a model that is there already elsewhere:"
                " Ollama would leave the file out; keep one of the two",
            )

    def _model_name(self, command: Command, path: Path) -> None:
        value = printable(command.value, 200)
        if any(character.isspace() for character in command.value):
            raise LineError(
                command.line,
                f"there is no {printable(str(path), 200)}, and no model is called `{value}`; correct the path"
                " (a comment needs a line of its own)",
            )
        if looks_like_a_path(command.value):
            raise LineError(
                command.line,
                f"there is no {printable(str(path), 200)}; correct the path, or name the model's file on the"
                f" command line, where it stands in for FROM (a model called so is written `{value}:latest`)",
            )
        before = getattr(self.found.options, "from")
        if before and before != command.value:
            self._warnings.add(command.line, f"this FROM replaces FROM {printable(before, 200)}")
        setattr(self.found.options, "from", command.value)

    def _adapter(self, command: Command) -> None:
        if "adapter" in self._replaced:
            return
        path = self._existing(command)
        if self.found.adapters and path not in self.found.adapters:
            before = printable(str(self.found.adapters[0]), 200)
            self._warnings.add(command.line, f"this ADAPTER replaces ADAPTER {before}")
        self.found.adapters[:] = [path]

    def _draft(self, command: Command) -> None:
        if "draft" in self._replaced:
            return
        path = self._existing(command)
        self._refuse_draft_and_model_alike(path, self.found.models, command)
        self._drafts.append(path)
        # Ollama sends all of them and uses the one whose name comes last in the alphabet.
        used = max(self._drafts, key=str)
        if self.found.drafts and path not in self.found.drafts:
            left_out = path if used in self.found.drafts else self.found.drafts[0]
            words = f"Ollama uses one DRAFT, that whose path sorts last: {printable(str(used), 200)}"
            self._warnings.add(command.line, f"{words}; {printable(str(left_out), 200)} is left out")
        self.found.drafts[:] = [used]

    def _license(self, command: Command) -> None:
        self.found.options.licenses.append(command.value)

    def _message(self, command: Command) -> None:
        role, _, content = command.value.partition(": ")
        self.found.options.messages.add(role=role, content=content)

    def _requires(self, command: Command) -> None:
        try:
            self.found.options.requires = parse_version(command.value)
        except ValueError:
            words = f"REQUIRES is a version of Ollama, e.g. 0.14.0, not `{printable(command.value, 40)}`"
            raise LineError(command.line, words) from None

    def _parameter(self, command: Command) -> None:
        if command.name in DEPRECATED:
            self._warnings.add(command.line, f"parameter {command.name} is deprecated; Ollama ignores it")
            return
        if command.name == "stop" and not command.value:
            words = "an empty stop ends every answer before its first letter (Ollama 0.24.0)"
            self._warnings.add(command.line, words)
        try:
            set_parameter(self.found.options.parameters, command.name, command.value)
        except ValueError as error:
            raise LineError(command.line, str(error)) from None

    def _existing(self, command: Command) -> Path:
        path, role = local_path(self._directory, command.line, command.value), command.name
        shown = printable(str(path), 200)
        if not exists(path, command.line):
            words = f"there is no {shown}; correct the path, or name the file on the command line:"
            raise LineError(command.line, f"{words} --role {role}=PATH stands in for {role.upper()}")
        if path.is_dir():
            raise LineError(command.line, f"{shown} is a directory; name the one GGUF file of the {role}")
        return path

    def _refuse_draft_and_model_alike(self, path: Path, others: list[Path], command: Command) -> None:
        if any(same_file(path, other) for other in others):
            raise LineError(command.line, f"DRAFT and FROM name the same {printable(str(path), 200)}")

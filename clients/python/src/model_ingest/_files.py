"""Which local files a push sends, and what each is to the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model_ingest._clean import file_name_for
from model_ingest._errors import LocalFileError
from model_ingest.v1.resources_pb2 import File

#: By the words of `--role`.
ROLES: Final[dict[str, File.Role.ValueType]] = {
    "model": File.ROLE_MODEL,
    "projector": File.ROLE_PROJECTOR,
    "adapter": File.ROLE_ADAPTER,
    "shard": File.ROLE_SHARD,
    "draft": File.ROLE_DRAFT,
}
#: The only one of one is a whole model, whatever it is called.
_SHARD: Final = re.compile(r".+-\d{5}-of-(?!00001\.)\d{5}\.gguf", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LocalFile:
    """One file of a push. `name` is its name within the ingest."""

    path: Path
    role: File.Role.ValueType
    name: str


def local_files(paths: Iterable[Path], roles: Sequence[tuple[str, Path]] = ()) -> list[LocalFile]:
    """The files of `paths`, directories opened up, then those whose role is given.

    A file called like a shard of a split GGUF is one; any other is a model. Raises LocalFileError.
    """
    found: list[LocalFile] = []
    for path in paths:
        inside = _of_directory(path) if path.is_dir() else [path]
        found += [LocalFile(one, _role_of(one), file_name_for(one.name)) for one in inside]
    for word, path in roles:
        role = ROLES.get(word.lower())
        if role is None:
            raise LocalFileError(f"there is no role {word}; there are: {', '.join(ROLES)}")
        if path.is_dir():
            raise LocalFileError(f"{path} is a directory; a role is that of one file")
        found.append(LocalFile(path, role, file_name_for(path.name)))
    return found


def is_shard(path: Path) -> bool:
    """Whether the file is called like a shard of a split GGUF."""
    return _SHARD.fullmatch(path.name) is not None


def _role_of(path: Path) -> File.Role.ValueType:
    return File.ROLE_SHARD if is_shard(path) else File.ROLE_MODEL


def _of_directory(directory: Path) -> list[Path]:
    """A set of safetensors as Ollama's own command sends it, else the GGUF files."""
    try:
        inside = sorted(path for path in directory.iterdir() if path.is_file() and path.name[0] != ".")
    except OSError as error:
        raise LocalFileError(f"cannot read {directory}: {error.strerror}") from error
    if any(path.suffix == ".safetensors" for path in inside):
        names = {"tokenizer.model", "chat_template.jinja"}
        return [path for path in inside if path.suffix in {".safetensors", ".json"} or path.name in names]
    models = [path for path in inside if path.suffix.lower() == ".gguf"]
    if not models:
        raise LocalFileError(f"{directory} holds neither *.safetensors nor *.gguf")
    if len(models) > 1 and not all(_SHARD.fullmatch(path.name) for path in models):
        raise LocalFileError(f"{directory} holds several models: name the files, with --role where needed")
    return models

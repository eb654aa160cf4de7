"""The files that a Modelfile names."""

from __future__ import annotations

import os
from pathlib import Path

from model_ingest._clean import printable
from model_ingest._modelfile.lines import LineError


def local_path(directory: Path, line: int, value: str) -> Path:
    """The path that `value` stands for, absolute; `~` is a home, anything else is relative to `directory`."""
    try:
        path = directory / Path(value).expanduser()
    except RuntimeError:
        raise LineError(line, f"there is no home of {printable(value, 200)}; write the path out") from None
    # As Ollama: `..` is taken off by name, whatever a symbolic link there points to.
    return Path(os.path.normpath(Path.cwd() / path))


def exists(path: Path, line: int) -> bool:
    """Whether there is such a file or directory. Raises LineError if that cannot be found out."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise LineError(line, f"cannot look at {printable(str(path), 200)}: {reason}") from None
    return True


def looks_like_a_path(value: str) -> bool:
    """True for what can only be meant as a file, so that a missing one is not taken for a model's name."""
    if value.startswith((".", "/", "~", "\\")):
        return True
    # With a colon it is a model's name: Hugging Face's tags may end with `.gguf`.
    return value.lower().endswith((".gguf", ".safetensors")) and ":" not in value


def same_file(one: Path, other: Path) -> bool:
    """Whether both paths lead to the same file or directory."""
    return one == other or os.path.realpath(one) == os.path.realpath(other)

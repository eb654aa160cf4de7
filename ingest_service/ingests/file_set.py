"""Which files make a model together, by role and name (ollama-contract.md 3.1).

Checked before a byte is sent. What one target's version cannot do with them is refused there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ingest_service.formats import GGUF, SAFETENSORS, format_for
from ingest_service.vocabulary.errors import FileNameInvalid, OptionUnsupported
from ingest_service.vocabulary.states import FileRole

#: llama.cpp's own pattern, which Ollama goes by as well. The suffix may be in upper case: targets get names
#: of our own.
_SHARD_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.(?i:gguf)", re.ASCII)


class _Named(Protocol):
    @property
    def file_name(self) -> str: ...
    @property
    def role(self) -> FileRole: ...


def shard_place(file_name: str) -> tuple[str, int, int] | None:
    """Of a shard's name the prefix, its number (from 1) and how many there are; None if it is none."""
    found = _SHARD_NAME.fullmatch(file_name)
    return (found[1], int(found[2]), int(found[3])) if found else None


def check_file_set(files: Sequence[_Named], options: Mapping[str, Any], *, allow_safetensors: bool) -> None:
    """Raises OptionUnsupported or FileNameInvalid, naming the field."""
    roles = Counter(file.role for file in files)
    for role in (FileRole.PROJECTOR, FileRole.ADAPTER, FileRole.DRAFT):
        if roles[role] > 1:
            raise OptionUnsupported(f"There is at most one file of role {role}.", field="files")
    if options.get("draft_quantize") and not roles[FileRole.DRAFT]:
        raise OptionUnsupported("There is no file of role DRAFT to quantize.", field="options.draft_quantize")
    for index, file in enumerate(files):
        if file.role is not FileRole.MODEL and format_for(file.file_name) != GGUF:
            raise OptionUnsupported(
                f"A file of role {file.role} is a GGUF: convert it, and do not call it"
                f" `.{file.file_name.rpartition('.')[2]}`.",
                field=f"files[{index}].role",
            )
    if options.get("from"):
        if any(file.role not in {FileRole.ADAPTER, FileRole.DRAFT} for file in files):
            # Ollama would take `from` and ignore the files without a word.
            raise OptionUnsupported(
                "With `from` there can be no file but one of role ADAPTER and one of role DRAFT.",
                field="options.from",
            )
    elif roles[FileRole.SHARD]:
        _check_shards(files, roles)
    else:
        _check_models(files, roles, allow_safetensors=allow_safetensors)


def _check_shards(files: Sequence[_Named], roles: Counter[FileRole]) -> None:
    if roles[FileRole.MODEL]:
        raise OptionUnsupported(
            "Shards are the model: there is no file of role MODEL beside them.", field="files"
        )
    numbers: dict[tuple[str, int], set[int]] = {}
    for index, file in enumerate(files):
        if file.role is not FileRole.SHARD:
            continue
        place = shard_place(file.file_name)
        if place is None:
            raise FileNameInvalid(
                "A shard is called PREFIX-00001-of-0000N.gguf, as llama.cpp splits a model.",
                field=f"files[{index}].file_name",
            )
        prefix, number, count = place
        numbers.setdefault((prefix, count), set()).add(number)
    if len(numbers) > 1:
        raise OptionUnsupported("The shards are not all of one model, by their names.", field="files")
    (_, count), present = next(iter(numbers.items()))
    if (min(present), max(present), len(present)) != (1, count, count):
        # Bounded: a name may say 99999.
        missing = [
            str(number) for number in range(1, min(count, len(present) + 5) + 1) if number not in present
        ]
        more = ", ..." if len(missing) > 5 or count - len(present) > 5 else ""
        wrong = f"not here: {', '.join(missing[:5])}{more}" if missing else "here are more"
        message = f"By their names there are {count} shards, numbered from 1; {wrong}."
        raise OptionUnsupported(message, field="files")


def _check_models(files: Sequence[_Named], roles: Counter[FileRole], *, allow_safetensors: bool) -> None:
    names = [file.file_name for file in files if file.role is FileRole.MODEL]
    formats = Counter(format_for(name) for name in names)
    if not formats[SAFETENSORS]:
        if formats[GGUF] != 1 or len(names) != 1:
            raise OptionUnsupported(
                "A model is one GGUF file of role MODEL, or all its shards, or a set of safetensors.",
                field="files",
            )
        return
    if not allow_safetensors:
        raise OptionUnsupported(
            "This service takes no safetensors (INGEST_ALLOW_SAFETENSORS is off): Ollama's converter can die"
            " of a set that is sound in itself. Convert the model to GGUF.",
            field="files",
        )
    if formats[GGUF] or roles[FileRole.PROJECTOR]:
        raise OptionUnsupported(
            "Beside safetensors there is no GGUF but an adapter and a draft.", field="files"
        )
    tokenizers = {"tokenizer.json", "tokenizer.model"}
    missing = ["a config.json"] if "config.json" not in names else []
    missing += ["a tokenizer.json or tokenizer.model"] if not tokenizers & set(names) else []
    if missing:
        raise OptionUnsupported(
            f"A set of safetensors has {' and '.join(missing)} too: name it, or the whole directory.",
            field="files",
        )

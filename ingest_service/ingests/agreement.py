"""What a file's header says against what the request says it is, and the files of a model against each other.

The rules' ids are ours, X1 to X5: security.md asks for them (section 3, split files; section 1e, names and
content) without numbers of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Protocol

from ingest_service.formats.shards import check_shards
from ingest_service.ingests.file_set import shard_place
from ingest_service.vocabulary.errors import FormatInvalid
from ingest_service.vocabulary.states import FileRole

Facts = Mapping[str, Any]
#: What general.type may say to each role; a shard is part of a model.
_TYPES = {
    FileRole.MODEL: {"model"},
    FileRole.SHARD: {"model"},
    FileRole.DRAFT: {"model"},
    FileRole.ADAPTER: {"adapter"},
    FileRole.PROJECTOR: {"mmproj", "projector"},
}
_PROJECTOR = "clip"
_QUANTIZABLE = frozenset({"F32", "F16", "BF16"})
#: With it Ollama reads special_tokens_map.json, else not.
_PIECES = "tokenizer.model"


class _Named(Protocol):
    @property
    def file_name(self) -> str: ...
    @property
    def role(self) -> FileRole: ...


def check_file(file: _Named, facts: Facts) -> None:
    """X1, X2: one file. `facts` are its header's; of what has no such header they say nothing. Raises
    FormatInvalid."""
    if "type" not in facts:
        return
    kind, is_projector = facts["type"], facts.get("architecture") == _PROJECTOR
    if is_projector != (file.role is FileRole.PROJECTOR) or not (is_projector or kind in _TYPES[file.role]):
        found = "projector" if is_projector else kind
        _refuse("X1", "general.type", _other_role(file.role, found))
    split = facts.get("split") or {"number": 0, "count": 1}
    if split["count"] <= 1:
        # Whole models are called like the only shard of one, too; some say that they are split into one.
        split = {"number": 0, "count": 1}
    if file.role is not FileRole.SHARD:
        if split["count"] > 1:
            message = f"The file is shard {split['number'] + 1} of {split['count']}: push all, as shards,"
            message += " each with its name of the kind PREFIX-00001-of-0000N.gguf."
            _refuse("X2", "split.count", message)
        return
    _, number, count = shard_place(file.file_name) or ("", 1, 1)
    if split["count"] == 1 != count:
        _refuse(
            "X2", "split.count", "The file is declared as a shard; its header says that it is a whole model."
        )
    if (split["number"] + 1, split["count"]) != (number, count):
        message = f"By its name this is shard {number} of {count}; its header says"
        _refuse("X2", "split.no", f"{message} {split['number'] + 1} of {split['count']}.")


def _other_role(role: FileRole, found: str) -> str:
    said = f"The file is declared as {role}; its header says {found}."
    if found in {"adapter", "projector"} and role is FileRole.MODEL:
        return f"{said} Push it beside the model it belongs to, with the role {found.upper()}."
    return f"{said} Give it the role that it has, or name another file."


def check_quantize(file: _Named, facts: Facts, options: Mapping[str, Any]) -> None:
    """X5: Ollama goes by general.file_type; its server dies of a tensor that it cannot quantize (seen with
    0.24.0). Raises FormatInvalid."""
    if not options.get("quantize") or file.role not in {FileRole.MODEL, FileRole.SHARD}:
        return
    odd = sorted({share["type"] for share in facts.get("quantization_mix", ())} - _QUANTIZABLE)
    if odd:
        message = f"Only F32, F16 and BF16 can be quantized; the file has tensors of {', '.join(odd)}."
        _refuse("X5", "options.quantize", message)


def check_together(files: Sequence[tuple[_Named, Facts]]) -> None:
    """X3: the shards of one model, all of them. X4: files beside safetensors. Raises FormatInvalid."""
    if any(file.file_name.lower() == _PIECES for file, _ in files):
        for file, facts in files:
            if facts.get("additional_special_tokens") == "texts":
                message = f"Beside {_PIECES}, Ollama's converter dies of special tokens that are no objects:"
                message += ' write each as {"content": ...}, or leave the file out.'
                _refuse("X4", f"{file.file_name}: additional_special_tokens", message)
    check_shards([(file.file_name, facts) for file, facts in files if file.role is FileRole.SHARD])


def _refuse(rule: str, field: str, message: str) -> NoReturn:
    message = f"{message} (rule {rule})"
    raise FormatInvalid(message, field=field, metadata={"rule": rule, "field": field})

"""What a client asks for, checked as far as it can be without looking anything up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ingest_service.ingests.file_set import check_file_set
from ingest_service.ingests.limits import Limits
from ingest_service.ingests.names import ModelName, check_file_name, parse_model_name
from ingest_service.ingests.options import check_options
from ingest_service.vocabulary.digests import parse_digest
from ingest_service.vocabulary.errors import (
    ArgumentInvalid,
    FileNameInvalid,
    OptionUnsupported,
    SizeLimit,
    TargetUnknown,
)
from ingest_service.vocabulary.states import FileRole

_MAX_REQUEST_ID_CHARACTERS = 128


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file that a client is going to send. `sha256` is "" while unknown."""

    file_name: str
    role: FileRole
    size_bytes: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class NewIngest:
    """A CreateIngestRequest in the domain's words."""

    model: str
    files: Sequence[NewFile]
    options: Mapping[str, Any] = field(default_factory=dict)
    targets: Sequence[str] = ()
    store_only: bool = False
    request_id: str = ""

    def fingerprint(self) -> str:
        """The same for the same body: what `request_id` is held against."""
        body = asdict(self)
        del body["request_id"]
        canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def check_new_ingest(request: NewIngest, limits: Limits, known_targets: Sequence[str]) -> ModelName:
    """Refuses what can be refused before anything is looked up; answers the model's name.

    Raises NameInvalid, FileNameInvalid, SizeLimit, DigestMalformed, OptionUnsupported, TargetUnknown or
    ArgumentInvalid, each naming its field.
    """
    name = parse_model_name(request.model)
    check_request_id(request.request_id)
    check_options(request.options, allow_from=limits.allow_from)
    seen: set[str] = set()
    for index, file in enumerate(request.files):
        _check_file(file, f"files[{index}]", limits, seen)
    check_file_set(request.files, request.options, allow_safetensors=limits.allow_safetensors)
    _check_targets(request, known_targets)
    return name


def check_request_id(request_id: str) -> None:
    """Raises ArgumentInvalid unless it can be one."""
    if len(request_id) > _MAX_REQUEST_ID_CHARACTERS or not request_id.isprintable():
        raise ArgumentInvalid(
            f"A request_id has at most {_MAX_REQUEST_ID_CHARACTERS} printable characters.",
            field="request_id",
        )


def _check_file(file: NewFile, field_path: str, limits: Limits, seen: set[str]) -> None:
    check_file_name(file.file_name, field=f"{field_path}.file_name")
    folded = file.file_name.lower()
    if folded in seen:
        raise FileNameInvalid("Two files have the same name.", field=f"{field_path}.file_name")
    seen.add(folded)
    if not 0 < file.size_bytes <= limits.max_file_bytes:
        raise SizeLimit(
            f"A file has 1 to {limits.max_file_bytes} bytes; this one has {file.size_bytes}.",
            field=f"{field_path}.size_bytes",
            metadata={"limit_bytes": str(limits.max_file_bytes)},
        )
    if file.sha256:
        parse_digest(file.sha256, field=f"{field_path}.sha256")


def _check_targets(request: NewIngest, known_targets: Sequence[str]) -> None:
    if request.store_only and request.targets:
        raise ArgumentInvalid("store_only and targets exclude each other.", field="store_only")
    if request.options.get("from") and (request.store_only or not known_targets):
        raise OptionUnsupported("What builds upon a target's model needs a target.", field="options.from")
    check_known_targets(request.targets, known_targets)


def check_known_targets(targets: Sequence[str], known_targets: Sequence[str]) -> None:
    """Raises TargetUnknown, naming the field."""
    for index, target in enumerate(targets):
        if target not in known_targets:
            raise TargetUnknown(
                f"No such target; there are: {', '.join(known_targets) or 'none'}.",
                field=f"targets[{index}]",
                metadata={"known": ",".join(known_targets)},
            )

"""Messages to the domain's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict, SerializeToJsonError
from model_ingest.v1 import catalog_service_pb2, ingest_service_pb2, resources_pb2

from ingest_service.ingests.imports import ImportRequest
from ingest_service.ingests.options import MAX_LIST, MAX_OPTIONS_BYTES, MAX_PARAMETERS_BYTES
from ingest_service.ingests.requests import NewFile, NewIngest
from ingest_service.rpc.wire_limits import MAX_FILES, MAX_STATES, MAX_TARGETS
from ingest_service.vocabulary.errors import ArgumentInvalid, OptionUnsupported
from ingest_service.vocabulary.states import FileRole, IngestState


def new_ingest(request: ingest_service_pb2.CreateIngestRequest) -> NewIngest:
    """What the client asks for; the domain judges it. Raises OptionUnsupported, ArgumentInvalid."""
    if len(request.files) > MAX_FILES:
        raise OptionUnsupported(f"An ingest has at most {MAX_FILES} files.", field="files")
    targets = target_names(request.targets)
    if request.options.ByteSize() > MAX_OPTIONS_BYTES:
        raise OptionUnsupported(f"Options have at most {MAX_OPTIONS_BYTES} bytes.", field="options")
    return NewIngest(
        model=request.model,
        files=tuple(_new_file(file, index) for index, file in enumerate(request.files)),
        options=_options(request.options),
        targets=targets,
        store_only=request.store_only,
        request_id=request.request_id,
    )


def target_names(targets: Sequence[str]) -> tuple[str, ...]:
    """The names. Raises ArgumentInvalid for more than there can be."""
    if len(targets) > MAX_TARGETS:
        raise ArgumentInvalid(f"A request has at most {MAX_TARGETS} targets.", field="targets")
    return tuple(targets)


def import_request(request: catalog_service_pb2.ImportFileRequest) -> ImportRequest:
    """What the client asks for; the domain judges it. Raises ArgumentInvalid."""
    return ImportRequest(
        file_name=request.file_name,
        model=request.model,
        targets=target_names(request.targets),
        store_only=request.store_only,
        request_id=request.request_id,
    )


def ingest_states(states: Sequence[resources_pb2.Ingest.State.ValueType]) -> list[IngestState]:
    """The states to list. Raises ArgumentInvalid for one that is none."""
    names = {value: IngestState(name.removeprefix("STATE_")) for name, value in _STATES if value}
    if len(states) > MAX_STATES:
        raise ArgumentInvalid(f"At most {MAX_STATES} states can be asked for.", field="states")
    try:
        return sorted({names[state] for state in states})
    except KeyError:
        raise ArgumentInvalid("There is no such state.", field="states") from None


_STATES = tuple(resources_pb2.Ingest.State.items())
_ROLES = {
    value: FileRole(name.removeprefix("ROLE_")) for name, value in resources_pb2.File.Role.items() if value
}


def _options(options: resources_pb2.CreateOptions) -> dict[str, Any]:
    # What the domain refuses anyway, before it costs a second of the event loop: 1.5 s for 200 000 messages.
    for name, many in (("messages", options.messages), ("licenses", options.licenses)):
        if len(many) > MAX_LIST:
            raise OptionUnsupported(f"There are at most {MAX_LIST} {name}.", field=f"options.{name}")
    if options.parameters.ByteSize() > MAX_PARAMETERS_BYTES:
        raise OptionUnsupported(
            f"Parameters have at most {MAX_PARAMETERS_BYTES} bytes.", field="options.parameters"
        )
    try:
        return MessageToDict(options, preserving_proto_field_name=True)
    except SerializeToJsonError:
        # JSON, and so Ollama, has no word for NaN and the infinities; nor has it one for "nothing".
        raise OptionUnsupported("A parameter is a finite number.", field="options.parameters") from None


def _new_file(file: ingest_service_pb2.FileSpec, index: int) -> NewFile:
    role = FileRole.MODEL if not file.role else _ROLES.get(file.role)
    if role is None:
        raise OptionUnsupported("There is no such role.", field=f"files[{index}].role")
    return NewFile(file_name=file.file_name, role=role, size_bytes=file.size_bytes, sha256=file.sha256)

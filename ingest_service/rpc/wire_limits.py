"""How many of each repeated field a request may hold, and how many bytes a request of each method.

The counts are those that the handlers refuse anyway; `wire_scan` applies them to the bytes, before protobuf
makes an object of each element (2 bytes on the wire become 100 or more in memory).
"""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from model_ingest.v1 import catalog_service_pb2, ingest_service_pb2

from ingest_service.ingests.options import MAX_LIST
from ingest_service.vocabulary.errors import ArgumentInvalid, BadRequestError, OptionUnsupported

MAX_FILES = 1024
MAX_TARGETS = 1024
MAX_STATES = 64
#: Of all structs and lists of the parameters together; there are 20 parameters, and 64 stop words.
_MAX_STRUCT_MEMBERS = 1024
#: Fields of a whole message, of every kind. The largest valid CreateIngest has about 11 000.
MAX_FIELDS = 16 * 1024
#: Messages within messages. The deepest that means anything (a stop word in an Upload's `start`) is 9 deep.
MAX_DEPTH = 16

#: Bytes of a request: of the methods that take options, and of all others.
MAX_LARGE_REQUEST_BYTES = 4 * 1024 * 1024
MAX_REQUEST_BYTES = 64 * 1024
_LARGE_METHODS = frozenset(
    f"/{ingest_service_pb2.DESCRIPTOR.services_by_name['IngestService'].full_name}/{name}"
    for name in ("CreateIngest", "Upload")
)


def max_request_bytes(method: str) -> int:
    """Of one message that the method reads, before it is decoded."""
    return MAX_LARGE_REQUEST_BYTES if method in _LARGE_METHODS else MAX_REQUEST_BYTES


@dataclass(frozen=True, slots=True, eq=False)
class ListLimit:
    """Of a repeated field: how many elements in the whole message, and how more are refused."""

    most: int
    error: type[BadRequestError]
    field: str
    message: str

    def refusal(self) -> BadRequestError:
        """For one element too many."""
        return self.error(self.message, field=self.field)


@dataclass(frozen=True, slots=True)
class FieldRule:
    """What the scanner does with a field of a message."""

    #: None: the field is not repeated.
    limit: ListLimit | None = None
    #: The full name of the field's message type; "" if it holds none.
    message_type: str = ""
    #: Elements may be packed into one field, as numbers of variable length.
    is_packable: bool = False


def _targets(message_type: str) -> tuple[str, ListLimit]:
    limit = ListLimit(
        MAX_TARGETS, ArgumentInvalid, "targets", f"A request has at most {MAX_TARGETS} targets."
    )
    return f"model_ingest.v1.{message_type}.targets", limit


_MANY_MEMBERS = ListLimit(
    _MAX_STRUCT_MEMBERS,
    OptionUnsupported,
    "options.parameters",
    f"Parameters have at most {_MAX_STRUCT_MEMBERS} members.",
)

#: Every repeated field that a request can hold, by its full name.
LIMITS: dict[str, ListLimit] = {
    "model_ingest.v1.CreateIngestRequest.files": ListLimit(
        MAX_FILES, OptionUnsupported, "files", f"An ingest has at most {MAX_FILES} files."
    ),
    **dict(
        _targets(message_type)
        for message_type in (
            "CreateIngestRequest",
            "RetryIngestRequest",
            "DeleteModelRequest",
            "DeployModelRequest",
            "ImportFileRequest",
        )
    ),
    "model_ingest.v1.CreateOptions.messages": ListLimit(
        MAX_LIST, OptionUnsupported, "options.messages", f"There are at most {MAX_LIST} messages."
    ),
    "model_ingest.v1.CreateOptions.licenses": ListLimit(
        MAX_LIST, OptionUnsupported, "options.licenses", f"There are at most {MAX_LIST} licenses."
    ),
    "model_ingest.v1.ListIngestsRequest.states": ListLimit(
        MAX_STATES, ArgumentInvalid, "states", f"At most {MAX_STATES} states can be asked for."
    ),
    "google.protobuf.Struct.fields": _MANY_MEMBERS,
    "google.protobuf.ListValue.values": _MANY_MEMBERS,
}

#: The rules of each message type, by field number. `wire_scan` passes over a field without one.
Rules = dict[str, dict[int, FieldRule]]


def _request_types() -> dict[str, Descriptor]:
    return {
        f"/{service.full_name}/{method.name}": method.input_type
        for file in (ingest_service_pb2.DESCRIPTOR, catalog_service_pb2.DESCRIPTOR)
        for service in file.services_by_name.values()
        for method in service.methods
    }


def _rules() -> Rules:
    """From the protos. Raises KeyError for a repeated field that nobody has set a limit for."""
    rules: Rules = {}
    waiting = list(_request_types().values())
    while waiting:
        descriptor = waiting.pop()
        if descriptor.full_name in rules:
            continue
        rules[descriptor.full_name] = {}
        for field in descriptor.fields:
            child = field.message_type
            if child is not None:
                waiting.append(child)
            if child is not None or field.is_repeated:
                rules[descriptor.full_name][field.number] = FieldRule(
                    LIMITS[field.full_name] if field.is_repeated else None,
                    child.full_name if child is not None else "",
                    field.type == FieldDescriptor.TYPE_ENUM,
                )
    return rules


RULES = _rules()
#: The full name of the message type that each unary method reads; Upload's reader knows its own.
REQUEST_TYPES = {
    method: descriptor.full_name
    for method, descriptor in _request_types().items()
    if not method.endswith("/Upload")
}

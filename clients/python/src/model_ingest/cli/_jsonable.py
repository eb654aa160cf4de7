"""Messages as JSON for scripts."""

from __future__ import annotations

from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

_PREFIXES = ("STATE_", "ROLE_")


def jsonable(message: Message) -> Any:
    """A message as plain JSON values, with the field names of the protos.

    Unlike canonical proto JSON: sizes are numbers rather than strings, scalars are always there,
    and enum values are spelt as the documentation spells them (`READY`, not `STATE_READY`).
    """
    if isinstance(message, Timestamp):
        return message.ToJsonString()
    if isinstance(message, Duration):
        return message.seconds + message.nanos / 1e9
    if isinstance(message, Struct):
        return _whole(MessageToDict(message))
    return {
        field.name: _field(message, field)
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _whole(value: Any) -> Any:
    """A Struct knows only doubles; a number of bytes or tensors is shown as what it is."""
    if isinstance(value, dict):
        return {key: _whole(one) for key, one in sorted(value.items())}
    if isinstance(value, list):
        return [_whole(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _field(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return [_value(field, item) for item in value]
    return _value(field, value)


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return jsonable(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else _short(known.name)
    return value


def _short(name: str) -> str:
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name

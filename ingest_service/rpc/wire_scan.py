"""Counts what a protobuf message holds without decoding it.

A message of 4 MiB can hold two million empty elements, which protobuf would turn into gigabytes of objects.
The scan reads tags and lengths only. It is linear, it passes over texts and bytes in one step, and it ends at
the first count that is above its limit, so it costs the event loop some milliseconds at most.
"""

from __future__ import annotations

from collections import Counter

from ingest_service.rpc.undecodable import UndecodableMessage
from ingest_service.rpc.wire_limits import MAX_DEPTH, MAX_FIELDS, RULES, FieldRule, ListLimit
from ingest_service.vocabulary.errors import ArgumentInvalid

_VARINT, _BYTES = 0, 2
#: Start and end. proto3 has no groups; to protobuf they are unknown fields, whatever they hold.
_GROUPS = _START, _END = 3, 4
_FIXED_BYTES = {1: 8, 5: 4}
_MAX_VARINT_BYTES = 10
#: Every byte of a varint but its last one.
_GOES_ON = bytes(range(0x80, 0x100))


def check_counts(message: bytes, message_type: str) -> None:
    """Raises the documented error if the message holds more than a request may, UndecodableMessage if its
    bytes are no message. `message_type` is the full name of a request's type."""
    _Scan(message).message(0, len(message), message_type, 1)


class _Scan:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._fields = 0
        self._elements: Counter[ListLimit] = Counter()

    def message(self, at: int, end: int, message_type: str, depth: int) -> None:
        """The fields from `at` to `end`."""
        if depth > MAX_DEPTH:
            raise ArgumentInvalid(
                f"A request has at most {MAX_DEPTH} levels of messages within messages.",
                field="options.parameters" if message_type.startswith("google.protobuf.") else "request",
            )
        data, rules = self._data, RULES[message_type]
        groups: list[int] = []
        while at < end:
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise ArgumentInvalid(f"A request has at most {MAX_FIELDS} fields.", field="request")
            tag = data[at]
            at += 1
            if tag >= 0x80:
                tag, at = self._varint(at - 1, end)
            start, value_end = self._value(at, end, tag & 7)
            rule = rules.get(tag >> 3)
            if tag & 7 in _GROUPS or groups:
                _follow_group(groups, tag)
            elif rule is not None:
                self._apply(rule, tag & 7, start, value_end, depth)
            at = value_end
        if groups:
            raise UndecodableMessage

    def _value(self, at: int, end: int, kind: int) -> tuple[int, int]:
        """Where the field's value starts and ends. Raises UndecodableMessage."""
        if kind == _BYTES:
            size_bytes, at = self._varint(at, end)
            value_end = at + size_bytes
        elif kind == _VARINT:
            value_end = self._varint(at, end)[1]
        elif kind in _FIXED_BYTES:
            value_end = at + _FIXED_BYTES[kind]
        elif kind in _GROUPS:
            value_end = at
        else:
            raise UndecodableMessage
        if value_end > end:
            raise UndecodableMessage
        return at, value_end

    def _apply(self, rule: FieldRule, kind: int, start: int, end: int, depth: int) -> None:
        if kind != _BYTES and not rule.is_packable:
            return  # to protobuf an unknown field
        if rule.limit is not None:
            is_packed = rule.is_packable and kind == _BYTES
            self._count(rule.limit, self._packed(start, end, rule.limit) if is_packed else 1)
        if rule.message_type and kind == _BYTES:
            self.message(start, end, rule.message_type, depth + 1)

    def _count(self, limit: ListLimit, elements: int) -> None:
        self._elements[limit] += elements
        if self._elements[limit] > limit.most:
            raise limit.refusal()

    def _packed(self, start: int, end: int, limit: ListLimit) -> int:
        """How many numbers there are; at a glance where they must be too many."""
        if end - start > limit.most * _MAX_VARINT_BYTES:
            return limit.most + 1
        return len(self._data[start:end].translate(None, _GOES_ON))

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """The number there and where it ends. Raises UndecodableMessage."""
        value = shift = 0
        for position in range(at, min(end, at + _MAX_VARINT_BYTES)):
            byte = self._data[position]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position + 1
            shift += 7
        raise UndecodableMessage


def _follow_group(groups: list[int], tag: int) -> None:
    """`groups` are the numbers of those that are open. Raises UndecodableMessage."""
    if tag & 7 == _START:
        groups.append(tag >> 3)
    elif tag & 7 == _END and (not groups or groups.pop() != tag >> 3):
        raise UndecodableMessage

"""What a reader of model files says when it refuses one: the rules that the file breaks, first one first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from ingest_service.formats.remedies import remedy_for
from ingest_service.vocabulary.errors import FormatInvalid, Violation
from ingest_service.vocabulary.text import clean

#: What is shown of a key or a tensor's name that came out of a file.
_MAX_SHOWN_BYTES = 200
#: After the first fault, which is the error itself, so many more are listed.
MAX_MORE_FAULTS = 20


class FormatFault(Exception):
    """One rule that a file breaks: the rule's id, where in the file, and what it is about.

    `offset` is a byte of the file; None where the fault is that something is missing.
    """

    def __init__(self, rule: str, offset: int | None, field: str, message: str) -> None:
        self.rule = rule
        self.offset = offset
        self.field = clean(field, _MAX_SHOWN_BYTES) or "(no name)"
        self.message = clean(message, 1024)
        super().__init__(f"{self.message} ({self._place})")

    @property
    def _place(self) -> str:
        return f"rule {self.rule}" if self.offset is None else f"rule {self.rule}, byte {self.offset}"


class Faults:
    """The faults of one file, in the order in which they were found; how many are kept is bounded."""

    def __init__(self) -> None:
        self.found: list[FormatFault] = []
        #: How many there were beyond those that are kept.
        self.left_out = 0

    def add(self, rule: str, offset: int | None, field: str, message: str) -> None:
        """Notes a fault after which reading and checking go on."""
        if len(self.found) > MAX_MORE_FAULTS:
            self.left_out += 1
        else:
            self.found.append(FormatFault(rule, offset, field, message))

    def take(self, fault: FormatFault) -> None:
        """Notes a fault that was raised."""
        if fault not in self.found:
            self.add(fault.rule, fault.offset, fault.field, fault.message)

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Notes the fault that ends the block; what comes after the block goes on."""
        try:
            yield
        except FormatFault as fault:
            self.take(fault)

    def stop(self) -> None:
        """Raises the first fault, if there is one: nothing more can be read or checked."""
        if self.found:
            raise self.found[0]

    def as_error(self) -> FormatInvalid:
        """The domain's error, which the client sees as FORMAT_INVALID: the first fault, with the others."""
        first, *others = self.found
        metadata = {"rule": first.rule, "field": first.field}
        if first.offset is not None:
            metadata["offset"] = str(first.offset)
        advised: set[str] = set()
        message = _said(first, advised)
        more = [Violation(fault.field, _said(fault, advised)) for fault in others]
        return FormatInvalid(message, field=first.field, metadata=metadata, more=more, left_out=self.left_out)


def _said(fault: FormatFault, advised: set[str]) -> str:
    """The fault and what to do about it, which is said once for all faults of its kind."""
    remedy = remedy_for(fault.rule)
    if remedy in advised:
        return str(fault)
    advised.add(remedy)
    return f"{fault} {remedy}"


def refuse(rule: str, offset: int | None, field: str, message: str) -> NoReturn:
    """Raises the fault: for what cannot be read on after it, and for readers that stop at the first."""
    raise FormatFault(rule, offset, field, message)

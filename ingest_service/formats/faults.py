"""What a reader of model files says when it refuses one: the rules that the file breaks, first one first."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import NoReturn

from ingest_service.formats.remedies import LIFTING, remedy_for
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

    def __init__(
        self, rule: str, offset: int | None, field: str, message: str, *, is_policy: bool = False
    ) -> None:
        self.rule = rule
        #: A setting makes a warning of it.
        self.is_policy = is_policy
        self.offset = offset
        self.field = clean(field, _MAX_SHOWN_BYTES) or "(no name)"
        self.message = clean(message, 1024)
        super().__init__(f"{self.message} ({self._place})")

    @property
    def _place(self) -> str:
        return f"rule {self.rule}" if self.offset is None else f"rule {self.rule}, byte {self.offset}"


class Faults:
    """The faults of one file, in the order in which they were found; how many are kept is bounded.

    `as_warnings` are the policies that are not refused here.
    """

    def __init__(self, as_warnings: Collection[str] = ()) -> None:
        self.found: list[FormatFault] = []
        #: How many there were beyond those that are kept.
        self.left_out = 0
        self._as_warnings = as_warnings
        #: What broke such a policy, as bounded as the faults are.
        self._warned: list[FormatFault] = []
        self._warnings_left_out = 0

    def is_warning(self, rule: str) -> bool:
        """Whether what breaks this policy is taken here."""
        return rule in self._as_warnings

    @property
    def warnings(self) -> list[str]:
        """What was taken although it breaks a policy, with the rule's id and the place."""
        told = [str(fault) for fault in self._warned]
        return [*told, f"{self._warnings_left_out} more like these"] if self._warnings_left_out else told

    def add_policy(self, rule: str, offset: int | None, field: str, message: str) -> None:
        """Notes what breaks a policy: a fault, or a warning where a setting says so."""
        if not self.is_warning(rule):
            self._note(FormatFault(rule, offset, field, message, is_policy=True))
        elif len(self._warned) > MAX_MORE_FAULTS:
            self._warnings_left_out += 1
        else:
            self._warned.append(FormatFault(rule, offset, field, message, is_policy=True))

    def add(self, rule: str, offset: int | None, field: str, message: str) -> None:
        """Notes a fault after which reading and checking go on."""
        self._note(FormatFault(rule, offset, field, message))

    def _note(self, fault: FormatFault) -> None:
        if len(self.found) > MAX_MORE_FAULTS:
            self.left_out += 1
        else:
            self.found.append(fault)

    def take(self, fault: FormatFault) -> None:
        """Notes a fault that was raised."""
        if fault not in self.found:
            self._note(fault)

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
    advice = [remedy_for(fault.rule)]
    if fault.is_policy:
        advice.append(LIFTING)
    fresh = [words for words in advice if words not in advised]
    advised.update(fresh)
    return " ".join([str(fault), *fresh])


def refuse(rule: str, offset: int | None, field: str, message: str) -> NoReturn:
    """Raises the fault: for what cannot be read on after it, and for readers that stop at the first."""
    raise FormatFault(rule, offset, field, message)

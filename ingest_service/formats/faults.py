"""What a reader of model files says when it refuses one."""

from __future__ import annotations

from typing import NoReturn

from ingest_service.vocabulary.errors import FormatInvalid
from ingest_service.vocabulary.text import clean

#: What is shown of a key or a tensor's name that came out of a file.
_MAX_SHOWN_BYTES = 200


class FormatFault(Exception):
    """The first rule that a file breaks: the rule's id, where in the file, and what it is about."""

    def __init__(self, rule: str, offset: int, field: str, message: str) -> None:
        self.rule = rule
        self.offset = offset
        self.field = clean(field, _MAX_SHOWN_BYTES) or "(no name)"
        self.message = clean(message, 1024)
        super().__init__(f"{rule} at byte {offset}, {self.field}: {self.message}")

    def as_error(self) -> FormatInvalid:
        """The same as the domain's error, which the client sees as FORMAT_INVALID."""
        metadata = {"rule": self.rule, "offset": str(self.offset), "field": self.field}
        message = f"{self.message} (rule {self.rule}, byte {self.offset})"
        return FormatInvalid(message, field=self.field, metadata=metadata)


def refuse(rule: str, offset: int, field: str, message: str) -> NoReturn:
    """Raises the fault."""
    raise FormatFault(rule, offset, field, message)

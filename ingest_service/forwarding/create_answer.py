"""What the lines of one create add up to (ollama-contract.md 3.2, 3.3)."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ingest_service.forwarding.answers import error_from_create
from ingest_service.forwarding.target import OutcomeUnknown
from ingest_service.vocabulary.text import clean


@dataclass(frozen=True, slots=True)
class CreateLine:
    """One line of create's answer. `status` is Ollama's free text, cleaned."""

    status: str
    completed_bytes: int
    total_bytes: int


class CreateAnswer:
    """Takes the lines as they come; `judge` says what they mean once they have ended."""

    def __init__(self) -> None:
        self._succeeded = False
        self._manifest_written = False
        self._error: str | None = None

    @property
    def has_ended(self) -> bool:
        """The line that ends an answer has come, whatever became of the connection after it."""
        return self._succeeded or self._error is not None

    @property
    def succeeded(self) -> bool:
        """The line that is Ollama's last has come: nothing after it counts."""
        return self._succeeded

    def take(self, line: bytes) -> CreateLine | None:
        """Reads a line; None if it is none of Ollama's. What is no JSON object is passed over."""
        if self._succeeded:
            return None
        try:
            data = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(data, dict):
            return None
        if "error" in data:
            self._error = text_of(data["error"]) or "an error without words"
            return None
        status = text_of(data.get("status"))
        self._succeeded = self._succeeded or status == "success"
        self._manifest_written = self._manifest_written or status == "writing manifest"
        return CreateLine(clean(status), _count(data.get("completed")), _count(data.get("total")))

    def judge(self) -> None:
        """Raises unless it was a success."""
        if self._error is None:
            if self._succeeded:
                return
            raise OutcomeUnknown("The answer to create ended without success.")
        error = error_from_create(self._error)
        if self._manifest_written or self._succeeded:
            # The clean-up of old layers failed; the model is there all the same (contract 3.2).
            # Ollama then says `success` too.
            raise OutcomeUnknown(self._error, otherwise=error)
        raise error


def text_of(value: object) -> str:
    """A JSON value that should be a text; "" if it is none."""
    return value if isinstance(value, str) else ""


def _count(value: object) -> int:
    return min(max(value, 0), 2**62) if isinstance(value, int) and not isinstance(value, bool) else 0

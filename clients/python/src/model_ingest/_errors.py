"""What can go wrong, as a tree. Catch the branch you can act on.

    IngestError
    ├── LocalFileError                 exit 2  a path that cannot be read, or is no regular file
    │   └── FileChangedError                   it changed while it was being read
    ├── RefusedError                   exit 3  the server looked at it and said no
    │   ├── InvalidRequestError                the request or the bytes are wrong
    │   │   ├── DigestError                    ... the sha256 is another one, malformed or absent
    │   │   └── FormatError                    ... the bytes are no sane model file
    │   ├── NotFoundError                      no such ingest, file or model
    │   ├── PreconditionError                  not in this state: superseded, closed, busy, bytes missing
    │   ├── NotAllowedError                    no permission
    │   ├── NoRoomError                        the store is full, or a quota is used up
    │   ├── NotServedError                     this server version does not serve the call yet
    │   ├── IngestCancelledError               somebody cancelled the ingest, or it expired
    │   └── ServerFaultError                   the server failed; an operator has to look
    ├── TargetError                    exit 4  stored, but a target refused it or never answered
    └── ConnectionLostError            exit 5  could not reach the server, or lost it for good
        ├── UnreachableError                   no connection was ever made
        ├── BusyError                          reached, but it asked to wait until patience was over
        ├── StalledError                       nothing moved for too long
        ├── ChecksumError                      chunks arrive changed, again and again
        └── UploadInterruptedError             the upload broke off and cannot go on

The exit codes are those of the `model-ingest` command. Decide by class or by `reason` (the names
in `errors.proto`), never by the message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import grpc

from model_ingest.v1.resources_pb2 import Ingest


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of the request that is wrong."""

    field: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the server said beside its message; empty for errors that were noticed here."""

    code: grpc.StatusCode | None = None
    reason: str = ""
    metadata: Mapping[str, str] | None = None
    violations: tuple[FieldViolation, ...] = ()
    retry_after_seconds: float | None = None
    diagnostics: str = ""


_NO_FACTS = Facts()


class IngestError(Exception):
    """Anything this client raises on purpose.

    `exit_code` is what the command exits with; `advice` what to do when `reason` has no line of
    its own; `ingest` the ingest's last known state, when there is one.
    """

    exit_code: ClassVar[int] = 3
    advice: ClassVar[str] = ""
    # The same call may succeed later, without anybody changing anything.
    transient: ClassVar[bool] = False
    # How often in a row it is tried again, where patience alone would be a poor limit.
    max_tries: ClassVar[int | None] = None

    def __init__(self, message: str, facts: Facts = _NO_FACTS, *, ingest: Ingest | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts
        self.ingest = ingest

    @property
    def code(self) -> grpc.StatusCode | None:
        """The gRPC code, or None for an error that was noticed on this side."""
        return self.facts.code

    @property
    def reason(self) -> str:
        """A name from `errors.proto`, or an empty string."""
        return self.facts.reason

    @property
    def metadata(self) -> Mapping[str, str]:
        """The reason's own facts, e.g. `expected` and `actual` of DIGEST_MISMATCH."""
        return self.facts.metadata or {}

    @property
    def violations(self) -> tuple[FieldViolation, ...]:
        """The fields that are wrong, for a request that the server did not understand."""
        return self.facts.violations

    @property
    def retry_after_seconds(self) -> float | None:
        """How long the server asks to wait, if it does."""
        return self.facts.retry_after_seconds

    @property
    def diagnostics(self) -> str:
        """One line: what to do next."""
        return self.facts.diagnostics or self.advice


class LocalFileError(IngestError):
    """A path that cannot be read, or is no regular file."""

    exit_code = 2
    advice = "check the path"


class FileChangedError(LocalFileError):
    """The file changed between the first and the last byte read."""

    advice = "wait until nothing writes to the file, then push again"


class RefusedError(IngestError):
    """The server looked at it and said no."""

    advice = "correct the request"


class InvalidRequestError(RefusedError):
    """The request, or the bytes, are wrong."""


class DigestError(InvalidRequestError):
    """The sha256 is another one, malformed, or absent."""


class FormatError(InvalidRequestError):
    """The bytes are no sane model file. `metadata` has `rule`, `offset`, `field`."""


class NotFoundError(RefusedError):
    """No such ingest, file or model."""

    advice = "`model-ingest ls` and `model-ingest ls --ingests` list what there is"


class PreconditionError(RefusedError):
    """Not in this state."""

    advice = "`model-ingest status` shows where it stands"


class NotAllowedError(RefusedError):
    """No permission, or nobody said who is asking."""

    advice = "ask the operator of the service"


class NoRoomError(RefusedError):
    """The store is full, or a quota is used up."""

    advice = "an operator must make room"


class NotServedError(RefusedError):
    """This server version does not serve the call yet."""

    advice = "a later version of the service brings it"


class IngestCancelledError(RefusedError):
    """The ingest was cancelled, or expired."""

    advice = "push again"


class ServerFaultError(RefusedError):
    """The server failed; an operator has to look. Retried three times, for transports report so too."""

    advice = "quote the message to the operator of the service"
    max_tries = 3


class TargetError(IngestError):
    """All bytes are stored, but a target refused the model or never answered."""

    exit_code = 4
    advice = "the model is stored; `model-ingest retry` tries the target again"


class ConnectionLostError(IngestError):
    """Could not reach the server, or lost it for good."""

    exit_code = 5
    advice = "check that the service runs and that --server names it, then try again"
    transient = True


class UnreachableError(ConnectionLostError):
    """No connection was ever made."""


class BusyError(ConnectionLostError):
    """The server was reached, but asked to wait until the patience for it was over."""

    advice = "try again later"


class StalledError(ConnectionLostError):
    """Nothing moved for too long."""

    advice = "check the network between here and the service, then try again"


class ChecksumError(ConnectionLostError):
    """A chunk arrived with other bytes than were sent, again and again."""

    advice = "something between here and the service changes bytes: a proxy, or bad memory"
    max_tries = 3


class UploadInterruptedError(ConnectionLostError):
    """The upload broke off and cannot go on."""

    advice = "push again"
    transient = False

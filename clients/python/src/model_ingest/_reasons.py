"""The table of reasons (`errors.proto`): which class each one is, and what to do next."""

from __future__ import annotations

from typing import NamedTuple

import grpc

from model_ingest._errors import (
    BusyError,
    ChecksumError,
    ConnectionLostError,
    DigestError,
    FormatError,
    IngestCancelledError,
    IngestError,
    InvalidRequestError,
    NoRoomError,
    NotAllowedError,
    NotFoundError,
    NotServedError,
    PreconditionError,
    RefusedError,
    ServerFaultError,
    StalledError,
    TargetError,
    UploadInterruptedError,
)


class Rule(NamedTuple):
    """What a reason means to this client."""

    error: type[IngestError]
    diagnostics: str


REASONS: dict[str, Rule] = {
    "OFFSET_GAP": Rule(ConnectionLostError, "the server has fewer bytes than were thought; push again"),
    "SIZE_MISMATCH": Rule(
        InvalidRequestError, "the file changed while it was sent; push again when it is at rest"
    ),
    "CHUNK_CHECKSUM_MISMATCH": Rule(ChecksumError, ""),
    "DIGEST_MISMATCH": Rule(
        DigestError,
        "the file changed while it was read, or memory is bad; compare `sha256sum` of it, push again",
    ),
    "DIGEST_REQUIRED": Rule(DigestError, "send the file's sha256 (this client always does)"),
    "DIGEST_MALFORMED": Rule(DigestError, "write it as sha256: and 64 lower-case hex digits"),
    "FORMAT_INVALID": Rule(
        FormatError,
        "put right what the message names; of a download, compare its size and sha256 with its source's",
    ),
    "NAME_INVALID": Rule(InvalidRequestError, "choose another --name, like `llama3:8b` or `team/llama3:8b`"),
    "FILE_NAME_INVALID": Rule(InvalidRequestError, "rename the file: ASCII letters, digits, `.`, `_`, `-`"),
    "SIZE_LIMIT": Rule(
        InvalidRequestError,
        "name a file that is not empty; for a larger one an operator must raise INGEST_MAX_FILE_BYTES",
    ),
    "OPTION_UNSUPPORTED": Rule(InvalidRequestError, "correct what the message names, or leave it out"),
    "TARGET_UNKNOWN": Rule(InvalidRequestError, "name a target that the service is configured with"),
    "REQUEST_ID_REUSED": Rule(InvalidRequestError, "use a new request id for a new request"),
    "STREAM_PROTOCOL": Rule(InvalidRequestError, "a fault of this client; report it"),
    "CHUNK_TOO_LARGE": Rule(InvalidRequestError, "send smaller chunks"),
    "WRITER_SUPERSEDED": Rule(
        PreconditionError, "another upload of this file took over; let it finish (`model-ingest watch`)"
    ),
    "WRITER_BUSY": Rule(BusyError, "the former upload of this file has not let go yet; try again shortly"),
    "UPLOAD_CLOSED": Rule(PreconditionError, "the ingest takes no more bytes; push again for a new one"),
    "BYTES_MISSING": Rule(PreconditionError, "not all bytes are stored; push the file again"),
    "MODEL_BUSY": Rule(PreconditionError, "wait until its deployment has ended, then try again"),
    "STORAGE_FULL": Rule(NoRoomError, "an operator must make room in the store"),
    "QUOTA": Rule(NoRoomError, "an operator must raise the quota, or something must go"),
    "TOO_MANY_UPLOADS": Rule(BusyError, "the service takes no more uploads at once; try again later"),
    "TOO_MANY_WATCHES": Rule(BusyError, "the service takes no more watchers; try again later"),
    "INGEST_NOT_FOUND": Rule(
        NotFoundError, "`model-ingest ls --ingests` lists them; push again if it is gone"
    ),
    "FILE_NOT_FOUND": Rule(NotFoundError, "the ingest has no file of that name"),
    "MODEL_NOT_FOUND": Rule(NotFoundError, "`model-ingest ls` lists the models"),
    "UPLOAD_EXPIRED": Rule(IngestCancelledError, "it was given up for lack of progress; push again"),
    "SEQUENCE_EXPIRED": Rule(
        InvalidRequestError, "those events are gone, or never were; `model-ingest status` has the truth now"
    ),
    "DRAINING": Rule(BusyError, "the service is shutting down; try again when it is back"),
    "BACKEND_DOWN": Rule(BusyError, "the service cannot reach its database or store; tell its operator"),
    "UPLOAD_STALLED": Rule(StalledError, ""),
    "BLOB_CORRUPT": Rule(
        ServerFaultError, "stored bytes are damaged: tell the operator; pushing the file again heals"
    ),
    "STORAGE_FAILED": Rule(
        ServerFaultError, "the store's disk fails: tell the operator before pushing again"
    ),
    "TARGET_UNREACHABLE": Rule(
        TargetError,
        "the model is stored; when the target is up `model-ingest retry`, or `model-ingest deploy`",
    ),
    "TARGET_REFUSED": Rule(
        TargetError,
        "the model is stored; the message holds the target's own words. If a file or an option is wrong,"
        " correct it and push again (stored bytes are not sent again); if the target is, put that right and"
        " `model-ingest retry`",
    ),
    "TARGET_BLOB_CORRUPT": Rule(
        TargetError, "the target's copy of the bytes is damaged: look at its disk, then `model-ingest retry`"
    ),
    "TARGET_LOST_MODEL": Rule(TargetError, "`model-ingest retry` deploys it there again"),
    "UPLOAD_INTERRUPTED": Rule(UploadInterruptedError, "the upload broke off before its end; push again"),
    "ARGUMENT_INVALID": Rule(InvalidRequestError, ""),
}

# For answers without a reason, and for reasons newer than this client.
CODES: dict[grpc.StatusCode, type[IngestError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: PreconditionError,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionError,
    grpc.StatusCode.ABORTED: PreconditionError,
    grpc.StatusCode.PERMISSION_DENIED: NotAllowedError,
    grpc.StatusCode.UNAUTHENTICATED: NotAllowedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: NoRoomError,
    grpc.StatusCode.UNIMPLEMENTED: NotServedError,
    grpc.StatusCode.UNAVAILABLE: ConnectionLostError,
    grpc.StatusCode.CANCELLED: ConnectionLostError,
    grpc.StatusCode.DEADLINE_EXCEEDED: StalledError,
    grpc.StatusCode.INTERNAL: ServerFaultError,
    grpc.StatusCode.UNKNOWN: ServerFaultError,
    grpc.StatusCode.DATA_LOSS: ServerFaultError,
}


def rule_for(reason: str, code: grpc.StatusCode | None) -> Rule:
    """The rule of a reason; for an unknown one that of its code."""
    known = REASONS.get(reason)
    if known is not None:
        return known
    return Rule(CODES.get(code, RefusedError) if code is not None else RefusedError, "")

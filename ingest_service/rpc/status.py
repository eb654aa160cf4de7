"""The one place that maps the error tree to gRPC (design.md section 2, the table of reasons)."""

from __future__ import annotations

import math

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2

from ingest_service.vocabulary.errors import FormatInvalid, IngestError, Violation
from ingest_service.vocabulary.reasons import Reason

DOMAIN = "model-ingest"

_INVALID = grpc.StatusCode.INVALID_ARGUMENT
_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
_NOT_FOUND = grpc.StatusCode.NOT_FOUND
_RANGE = grpc.StatusCode.OUT_OF_RANGE
_UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
_DATA_LOSS = grpc.StatusCode.DATA_LOSS

#: Every reason that a call can end with. Those missing here appear in a Failure only.
CODES: dict[Reason, grpc.StatusCode] = {
    Reason.OFFSET_GAP: _RANGE,
    Reason.SIZE_MISMATCH: _RANGE,
    Reason.CHUNK_CHECKSUM_MISMATCH: grpc.StatusCode.ABORTED,
    Reason.DIGEST_MISMATCH: _INVALID,
    Reason.DIGEST_REQUIRED: _INVALID,
    Reason.DIGEST_MALFORMED: _INVALID,
    Reason.FORMAT_INVALID: _INVALID,
    Reason.NAME_INVALID: _INVALID,
    Reason.FILE_NAME_INVALID: _INVALID,
    Reason.SIZE_LIMIT: _INVALID,
    Reason.OPTION_UNSUPPORTED: _INVALID,
    Reason.TARGET_UNKNOWN: _INVALID,
    Reason.REQUEST_ID_REUSED: _INVALID,
    Reason.STREAM_PROTOCOL: _INVALID,
    Reason.CHUNK_TOO_LARGE: _INVALID,
    Reason.ARGUMENT_INVALID: _INVALID,
    Reason.WRITER_SUPERSEDED: _PRECONDITION,
    Reason.WRITER_BUSY: _UNAVAILABLE,
    Reason.UPLOAD_CLOSED: _PRECONDITION,
    Reason.BYTES_MISSING: _PRECONDITION,
    Reason.MODEL_BUSY: _PRECONDITION,
    Reason.STORAGE_FULL: _EXHAUSTED,
    Reason.QUOTA: _EXHAUSTED,
    Reason.TOO_MANY_UPLOADS: _EXHAUSTED,
    Reason.TOO_MANY_WATCHES: _EXHAUSTED,
    Reason.INGEST_NOT_FOUND: _NOT_FOUND,
    Reason.FILE_NOT_FOUND: _NOT_FOUND,
    Reason.MODEL_NOT_FOUND: _NOT_FOUND,
    Reason.UPLOAD_EXPIRED: _NOT_FOUND,
    Reason.SEQUENCE_EXPIRED: _RANGE,
    Reason.DRAINING: _UNAVAILABLE,
    Reason.BACKEND_DOWN: _UNAVAILABLE,
    Reason.UPLOAD_STALLED: _UNAVAILABLE,
    Reason.TARGET_UNREACHABLE: _UNAVAILABLE,
    Reason.BLOB_CORRUPT: _DATA_LOSS,
    Reason.STORAGE_FAILED: _DATA_LOSS,
}

#: The whole status travels in HTTP/2 headers, in base64; many clients take 8 KiB of them.
_MAX_VIOLATIONS_BYTES = 3600
#: Tags and lengths of one violation.
_FRAMING_BYTES = 10

#: Those whose answer also names the field that is wrong.
NAMING_A_FIELD = frozenset(
    {
        Reason.FORMAT_INVALID,
        Reason.NAME_INVALID,
        Reason.FILE_NAME_INVALID,
        Reason.SIZE_LIMIT,
        Reason.OPTION_UNSUPPORTED,
        Reason.TARGET_UNKNOWN,
        Reason.REQUEST_ID_REUSED,
        Reason.STREAM_PROTOCOL,
        Reason.CHUNK_TOO_LARGE,
        Reason.ARGUMENT_INVALID,
    }
)


def to_status(error: IngestError) -> status_pb2.Status:
    """The whole word: code, message, ErrorInfo, and BadRequest and RetryInfo where they belong."""
    code = CODES[error.reason]
    status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message=error.message)
    info = error_details_pb2.ErrorInfo(reason=str(error.reason), domain=DOMAIN, metadata=error.metadata)
    status.details.add().Pack(info)
    if error.reason in NAMING_A_FIELD:
        status.details.add().Pack(_bad_request(error))
    if error.retry_after_seconds is not None:
        fraction, seconds = math.modf(error.retry_after_seconds)
        delay = Duration(seconds=int(seconds), nanos=int(fraction * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def _bad_request(error: IngestError) -> error_details_pb2.BadRequest:
    """The wrong fields: the error's own first, then the file's other faults, as many as there is room for."""
    more: tuple[Violation, ...] = ()
    left_out = 0
    if isinstance(error, FormatInvalid):
        more, left_out = error.more, error.left_out
    listed = [Violation(error.field or "", error.message)]
    room_bytes = _MAX_VIOLATIONS_BYTES - _size_bytes(listed[0])
    for index, violation in enumerate(more):
        room_bytes -= _size_bytes(violation)
        if room_bytes < 0:
            left_out += len(more) - index
            break
        listed.append(violation)
    if left_out:
        last = listed[-1]
        listed[-1] = Violation(last.field, f"{last.description} And {left_out} more.")
    bad = error_details_pb2.BadRequest()
    for violation in listed:
        bad.field_violations.add(field=violation.field, description=violation.description)
    return bad


def _size_bytes(violation: Violation) -> int:
    return len(violation.field.encode()) + len(violation.description.encode()) + _FRAMING_BYTES

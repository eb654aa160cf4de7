"""The one place that maps the error tree to gRPC (design.md section 2, the table of reasons)."""

from __future__ import annotations

import math

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2

from ingest_service.vocabulary.errors import IngestError
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
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field or "", description=error.message
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after_seconds is not None:
        fraction, seconds = math.modf(error.retry_after_seconds)
        delay = Duration(seconds=int(seconds), nanos=int(fraction * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status

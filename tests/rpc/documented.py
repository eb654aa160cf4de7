"""The table of reasons of the design (section 2), written down once more: what each answer must carry.

Hand-copied on purpose: the service's own table is held against it. BAD_REQUEST: the answer names a field.
RETRY: it says how long to wait. A reason without a code appears in a Failure only.
"""

from __future__ import annotations

from dataclasses import dataclass

from grpc import StatusCode


@dataclass(frozen=True)
class Documented:
    """What a call that is refused for a reason answers with."""

    code: StatusCode | None
    names_a_field: bool = False
    says_when_to_retry: bool = False


_INVALID = Documented(StatusCode.INVALID_ARGUMENT)
_BAD_REQUEST = Documented(StatusCode.INVALID_ARGUMENT, names_a_field=True)
_RANGE = Documented(StatusCode.OUT_OF_RANGE)
_PRECONDITION = Documented(StatusCode.FAILED_PRECONDITION)
_NOT_FOUND = Documented(StatusCode.NOT_FOUND)
_EXHAUSTED = Documented(StatusCode.RESOURCE_EXHAUSTED)
_EXHAUSTED_RETRY = Documented(StatusCode.RESOURCE_EXHAUSTED, says_when_to_retry=True)
_UNAVAILABLE_RETRY = Documented(StatusCode.UNAVAILABLE, says_when_to_retry=True)
_DATA_LOSS = Documented(StatusCode.DATA_LOSS)
_FAILURE_ONLY = Documented(None)

DOCUMENTED: dict[str, Documented] = {
    "OFFSET_GAP": _RANGE,
    "SIZE_MISMATCH": _RANGE,
    "CHUNK_CHECKSUM_MISMATCH": Documented(StatusCode.ABORTED),
    "DIGEST_MISMATCH": _INVALID,
    "DIGEST_REQUIRED": _INVALID,
    "DIGEST_MALFORMED": _INVALID,
    "FORMAT_INVALID": _BAD_REQUEST,
    "NAME_INVALID": _BAD_REQUEST,
    "FILE_NAME_INVALID": _BAD_REQUEST,
    "SIZE_LIMIT": _BAD_REQUEST,
    "OPTION_UNSUPPORTED": _BAD_REQUEST,
    "TARGET_UNKNOWN": _BAD_REQUEST,
    "REQUEST_ID_REUSED": _BAD_REQUEST,
    "STREAM_PROTOCOL": _BAD_REQUEST,
    "CHUNK_TOO_LARGE": _BAD_REQUEST,
    "WRITER_SUPERSEDED": _PRECONDITION,
    "WRITER_BUSY": _UNAVAILABLE_RETRY,
    "UPLOAD_CLOSED": _PRECONDITION,
    "BYTES_MISSING": _PRECONDITION,
    "MODEL_BUSY": _PRECONDITION,
    "STORAGE_FULL": _EXHAUSTED,
    "QUOTA": _EXHAUSTED,
    "TOO_MANY_UPLOADS": _EXHAUSTED_RETRY,
    "TOO_MANY_WATCHES": _EXHAUSTED_RETRY,
    "INGEST_NOT_FOUND": _NOT_FOUND,
    "FILE_NOT_FOUND": _NOT_FOUND,
    "MODEL_NOT_FOUND": _NOT_FOUND,
    "UPLOAD_EXPIRED": _NOT_FOUND,
    "SEQUENCE_EXPIRED": _RANGE,
    "DRAINING": _UNAVAILABLE_RETRY,
    "BACKEND_DOWN": _UNAVAILABLE_RETRY,
    "UPLOAD_STALLED": _UNAVAILABLE_RETRY,
    "BLOB_CORRUPT": _DATA_LOSS,
    "STORAGE_FAILED": _DATA_LOSS,
    "TARGET_UNREACHABLE": _UNAVAILABLE_RETRY,
    "TARGET_REFUSED": _FAILURE_ONLY,
    "TARGET_BLOB_CORRUPT": _FAILURE_ONLY,
    "UPLOAD_INTERRUPTED": _FAILURE_ONLY,
    # Not in the design's table; errors.proto brings it.
    "ARGUMENT_INVALID": _BAD_REQUEST,
    "TARGET_LOST_MODEL": _FAILURE_ONLY,
}

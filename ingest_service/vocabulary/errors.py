"""The one error tree; `rpc/status.py` is the one place that maps it to gRPC.

IngestError
├── BadRequestError          the caller's words are wrong; names the field
│   ├── NameInvalid, FileNameInvalid, SizeLimit, OptionUnsupported, TargetUnknown, RequestIdReused
│   ├── DigestMalformed, DigestRequired, DigestMismatch, FormatInvalid, ArgumentInvalid
│   └── StreamProtocol, ChunkTooLarge
├── OffsetGap, SizeMismatch, ChunkChecksumMismatch
├── WriterSuperseded, WriterBusy, UploadClosed, UploadStalled, BytesMissing, ModelBusy
├── StorageFull, TooManyUploads, TooManyWatches
├── IngestNotFound, FileNotFound, ModelNotFound, UploadExpired, SequenceExpired
├── Draining (WatchRenewal), TargetUnreachable
├── BackendDown              nothing is lost; the same call works once the cause is gone
│   ├── DatabaseDown (DatabaseFull, DatabaseDamaged)
│   ├── StoreDown (StoreReplaced)
│   └── TooBusy
└── BlobCorrupt, StorageFailed

Each class has its reason and, as its docstring, what it says when nothing better is given. `metadata`
holds the reason's facts as errors.proto documents them; a message never repeats what an operating
system, a database or a library said: that goes to the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ingest_service.vocabulary.reasons import Reason


class IngestError(Exception):
    """The request could not be served."""

    reason: ClassVar[Reason]
    retry_after_seconds: ClassVar[float | None] = None

    def __init__(
        self,
        message: str | None = None,
        *,
        field: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        self.field = field
        self.metadata = dict(metadata or {})
        super().__init__(self.message)


class BadRequestError(IngestError):
    """The request is wrong."""


class NameInvalid(BadRequestError):
    """The model's name cannot be used."""

    reason = Reason.NAME_INVALID


class FileNameInvalid(BadRequestError):
    """The file's name cannot be used."""

    reason = Reason.FILE_NAME_INVALID


class SizeLimit(BadRequestError):
    """The file's size is outside what this service takes."""

    reason = Reason.SIZE_LIMIT


class OptionUnsupported(BadRequestError):
    """This service does not serve that option."""

    reason = Reason.OPTION_UNSUPPORTED


class TargetUnknown(BadRequestError):
    """No target of that name is configured."""

    reason = Reason.TARGET_UNKNOWN


class RequestIdReused(BadRequestError):
    """This request_id was used with another body."""

    reason = Reason.REQUEST_ID_REUSED


class DigestMalformed(BadRequestError):
    """A digest is `sha256:` and 64 lower-case hex digits."""

    reason = Reason.DIGEST_MALFORMED


class DigestRequired(BadRequestError):
    """Give the file's sha256, in CreateIngest or in finish."""

    reason = Reason.DIGEST_REQUIRED


class DigestMismatch(BadRequestError):
    """The bytes that arrived have another sha256 than the client gave."""

    reason = Reason.DIGEST_MISMATCH


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong beside the error's own: where, and in words what and what to do about it."""

    field: str
    description: str


class FormatInvalid(BadRequestError):
    """The bytes are no sane model file."""

    reason = Reason.FORMAT_INVALID

    def __init__(
        self,
        message: str | None = None,
        *,
        field: str | None = None,
        metadata: Mapping[str, str] | None = None,
        more: Sequence[Violation] = (),
        left_out: int = 0,
    ) -> None:
        super().__init__(message, field=field, metadata=metadata)
        #: The file's other faults, the first ones of them.
        self.more = tuple(more)
        #: How many faults there are beyond these.
        self.left_out = left_out

    def about(self, field: str) -> FormatInvalid:
        """The same, as the error of that field of a request."""
        return FormatInvalid(
            self.message, field=field, metadata=self.metadata, more=self.more, left_out=self.left_out
        )


class ArgumentInvalid(BadRequestError):
    """A field does not make sense."""

    reason = Reason.ARGUMENT_INVALID


class StreamProtocol(BadRequestError):
    """The messages of the upload came in the wrong order."""

    reason = Reason.STREAM_PROTOCOL


class ChunkTooLarge(BadRequestError):
    """The chunk holds more bytes than one chunk may."""

    reason = Reason.CHUNK_TOO_LARGE


class OffsetGap(IngestError):
    """The chunk starts beyond the bytes that have arrived; go on at committed_size."""

    reason = Reason.OFFSET_GAP


class SizeMismatch(IngestError):
    """The bytes are more or fewer than the file's declared size."""

    reason = Reason.SIZE_MISMATCH


class ChunkChecksumMismatch(IngestError):
    """The chunk's crc32c does not match its bytes; send it again from committed_size."""

    reason = Reason.CHUNK_CHECKSUM_MISMATCH


class WriterSuperseded(IngestError):
    """Another upload of this file took over."""

    reason = Reason.WRITER_SUPERSEDED


class WriterBusy(IngestError):
    """The former writer of this file has not let go yet."""

    reason = Reason.WRITER_BUSY
    retry_after_seconds = 2.0


class UploadClosed(IngestError):
    """This file takes no bytes any more."""

    reason = Reason.UPLOAD_CLOSED


class UploadStalled(IngestError):
    """The stream made no progress for too long."""

    reason = Reason.UPLOAD_STALLED
    retry_after_seconds = 1.0


class BytesMissing(IngestError):
    """Not all bytes of the ingest are stored."""

    reason = Reason.BYTES_MISSING


class ModelBusy(IngestError):
    """A deployment of this model is running."""

    reason = Reason.MODEL_BUSY


class StorageFull(IngestError):
    """The store has no room for this file."""

    reason = Reason.STORAGE_FULL


class TooManyUploads(IngestError):
    """Too many uploads are running."""

    reason = Reason.TOO_MANY_UPLOADS
    retry_after_seconds = 5.0


class TooManyWatches(IngestError):
    """Too many watches are running."""

    reason = Reason.TOO_MANY_WATCHES
    retry_after_seconds = 5.0


class IngestNotFound(IngestError):
    """There is no such ingest."""

    reason = Reason.INGEST_NOT_FOUND


class FileNotFound(IngestError):
    """The ingest has no such file."""

    reason = Reason.FILE_NOT_FOUND


class ModelNotFound(IngestError):
    """The catalog has no such model."""

    reason = Reason.MODEL_NOT_FOUND


class UploadExpired(IngestError):
    """The upload was given up for lack of progress."""

    reason = Reason.UPLOAD_EXPIRED


class SequenceExpired(IngestError):
    """The ingest has no events there."""

    reason = Reason.SEQUENCE_EXPIRED


class Draining(IngestError):
    """The service is shutting down; ask again."""

    reason = Reason.DRAINING
    retry_after_seconds = 2.0


class WatchRenewal(Draining):
    """This watch has lasted as long as one may; watch again from the last sequence, at once."""

    # Zero tells it from a service that goes away: nothing is wrong, and there is nothing to wait for.
    retry_after_seconds = 0.0


class BackendDown(IngestError):
    """The database or the store cannot be reached right now; ask again."""

    reason = Reason.BACKEND_DOWN
    retry_after_seconds = 2.0


class TooBusy(BackendDown):
    """Too many calls are being answered right now; ask again."""


class DatabaseDown(BackendDown):
    """The database cannot be used right now; nothing was lost. Ask again."""


class DatabaseFull(DatabaseDown):
    """The database's disk is full; nothing was lost. Ask again once the operator has made room."""


class DatabaseDamaged(DatabaseDown):
    """The database's file is damaged: the operator has to restore it. Stored bytes are where they were."""


class StoreDown(BackendDown):
    """The data directory cannot be used right now; nothing was lost. Ask again."""


class StoreReplaced(StoreDown):
    """Another store's data directory is there; nothing was written to it. Ask again once ours is mounted."""


class TargetUnreachable(IngestError):
    """A target could not do what it was asked; ask again."""

    reason = Reason.TARGET_UNREACHABLE
    retry_after_seconds = 5.0


class BlobCorrupt(IngestError):
    """Stored bytes no longer match their digest."""

    reason = Reason.BLOB_CORRUPT


class StorageFailed(IngestError):
    """The store failed to keep the bytes; those that were not committed are gone."""

    reason = Reason.STORAGE_FAILED

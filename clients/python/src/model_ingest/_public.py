"""Everything that is public; `model_ingest` takes it from here when it is first asked for."""

from __future__ import annotations

from model_ingest._client import AsyncClient
from model_ingest._connection import DEFAULT_SERVER
from model_ingest._errors import (
    BusyError,
    ChecksumError,
    ConnectionLostError,
    DigestError,
    FieldViolation,
    FileChangedError,
    FormatError,
    IngestCancelledError,
    IngestError,
    InvalidRequestError,
    LocalFileError,
    NoRoomError,
    NotAllowedError,
    NotFoundError,
    NotServedError,
    PreconditionError,
    RefusedError,
    ServerFaultError,
    StalledError,
    TargetError,
    UnreachableError,
    UploadInterruptedError,
)
from model_ingest._limits import Limits
from model_ingest._modelfile import Modelfile, read_modelfile
from model_ingest._status import from_ingest as error_of
from model_ingest._sync import Client
from model_ingest._updates import Accepted, Hashing, Moved, OnUpdate, Update, Waiting
from model_ingest.v1.catalog_service_pb2 import VerifyModelResponse
from model_ingest.v1.errors_pb2 import Failure, Reason
from model_ingest.v1.ingest_service_pb2 import Capabilities, FileSpec, WatchIngestResponse
from model_ingest.v1.resources_pb2 import CreateOptions, Deployment, Event, File, Ingest, Model, Target

__all__ = [
    "DEFAULT_SERVER",
    "Accepted",
    "AsyncClient",
    "BusyError",
    "Capabilities",
    "ChecksumError",
    "Client",
    "ConnectionLostError",
    "CreateOptions",
    "Deployment",
    "DigestError",
    "Event",
    "Failure",
    "FieldViolation",
    "File",
    "FileChangedError",
    "FileSpec",
    "FormatError",
    "Hashing",
    "Ingest",
    "IngestCancelledError",
    "IngestError",
    "InvalidRequestError",
    "Limits",
    "LocalFileError",
    "Model",
    "Modelfile",
    "Moved",
    "NoRoomError",
    "NotAllowedError",
    "NotFoundError",
    "NotServedError",
    "OnUpdate",
    "PreconditionError",
    "Reason",
    "RefusedError",
    "ServerFaultError",
    "StalledError",
    "Target",
    "TargetError",
    "UnreachableError",
    "Update",
    "UploadInterruptedError",
    "VerifyModelResponse",
    "Waiting",
    "WatchIngestResponse",
    "error_of",
    "read_modelfile",
]

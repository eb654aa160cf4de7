"""The blob store behind one narrow protocol (`base.py`); `local` keeps it in a directory."""

from ingest_service.storage.base import BlobReader, BlobStore, PartialFile
from ingest_service.storage.buffer import Buffer
from ingest_service.storage.direct import BLOCK_BYTES, DirectIo
from ingest_service.storage.executor import FileExecutor
from ingest_service.storage.hashing import Sha256
from ingest_service.storage.import_folder import Claim, ImportFolder
from ingest_service.storage.local import LocalBlobStore
from ingest_service.storage.local_quarantine import LocalQuarantine, QuarantinedCopy
from ingest_service.storage.local_scan import LocalScanner
from ingest_service.storage.placed import NotPlaced, PlacedBy
from ingest_service.storage.scan import BlobScan, BlobScanner
from ingest_service.storage.source_file import FileIdentity, SourceFile

__all__ = [
    "BLOCK_BYTES",
    "BlobReader",
    "BlobScan",
    "BlobScanner",
    "BlobStore",
    "Buffer",
    "Claim",
    "DirectIo",
    "FileExecutor",
    "FileIdentity",
    "ImportFolder",
    "LocalBlobStore",
    "LocalQuarantine",
    "LocalScanner",
    "NotPlaced",
    "PartialFile",
    "PlacedBy",
    "QuarantinedCopy",
    "Sha256",
    "SourceFile",
]

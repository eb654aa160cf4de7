"""The blob store behind one narrow protocol (`base.py`); `local` keeps it in a directory."""

from ingest_service.storage.base import BlobReader, BlobStore, PartialFile
from ingest_service.storage.executor import FileExecutor
from ingest_service.storage.hashing import Sha256
from ingest_service.storage.local import LocalBlobStore
from ingest_service.storage.local_scan import LocalScanner
from ingest_service.storage.placed import NotPlaced, PlacedBy
from ingest_service.storage.scan import BlobScan, BlobScanner

__all__ = [
    "BlobReader",
    "BlobScan",
    "BlobScanner",
    "BlobStore",
    "FileExecutor",
    "LocalBlobStore",
    "LocalScanner",
    "NotPlaced",
    "PartialFile",
    "PlacedBy",
    "Sha256",
]

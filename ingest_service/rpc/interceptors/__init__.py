"""Wrappers around every handler."""

from ingest_service.rpc.interceptors.bounds import BoundedRequests
from ingest_service.rpc.interceptors.errors import ErrorInterceptor
from ingest_service.rpc.interceptors.turns import SmallCallsFirst
from ingest_service.rpc.interceptors.uploads import UploadMessages

__all__ = ["BoundedRequests", "ErrorInterceptor", "SmallCallsFirst", "UploadMessages"]

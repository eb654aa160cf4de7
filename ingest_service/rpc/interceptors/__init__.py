"""Wrappers around every handler."""

from ingest_service.rpc.interceptors.errors import ErrorInterceptor

__all__ = ["ErrorInterceptor"]

"""A method of the API that this version does not serve yet."""

from __future__ import annotations


class NotServedYet(Exception):
    """Ends the call with UNIMPLEMENTED. Of our own, so that a library's NotImplementedError stays a fault."""

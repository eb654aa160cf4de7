"""Reading a refusal as a client does, and holding it against the documented table."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tests.rpc.documented import DOCUMENTED

#: What must never reach a client: paths, names of modules and classes, SQL, control characters.
_LEAK = re.compile(r"/tmp|/data|\.py\b|\.part|Traceback|Error\b|Exception|sqlite|asyncpg|SELECT|[\x00-\x1f]")


@dataclass(frozen=True)
class Refusal:
    """One refused call, its details unpacked."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    #: Fields of BadRequest; None without one.
    fields: tuple[str, ...] | None = None
    #: Of RetryInfo; None without one.
    retry_seconds: float | None = None


def read_status(status: status_pb2.Status) -> Refusal:
    """The status with its details unpacked; each kind may be there once."""
    values: dict[str, Any] = {}
    kinds = [detail.TypeName() for detail in status.details]
    assert len(kinds) == len(set(kinds)), kinds
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            assert info.domain == "model-ingest"
            values |= {"reason": info.reason, "metadata": dict(info.metadata)}
        elif detail.Unpack(bad):
            assert all(violation.description for violation in bad.field_violations)
            values["fields"] = tuple(violation.field for violation in bad.field_violations)
        elif detail.Unpack(retry):
            values["retry_seconds"] = retry.retry_delay.ToTimedelta().total_seconds()
        else:
            raise AssertionError(f"a detail that is not documented: {detail.TypeName()}")
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    return Refusal(code, status.message, **values)


def read_refusal(error: grpc.aio.AioRpcError) -> Refusal:
    """What the call ended with; fails if the message tells more than it should."""
    leak = _LEAK.search(error.details() or "")
    assert leak is None, f"{leak} in {error.details()!r}"
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # an AioRpcError serves, peers.md P4
    return Refusal(error.code(), error.details() or "") if status is None else read_status(status)


def check_documented(refusal: Refusal, reason: str) -> None:
    """Code, BadRequest and RetryInfo as the table has them for that reason."""
    documented = DOCUMENTED[reason]
    assert refusal.reason == reason, refusal
    assert refusal.code == documented.code, refusal
    assert bool(refusal.fields) == documented.names_a_field, refusal
    assert all(refusal.fields or ()), refusal
    assert (refusal.retry_seconds is not None) == documented.says_when_to_retry, refusal
    assert refusal.retry_seconds is None or refusal.retry_seconds > 0


async def error_of(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    """The error that the call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def refused(call: Awaitable[object], reason: str, field: str | None = None) -> Refusal:
    """The call ends as documented for `reason`, naming `field` if one is given."""
    refusal = read_refusal(await error_of(call))
    check_documented(refusal, reason)
    if field is not None:
        assert refusal.fields == (field,), refusal
    return refusal


async def refused_without_reason(call: Awaitable[object], code: grpc.StatusCode) -> Refusal:
    """The call ends with that bare code: what no reason can cover."""
    refusal = read_refusal(await error_of(call))
    assert refusal == Refusal(code, refusal.message)
    return refusal

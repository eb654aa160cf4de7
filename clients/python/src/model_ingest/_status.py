"""Builds the errors of `_errors` from what the server said."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from model_ingest._clean import printable
from model_ingest._errors import (
    BusyError,
    Facts,
    FieldViolation,
    IngestCancelledError,
    IngestError,
    NoRoomError,
    RefusedError,
    TargetError,
    UnreachableError,
)
from model_ingest._reasons import Rule, rule_for
from model_ingest.v1.errors_pb2 import Failure, Reason
from model_ingest.v1.resources_pb2 import Deployment, Ingest

DOMAIN = "model-ingest"
#: RetryIngest begins a deployment in one of these anew.
FAILED = frozenset({Deployment.STATE_FAILED, Deployment.STATE_LOST})
_CODE_WORD = re.compile(r"^[A-Z_]+: ")


def from_rpc_error(error: grpc.aio.AioRpcError, server: str, *, contacted: bool = True) -> IngestError:
    """The error for a failed call. `contacted` says whether the server has ever answered."""
    code = error.code()
    info, violations, retry_after_seconds = _details(error)
    reason = info.reason
    rule = rule_for(reason, code)
    kind = rule.error
    if kind is NoRoomError and retry_after_seconds is not None:
        # Exhausted for now only: the server says when to come back.
        kind = BusyError
    message = printable(error.details() or "") or code.name.lower().replace("_", " ")
    if not reason and code is grpc.StatusCode.UNAVAILABLE:
        kind = kind if contacted else UnreachableError
        message = f"{'lost' if contacted else 'cannot reach'} {server}: {_last_cause(message)}"
    elif not reason and code is grpc.StatusCode.DEADLINE_EXCEEDED:
        message = f"{server} did not answer in time"
    return kind(
        message,
        Facts(
            code=code,
            reason=reason,
            metadata=dict(info.metadata),
            violations=violations,
            retry_after_seconds=retry_after_seconds,
            diagnostics=rule.diagnostics,
        ),
    )


def from_ingest(ingest: Ingest) -> IngestError | None:
    """The error that a done ingest stands for; None if it ended well (STORED, READY) or has not ended."""
    if not ingest.done or ingest.state == Ingest.STATE_READY:
        return None
    replaced = _replaced(ingest)
    if ingest.state == Ingest.STATE_STORED or (replaced and not ingest.HasField("failure")):
        return replaced
    if ingest.state in {Ingest.STATE_CANCELLED, Ingest.STATE_EXPIRED}:
        return _given_up(ingest)
    failed = [d for d in ingest.deployments if d.state in FAILED]
    # One that builds upon a target's own model may have no files at all.
    has_parts = bool(ingest.files or ingest.deployments)
    stored = has_parts and all(f.state == f.STATE_STORED for f in ingest.files)
    if stored and failed:
        return _of_deployment(failed[0].failure, ingest, _each_but_the_last_word(failed))
    if ingest.HasField("failure"):
        # The cause. Files beside the one that failed were closed for it, and say only that.
        return from_failure(ingest.failure, RefusedError, ingest)
    of_files = [f.failure for f in ingest.files if f.HasField("failure")]
    return from_failure(of_files[0] if of_files else Failure(), RefusedError, ingest)


def _replaced(ingest: Ingest) -> IngestError | None:
    """Stored is well, unless it was meant for targets that a newer one goes to."""
    names = [d.target for d in ingest.deployments if d.state == Deployment.STATE_SUPERSEDED]
    if not names or any(d.state in FAILED for d in ingest.deployments):
        return None
    words = f"{ingest.model} is stored; a newer push of it goes to {', '.join(names)} instead"
    return TargetError(words, ingest=ingest)


def _given_up(ingest: Ingest) -> IngestError:
    word = "cancelled" if ingest.state == Ingest.STATE_CANCELLED else "given up for lack of progress"
    ready = [d.target for d in ingest.deployments if d.state == Deployment.STATE_READY]
    but = f"; {', '.join(ready)} had it by then and keeps it" if ready else ""
    return IngestCancelledError(f"{ingest.name} was {word}{but}", ingest=ingest)


def _each_but_the_last_word(failed: list[Deployment]) -> str:
    """What goes before the first one's own words: those of the others where they differ, and the names."""
    first = failed[0]
    same = [d.target for d in failed if d.failure.message == first.failure.message]
    others = "".join(
        f"target {d.target}: {printable(d.failure.message)} " for d in failed if d.target not in same
    )
    return f"{others}target {', '.join(same)}: "


def _of_deployment(failure: Failure, ingest: Ingest, prefix: str) -> IngestError:
    if failure.reason != Reason.OPTION_UNSUPPORTED:
        return from_failure(failure, TargetError, ingest, prefix=prefix)
    # The service took the request; it is that target's version of Ollama that cannot do it.
    advice = "run a version of Ollama that can, push without what the message names, or leave that target out"
    facts = Facts(reason="OPTION_UNSUPPORTED", metadata=dict(failure.metadata), diagnostics=advice)
    return TargetError(prefix + printable(failure.message), facts, ingest=ingest)


def from_failure(
    failure: Failure, otherwise: type[IngestError], ingest: Ingest | None = None, *, prefix: str = ""
) -> IngestError:
    """The error of a `Failure`; `otherwise` is its class where the reason is unknown to this client."""
    named = failure.reason and failure.reason in Reason.values()
    reason = Reason.Name(failure.reason) if named else ""
    rule = rule_for(reason, None) if reason else Rule(otherwise, "")
    message = printable(failure.message) or reason.lower().replace("_", " ") or "failed without a reason"
    facts = Facts(reason=reason, metadata=dict(failure.metadata), diagnostics=rule.diagnostics)
    return rule.error(prefix + message, facts, ingest=ingest)


def _details(
    error: grpc.aio.AioRpcError,
) -> tuple[error_details_pb2.ErrorInfo, tuple[FieldViolation, ...], float | None]:
    info = error_details_pb2.ErrorInfo()
    violations: list[FieldViolation] = []
    retry_after_seconds: float | None = None
    for detail in _status(error).details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            found = error_details_pb2.ErrorInfo.FromString(detail.value)
            # A proxy in between may add its own.
            info = found if found.domain == DOMAIN else info
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest.FromString(detail.value)
            violations.extend(
                FieldViolation(printable(v.field), printable(v.description)) for v in bad.field_violations
            )
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
            retry_after_seconds = max(0.0, delay.seconds + delay.nanos / 1e9)
    return info, tuple(violations), retry_after_seconds


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    from_call = cast("Callable[[Any], status_pb2.Status | None]", rpc_status.from_call)
    try:
        return from_call(error) or status_pb2.Status()
    except (ValueError, DecodeError):
        # Code or message differ from the details: somebody in between rewrote one of them. The
        # code is what every client sees, so it wins.
        return status_pb2.Status()


def _last_cause(message: str) -> str:
    """The end of grpc's long story: "Connection refused (111)" rather than every address tried."""
    return _CODE_WORD.sub("", message.rpartition("last error: ")[2])

"""google.rpc.Status and Failure become the right class with the right advice."""

from __future__ import annotations

import grpc
import model_ingest
import pytest
from model_ingest import (
    AsyncClient,
    BusyError,
    DigestError,
    IngestError,
    InvalidRequestError,
    NotServedError,
    RefusedError,
    ServerFaultError,
    TargetError,
    UploadInterruptedError,
    error_of,
)
from model_ingest._reasons import CODES, REASONS
from model_ingest._status import from_failure
from model_ingest.v1.errors_pb2 import Failure, Reason
from model_ingest.v1.resources_pb2 import Deployment, File, Ingest

from tests.client.scripted_server import Script, ingest, refuses


def test_every_reason_of_the_protos_is_in_the_table():
    assert set(REASONS) == set(Reason.keys()) - {"REASON_UNSPECIFIED"}


def test_every_code_but_ok_has_a_class():
    assert set(CODES) == set(grpc.StatusCode) - {grpc.StatusCode.OK}


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_every_reason_says_what_to_do_next(reason):
    error = from_failure(Failure(reason=Reason.Value(reason), message="m"), IngestError)
    assert type(error) is REASONS[reason].error
    assert error.diagnostics
    assert "\n" not in error.diagnostics
    assert error.exit_code in {3, 4, 5}


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = model_ingest._errors.__doc__ or ""
    for name, kind in vars(model_ingest._errors).items():
        if isinstance(kind, type) and issubclass(kind, IngestError):
            assert name in drawn
            assert getattr(model_ingest, name) is kind


async def test_details_are_read(script: Script, client: AsyncClient):
    script.on(
        "CreateIngest",
        refuses(
            grpc.StatusCode.INVALID_ARGUMENT,
            "DIGEST_MALFORMED",
            "no such digest",
            metadata={"actual": "x"},
            violations=[("files[0].sha256", "64 hex digits")],
        ),
    )
    with pytest.raises(DigestError) as caught:
        await client.create_ingest("m", [])
    error = caught.value
    assert (error.reason, error.code) == ("DIGEST_MALFORMED", grpc.StatusCode.INVALID_ARGUMENT)
    assert error.metadata == {"actual": "x"}
    assert [(v.field, v.description) for v in error.violations] == [("files[0].sha256", "64 hex digits")]
    assert str(error) == "no such digest"
    assert error.exit_code == 3


async def test_an_unknown_reason_is_treated_by_its_code(script: Script, client: AsyncClient):
    script.on("GetIngest", refuses(grpc.StatusCode.INVALID_ARGUMENT, "SOMETHING_NEW"))
    with pytest.raises(InvalidRequestError) as caught:
        await client.get_ingest("x")
    assert caught.value.reason == "SOMETHING_NEW"


async def test_no_details_at_all(script: Script, client: AsyncClient):
    script.on("GetIngest", refuses(grpc.StatusCode.INTERNAL, "", "fault 4711"))
    with pytest.raises(ServerFaultError, match="fault 4711"):
        await client.get_ingest("x")
    with pytest.raises(NotServedError):
        await client.list_targets()


async def test_a_message_cannot_steer_the_terminal(script: Script, client: AsyncClient):
    script.on("GetIngest", refuses(grpc.StatusCode.NOT_FOUND, "INGEST_NOT_FOUND", "no \x1b[31mred\x07\nline"))
    with pytest.raises(RefusedError, match=r"^no \[31mred line$"):
        await client.get_ingest("x")


async def test_a_unary_call_waits_as_the_server_asks(script: Script, client: AsyncClient):
    busy = refuses(grpc.StatusCode.UNAVAILABLE, "BACKEND_DOWN", retry_after_seconds=1)
    script.answers("GetIngest", busy, ingest())
    assert (await client.get_ingest("i1")).name == "ingests/i1"
    assert len(script.seen("GetIngest")) == 2


async def test_but_not_longer_than_its_deadline(script: Script, client: AsyncClient):
    script.answers("GetIngest", refuses(grpc.StatusCode.UNAVAILABLE, "DRAINING", retry_after_seconds=60))
    with pytest.raises(BusyError) as caught:
        await client.get_ingest("i1")
    assert caught.value.retry_after_seconds == 60
    assert caught.value.exit_code == 5


def test_exhausted_with_a_time_to_wait_is_busy():
    assert REASONS["TOO_MANY_UPLOADS"].error is BusyError


def _deployed(*states: Deployment.State.ValueType) -> Ingest:
    failure = Failure(reason=Reason.TARGET_REFUSED, message="unsupported architecture")
    one = ingest(Ingest.STATE_FAILED, done=True)
    for number, state in enumerate(states):
        deployment = one.deployments.add(target=f"t{number}", state=state)
        if state == Deployment.STATE_FAILED:
            deployment.failure.CopyFrom(failure)
    return one


def test_a_failed_target_is_exit_4():
    error = error_of(_deployed(Deployment.STATE_READY, Deployment.STATE_FAILED))
    assert isinstance(error, TargetError)
    assert error.message == "target t1: unsupported architecture"
    assert (error.reason, error.exit_code) == ("TARGET_REFUSED", 4)
    assert error.ingest is not None


def test_a_superseded_target_is_exit_4():
    assert isinstance(error_of(_deployed(Deployment.STATE_SUPERSEDED)), TargetError)


def test_a_failed_file_speaks_for_its_ingest():
    one = ingest(Ingest.STATE_FAILED, done=True)
    one.files[0].state = File.STATE_FAILED
    one.files[0].failure.CopyFrom(Failure(reason=Reason.UPLOAD_INTERRUPTED, message="broke off"))
    error = error_of(one)
    assert isinstance(error, UploadInterruptedError)
    assert error.exit_code == 5


@pytest.mark.parametrize("state", [Ingest.STATE_READY, Ingest.STATE_STORED])
def test_well_ended(state):
    assert error_of(ingest(state, done=True)) is None


def test_not_ended_is_no_error():
    assert error_of(ingest()) is None


@pytest.mark.parametrize("state", [Ingest.STATE_CANCELLED, Ingest.STATE_EXPIRED])
def test_cancelled_and_expired_are_refusals(state):
    error = error_of(ingest(state, done=True))
    assert error is not None
    assert error.exit_code == 3


def test_a_failure_without_a_known_reason():
    one = ingest(Ingest.STATE_FAILED, done=True, files=[])
    one.failure.message = "who knows"
    one.failure.reason = 4711  # type: ignore[assignment]
    error = error_of(one)
    assert error is not None
    assert (error.message, error.reason, error.exit_code) == ("who knows", "", 3)

"""One word, one meaning: the Reason enum, its comments, the service's table and its error tree agree."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from grpc import StatusCode
from model_ingest.v1 import errors_pb2
from model_ingest.v1.ingest_service_pb2 import GetCapabilitiesRequest

from ingest_service.rpc.status import CODES, to_status
from ingest_service.vocabulary.errors import Draining, IngestError
from ingest_service.vocabulary.reasons import Reason
from tests.rpc.documented import DOCUMENTED
from tests.rpc.refusals import check_documented, read_status
from tests.support.service import ROOT, RunningService

PROTO = ROOT / "protos/model_ingest/v1/errors.proto"
IN_PROTO = {name for name, number in errors_pb2.Reason.items() if number}
FAILURE_ONLY = {name for name, documented in DOCUMENTED.items() if documented.code is None}


def error_classes(base: type[IngestError] = IngestError) -> Iterator[type[IngestError]]:
    """Every class of the error tree that has a reason of its own; a finer kind of one is not another."""
    if "reason" in vars(base) and base is not IngestError:
        yield base
        return
    for child in base.__subclasses__():
        yield from error_classes(child)


def proto_comments() -> dict[str, str]:
    """Each value's comment in errors.proto, in one line."""
    body = PROTO.read_text().split("enum Reason {")[1].split("\n}")[0]
    comments: dict[str, str] = {}
    lines: list[str] = []
    for line in body.splitlines():
        if comment := re.fullmatch(r" *// (.*)", line):
            lines.append(comment[1])
        elif value := re.fullmatch(r" *([A-Z_]+) = \d+;", line):
            comments[value[1]] = " ".join(lines)
            lines = []
    return comments


def test_the_proto_the_service_and_the_design_have_the_same_reasons() -> None:
    assert IN_PROTO == {str(reason) for reason in Reason} == set(DOCUMENTED)


def test_every_reason_has_the_code_of_the_design() -> None:
    assert {str(reason): code for reason, code in CODES.items()} == {
        name: documented.code for name, documented in DOCUMENTED.items() if documented.code
    }


def test_only_reasons_of_a_failure_have_no_code() -> None:
    assert IN_PROTO - {str(reason) for reason in CODES} == FAILURE_ONLY


def test_there_is_one_class_for_every_reason_that_this_version_can_give() -> None:
    reasons = [str(kind.reason) for kind in error_classes()]
    assert len(reasons) == len(set(reasons))
    # Quotas come with authentication.
    assert set(reasons) == IN_PROTO - FAILURE_ONLY - {"QUOTA"}


@pytest.mark.parametrize("kind", list(error_classes()), ids=lambda kind: kind.__name__)
def test_every_class_becomes_a_status_as_the_design_has_it(kind: type[IngestError]) -> None:
    error = kind("What happened.", field="the.field", metadata={"a": "b"})
    refusal = read_status(to_status(error))
    check_documented(refusal, str(kind.reason))
    assert refusal.message == "What happened."
    assert refusal.metadata == {"a": "b"}
    assert refusal.fields in (None, ("the.field",))


@pytest.mark.parametrize("kind", list(error_classes()), ids=lambda kind: kind.__name__)
def test_every_class_has_something_to_say_for_itself(kind: type[IngestError]) -> None:
    message = read_status(to_status(kind())).message
    assert message.endswith(".")
    assert "\n" not in message


def test_every_comment_in_the_proto_starts_with_what_a_call_answers() -> None:
    comments = proto_comments()
    assert set(comments) == IN_PROTO | {"REASON_UNSPECIFIED"}
    for name, documented in DOCUMENTED.items():
        if documented.code is None:
            assert comments[name].startswith("In Failure only: "), name
            continue
        details = [
            detail
            for detail, is_there in (
                ("BadRequest", documented.names_a_field),
                ("RetryInfo", documented.says_when_to_retry),
            )
            if is_there
        ]
        with_details = f" with {' and '.join(details)}" if details else ""
        assert comments[name].startswith(f"{documented.code.name}{with_details}. "), name


def test_every_comment_of_a_refusal_says_what_the_client_does() -> None:
    for name, comment in proto_comments().items():
        if DOCUMENTED.get(name, DOCUMENTED["QUOTA"]).code is not None and name != "REASON_UNSPECIFIED":
            assert re.search(r"Client: .*\.$", comment), name


async def test_capabilities_list_every_reason(service: RunningService) -> None:
    capabilities = await service.ingests.GetCapabilities(GetCapabilitiesRequest())
    assert {errors_pb2.Reason.Name(reason) for reason in capabilities.reasons} == IN_PROTO


def test_codes_are_codes_of_an_error() -> None:
    assert StatusCode.OK not in CODES.values()
    assert StatusCode.UNKNOWN not in CODES.values()


def test_a_delay_of_one_and_a_half_seconds_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Draining, "retry_after_seconds", 1.5)
    assert read_status(to_status(Draining())).retry_seconds == 1.5

"""The error tree and the reasons of the protos are one and the same table."""

from __future__ import annotations

from collections.abc import Iterator

from model_ingest.v1 import errors_pb2

from ingest_service.vocabulary.errors import BadRequestError, IngestError
from ingest_service.vocabulary.reasons import Reason


def leaves(kind: type[IngestError] = IngestError) -> Iterator[type[IngestError]]:
    for subclass in kind.__subclasses__():
        if subclass is BadRequestError:
            yield from leaves(subclass)
        elif subclass.__module__ == IngestError.__module__:
            yield subclass


def test_reasons_are_those_of_the_protos() -> None:
    assert {str(reason) for reason in Reason} == set(errors_pb2.Reason.keys()) - {"REASON_UNSPECIFIED"}


def test_each_error_has_a_reason_of_its_own() -> None:
    reasons = [error.reason for error in leaves()]
    assert len(reasons) > 30
    assert len(set(reasons)) == len(reasons)


def test_each_error_says_something_by_itself_and_something_better_if_it_is_told() -> None:
    for kind in leaves():
        assert kind().message.endswith(".")
        told = kind("Better.", field="a.b", metadata={"key": "value"})
        assert (told.message, told.field, told.metadata) == ("Better.", "a.b", {"key": "value"})
        assert str(told) == "Better."

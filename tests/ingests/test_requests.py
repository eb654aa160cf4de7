"""What is refused before anything is looked up, and what makes two requests the same."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from ingest_service.ingests.limits import Limits
from ingest_service.ingests.requests import NewFile, NewIngest, check_new_ingest
from ingest_service.vocabulary.errors import (
    ArgumentInvalid,
    DigestMalformed,
    FileNameInvalid,
    IngestError,
    NameInvalid,
    OptionUnsupported,
    SizeLimit,
    TargetUnknown,
)
from ingest_service.vocabulary.states import FileRole

FILE = NewFile("model.gguf", FileRole.MODEL, 100, f"sha256:{'a' * 64}")
GOOD = NewIngest(model="foo", files=(FILE,), targets=("one",), request_id="id")
LIMITS = Limits(max_file_bytes=1000)

#: For each field another value than GOOD's.
OTHER: dict[str, Any] = {
    "model": "bar",
    "files": (FILE, FILE),
    "options": {"template": "x"},
    "targets": ("two",),
    "store_only": True,
    "request_id": "another",
}
OTHER_FILE: dict[str, Any] = {
    "file_name": "other.gguf",
    "role": FileRole.ADAPTER,
    "size_bytes": 101,
    "sha256": f"sha256:{'b' * 64}",
}


def test_every_field_is_tried_here() -> None:
    assert set(OTHER) == {field.name for field in fields(NewIngest)}
    assert set(OTHER_FILE) == {field.name for field in fields(NewFile)}


def test_the_same_body_has_the_same_fingerprint_for_ever() -> None:
    again = NewIngest(model="foo", files=[replace(FILE)], targets=["one"], request_id="id")
    assert again.fingerprint() == GOOD.fingerprint()
    # It is kept in the database: a new version of the service must find the same.
    assert GOOD.fingerprint() == "3519cc14fcd4515802052c5a495dcf34810c6ac401f2f414e4d42995bc861d4c"


def test_the_order_of_options_does_not_matter() -> None:
    one = replace(GOOD, options={"a": 1, "b": {"c": 2, "d": 3}})
    other = replace(GOOD, options={"b": {"d": 3, "c": 2}, "a": 1})
    assert one.fingerprint() == other.fingerprint()


def test_the_request_id_is_not_part_of_the_body() -> None:
    assert replace(GOOD, request_id="another").fingerprint() == GOOD.fingerprint()


def test_every_other_field_is_part_of_the_body() -> None:
    changed = [replace(GOOD, **{name: value}) for name, value in OTHER.items() if name != "request_id"]
    changed += [replace(GOOD, files=(replace(FILE, **{name: value}),)) for name, value in OTHER_FILE.items()]
    changed += [replace(GOOD, options=options) for options in ({"a": 1}, {"a": "1"}, {"a": [1]}, {"b": 1})]
    changed += [
        replace(GOOD, targets=targets) for targets in ((), ("one", "two"), ("two", "one"), ("onetwo",))
    ]
    prints = [request.fingerprint() for request in [GOOD, *changed]]
    assert len(set(prints)) == len(prints)


def test_a_good_request_passes_and_its_name_is_answered() -> None:
    assert check_new_ingest(GOOD, LIMITS, ["one", "two"]).canonical == "foo:latest"


def changed_file(**values: Any) -> NewIngest:
    return replace(GOOD, files=(replace(FILE, **values),))


@pytest.mark.parametrize(
    ("request_", "error", "field"),
    [
        (replace(GOOD, model="a/b/c"), NameInvalid, "model"),
        (replace(GOOD, request_id="x" * 129), ArgumentInvalid, "request_id"),
        (replace(GOOD, request_id="a\nb"), ArgumentInvalid, "request_id"),
        (replace(GOOD, options={"template": "x" * 2**21}), OptionUnsupported, "options.template"),
        (replace(GOOD, options={"from": "llama"}), OptionUnsupported, "options.from"),
        (replace(GOOD, files=()), OptionUnsupported, "files"),
        (replace(GOOD, files=(FILE, FILE)), FileNameInvalid, "files[1].file_name"),
        (
            replace(GOOD, files=(FILE, replace(FILE, file_name="MODEL.GGUF"))),
            FileNameInvalid,
            "files[1].file_name",
        ),
        (changed_file(file_name="a/b"), FileNameInvalid, "files[0].file_name"),
        (changed_file(role=FileRole.ADAPTER), OptionUnsupported, "files"),
        (changed_file(size_bytes=0), SizeLimit, "files[0].size_bytes"),
        (changed_file(size_bytes=-1), SizeLimit, "files[0].size_bytes"),
        (changed_file(size_bytes=1001), SizeLimit, "files[0].size_bytes"),
        (changed_file(sha256="sha256:x"), DigestMalformed, "files[0].sha256"),
        (replace(GOOD, targets=("one", "three")), TargetUnknown, "targets[1]"),
        (replace(GOOD, store_only=True), ArgumentInvalid, "store_only"),
    ],
)
def test_a_bad_request_is_refused_by_the_name_of_its_field(
    request_: NewIngest, error: type[IngestError], field: str
) -> None:
    with pytest.raises(error) as caught:
        check_new_ingest(request_, LIMITS, ["one", "two"])
    assert caught.value.field == field


def test_limits_themselves_are_allowed() -> None:
    for request in (
        changed_file(size_bytes=1000),
        changed_file(size_bytes=1),
        replace(GOOD, request_id="x" * 128),
    ):
        check_new_ingest(request, LIMITS, ["one", "two"])


@pytest.mark.parametrize(("store_only", "targets"), [(True, ["one"]), (False, [])])
def test_what_builds_upon_a_targets_model_needs_a_target(store_only: bool, targets: list[str]) -> None:
    request = NewIngest(model="foo", files=(), options={"from": "llama"}, store_only=store_only)
    limits = replace(LIMITS, allow_from=True)
    with pytest.raises(OptionUnsupported) as caught:
        check_new_ingest(request, limits, targets)
    assert caught.value.field == "options.from"
    check_new_ingest(replace(request, store_only=False), limits, ["one"])

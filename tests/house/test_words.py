"""Text from outside, made safe (security.md C4), and digests, which have one spelling (R1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_service.vocabulary.digests import digest_of_hex, parse_digest
from ingest_service.vocabulary.errors import DigestMalformed, IngestError
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.text import clean

_GOOD = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain words", "plain words"),
        ("  many \t\n spaces  ", "many spaces"),
        ("a\x00b\x1b[31mc\x7f\x9bd", "a b [31mc d"),
        ("left\u202eright\u2066\u200b", "left right"),
        ("line\u2028and\u2029paragraph", "line and paragraph"),
        ("\ud800lone", "lone"),
        ("Grüße, 模型", "Grüße, 模型"),
        ("", ""),
    ],
)
def test_controls_go_and_words_stay(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@pytest.mark.parametrize("letter", ["a", "ü", "模", "😀"])
def test_it_is_cut_within_its_bytes_and_says_so(letter: str) -> None:
    for count in (1, 5, 24, 25, 33, 34, 50, 51, 99, 100, 101, 10_000):
        cut = clean(letter * count, 100)
        assert len(cut.encode()) <= 100
        assert cut.endswith("…") == (len(letter.encode()) * count > 100)


@given(st.text(max_size=300), st.integers(3, 200))
def test_whatever_comes_what_is_left_is_short_printable_and_stays_so(text: str, limit: int) -> None:
    cleaned = clean(text, limit)
    assert len(cleaned.encode()) <= limit
    assert cleaned.isprintable()
    assert clean(cleaned, limit) == cleaned


def test_a_digest_is_taken_as_it_is() -> None:
    assert parse_digest(_GOOD, field="x") == _GOOD
    assert digest_of_hex(_GOOD.partition(":")[2]) == _GOOD


@pytest.mark.parametrize(
    "text",
    [
        "",
        _GOOD[:-1],
        _GOOD + "0",
        _GOOD + "\n",
        _GOOD[:-1] + "\n",
        _GOOD.upper(),
        _GOOD.replace("a", "A"),
        _GOOD.replace("a", "g"),
        _GOOD.replace("0", "\u0660"),
        _GOOD.replace("sha256:", "sha512:"),
        _GOOD.replace("sha256:", "sha256-"),
        " " + _GOOD[:-1],
        "sha256:../" + "0" * 61,
    ],
    ids=ascii,
)
def test_nothing_else_is_a_digest(text: str) -> None:
    with pytest.raises(DigestMalformed) as caught:
        parse_digest(text, field="files[0].sha256")
    assert caught.value.field == "files[0].sha256"


def _leaves(of: type[IngestError]) -> list[type[IngestError]]:
    below = [leaf for child in of.__subclasses__() for leaf in _leaves(child)]
    return below or [of]


def test_each_error_has_its_own_reason_and_says_something() -> None:
    leaves = _leaves(IngestError)
    # One whose remedy alone is special has the reason of what it is a kind of.
    own = {next(kind for kind in leaf.__mro__ if "reason" in vars(kind)): leaf.reason for leaf in leaves}
    assert len(set(own.values())) == len(own)
    for leaf in leaves:
        message = leaf().message
        assert message
        assert message.isprintable()
    in_failures_only = {
        Reason.TARGET_REFUSED,
        Reason.TARGET_BLOB_CORRUPT,
        Reason.UPLOAD_INTERRUPTED,
        Reason.TARGET_LOST_MODEL,
    }
    # QUOTA comes with a later issue.
    assert set(Reason) - set(own.values()) == {*in_failures_only, Reason.QUOTA}

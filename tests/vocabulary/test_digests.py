"""A digest is `sha256:` and 64 lower-case hex digits; everything else is refused by name of its field."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_service.vocabulary.digests import digest_of_hex, parse_digest
from ingest_service.vocabulary.errors import DigestMalformed

GOOD = f"sha256:{'0123456789abcdef' * 4}"


@given(st.binary())
def test_what_hashlib_says_is_a_digest(data: bytes) -> None:
    text = digest_of_hex(hashlib.sha256(data).hexdigest())
    assert parse_digest(text, field="x") == text


@pytest.mark.parametrize(
    "text",
    [
        "", "sha256:", GOOD.removeprefix("sha256:"), GOOD.upper(), GOOD.replace("a", "A"), GOOD[:-1],
        GOOD + "0", GOOD + "\n", " " + GOOD, GOOD[:-1] + "g", GOOD.replace("sha256", "sha512"),
        GOOD.replace(":", "-"),
        f"sha256:{'٣' * 64}", f"sha256:{'../' * 21}a", GOOD[:-1] + "\0", GOOD * 1000,
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(DigestMalformed) as caught:
        parse_digest(text, field="files[0].sha256")
    assert caught.value.field == "files[0].sha256"
    assert len(caught.value.message) < 200


@given(st.text(max_size=80))
def test_no_text_slips_through(text: str) -> None:
    try:
        assert parse_digest(text, field="x") == text
    except DigestMalformed:
        return
    assert text.isascii()
    assert len(text) == 71

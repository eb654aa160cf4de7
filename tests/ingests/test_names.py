"""Names from clients: exactly Ollama's grammar less host and reserved tags, and which names are the same."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_service.ingests.names import check_file_name, parse_model_name
from ingest_service.vocabulary.errors import FileNameInvalid, NameInvalid

#: Written from ollama-contract.md 3.6, not from the code. `..` is refused besides: it names no model that
#: anybody has, and no path that anybody should get.
PART = r"[A-Za-z0-9_][A-Za-z0-9_\-.]{0,79}"
NAMESPACE = r"[A-Za-z0-9_][A-Za-z0-9_\-]{0,79}"
GRAMMAR = re.compile(rf"(?:(?P<namespace>{NAMESPACE})/)?(?P<model>{PART})(?::(?P<tag>{PART}))?", re.ASCII)


def expected(text: str) -> tuple[str, str] | None:
    """Display and canonical name; None for a name that is to be refused."""
    found = GRAMMAR.fullmatch(text)
    if found is None or ".." in text:
        return None
    tag = found["tag"] or "latest"
    if re.fullmatch(r"(.*-)?cloud|local", tag, re.IGNORECASE):
        return None
    shown = text if found["tag"] else f"{text}:latest"
    namespace = (found["namespace"] or "library").lower()
    prefix = "" if namespace == "library" else f"{namespace}/"
    return shown, f"{prefix}{found['model'].lower()}:{tag.lower()}"


PIECES = st.sampled_from(
    ["a", "Z", "0", "_", "-", ".", "..", "/", ":", "library", "LIBRARY", "latest", "cloud", "local", "-cloud",
     "Cloud", "Local", "llama3.2", "registry.ollama.ai", "http://", "@sha256:", " ", "\n", "\0", "é",
     "\u017f", "\u212a",
     "x" * 79, "x" * 80, "x" * 81, "%2e", "\\", "\u202e", "🙂"]
)  # fmt: skip


@given(
    st.one_of(st.lists(PIECES, max_size=7).map("".join), st.from_regex(GRAMMAR, fullmatch=True), st.text())
)
def test_a_model_name_is_taken_or_refused_as_the_grammar_says(text: str) -> None:
    right = expected(text)
    if right is None:
        with pytest.raises(NameInvalid) as caught:
            parse_model_name(text, field="model")
        assert caught.value.field == "model"
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 400
        return
    name = parse_model_name(text)
    assert (name.display, name.canonical) == right
    # What the catalog calls it is a name again, of the same model.
    assert parse_model_name(name.canonical).canonical == name.canonical
    assert parse_model_name(text.upper()).canonical == name.canonical


@pytest.mark.parametrize(
    "text",
    [
        "", "a:", ":a", "/b", "a/", "a//b", "../a", "a/../b", "a/b/c", "registry.ollama.ai/library/a",
        "host:80/a/b", "http://a", "a@sha256:0", "-a", ".a", "a:-b", "a:b:c", "a b", "a\n", "\x1b[31ma",
        "a\0", "modèle", "a:cloud", "a:LOCAL", "a:70b-cloud", "a:70b-CLOUD", "x" * 81, "x" * 10_000,
        f"a:{'x' * 81}", f"{'x' * 81}/a", "n.s/a",
    ],
)  # fmt: skip
def test_a_bad_model_name_is_refused(text: str) -> None:
    assert expected(text) is None
    with pytest.raises(NameInvalid):
        parse_model_name(text)


@pytest.mark.parametrize("text", ["registry.ollama.ai/library/a", "example.com/a", "a/b/c"])
def test_a_name_with_a_host_is_refused_as_such(text: str) -> None:
    with pytest.raises(NameInvalid, match=r"model\[:tag\].* no host: the targets decide where it goes"):
        parse_model_name(text)


@pytest.mark.parametrize(
    ("text", "display", "canonical"),
    [
        ("Foo", "Foo:latest", "foo:latest"),
        ("foo:LATEST", "foo:LATEST", "foo:latest"),
        ("library/FOO", "library/FOO:latest", "foo:latest"),
        ("Me/Foo:7B", "Me/Foo:7B", "me/foo:7b"),
        ("library", "library:latest", "library:latest"),
        ("foo:cloudy", "foo:cloudy", "foo:cloudy"),
        ("cloud", "cloud:latest", "cloud:latest"),
        (f"{'n' * 80}/{'m' * 80}:{'t' * 80}",) * 3,
    ],
)
def test_names_that_mean_one_model_are_one(text: str, display: str, canonical: str) -> None:
    name = parse_model_name(text)
    assert (name.display, name.canonical) == (display, canonical)


@given(
    st.one_of(
        st.text(max_size=300),
        st.text(alphabet="aZ0_-./\\ \0\n", max_size=10),
        st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._\-]{0,300}", fullmatch=True),
    )
)
def test_a_file_name_is_ascii_without_a_slash_and_short(text: str) -> None:
    good = (
        1 <= len(text) <= 255
        and all(c.isascii() and (c.isalnum() or c in "._-") for c in text)
        and text[0] not in ".-"
    )
    if good:
        assert check_file_name(text, field="f") == text
        return
    with pytest.raises(FileNameInvalid) as caught:
        check_file_name(text, field="f")
    assert caught.value.field == "f"
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a/b", "/a", "a\\b", "-rf", ".hidden", "a\n", "é", "a" * 256]
)
def test_a_bad_file_name_is_refused(text: str) -> None:
    with pytest.raises(FileNameInvalid):
        check_file_name(text, field="f")

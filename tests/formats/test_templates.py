"""Chat templates: what breaks out (C1), what takes engines down (C6), and what must be left alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_service.formats.templates import check_template
from tests.formats.template_rows import BOMBS, ESCAPES, SOUND


def rules_of(template: str) -> list[str]:
    return [refusal.rule for refusal in check_template(template).refusals]


@pytest.mark.extended_when("mro", "frame in a format", "default of float", "sum of lists", "filling of slice")
@pytest.mark.extended_when(
    "default of pop", "default of groupby", "setdefault", "fromkeys", "filled up", "indented"
)
@pytest.mark.extended_when("cycler's items", "dict of a dictionary", "namespace of pairs", "update by name")
@pytest.mark.extended_when(
    "groupby in map", "spread names", "loop's next item", "values of kwargs", "translated"
)
@pytest.mark.extended_when("kept method of a list", "call block by name", "percent around an unknown text")
@pytest.mark.parametrize("template", ESCAPES.values(), ids=ESCAPES)
def test_what_reaches_an_internal_attribute_is_refused(template: str) -> None:
    assert rules_of(template) == ["C1"]


@pytest.mark.extended_when("doublings of lists")
@pytest.mark.parametrize("template", BOMBS.values(), ids=BOMBS)
def test_what_takes_an_engine_down_is_refused(template: str) -> None:
    assert rules_of(template) == ["C6"]


@pytest.mark.extended_when("many appended texts", "long table", "long list")
@pytest.mark.parametrize("template", SOUND.values(), ids=SOUND)
def test_what_real_templates_do_passes(template: str) -> None:
    verdict = check_template(template)
    assert (verdict.refusals, verdict.warnings) == ((), ())


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% foo %}{{ m }}{% endfoo %}", "tags that not every engine knows: endfoo, foo"),
        ("{{ m|foo }}", "filters that not every engine knows: foo"),
        ("{{ m is foo }}", "tests that not every engine knows: foo"),
        ("{% if %}", "cannot be parsed"),
        ("{{ '" + "9" * 5_000, "cannot be parsed"),
    ],
)
def test_what_not_every_engine_reads_is_a_warning(template: str, said: str) -> None:
    verdict = check_template(template)
    assert verdict.refusals == ()
    assert said in verdict.warnings[0]


# fmt: off
# ruff: noqa: E501
_PIECES = st.sampled_from(
    ["{{", "}}", "{%", "%}", "{#", "#}", "(", ")", "[", "]", "{", "}", ":", ",", ".", "|", "~", "+", "-", "*", "**",
     "%", "/", "//", "=", "==", "<", "'", '"', "\\", "\\x5f", "\\N{", "_", "__class__", "'__'", "'a'", "0", "1",
     "99999999", "0x", "1e9", "9" * 5_000, "a", "b", "ns", "m", "x", "set ", "for ", " in ", "if ", "elif ", "else",
     "endif", "endfor", "macro ", "endmacro", "call", "endcall", "filter ", "endset", "not ", "and ", "or ", "is ",
     "range", "namespace", "caller", "loop", "join", "format", "map", "attr", "'attr'", "attribute=", "list",
     "replace", "reverse", "first", "raw", "endraw", "generation", "with ", "\n", " ", "\0", "\ud800"]
)
_STATEMENTS = st.sampled_from(
    ["{% set a = b %}", "{% set b = a ~ a %}", "{% set a = 'x' ~ b %}", "{% set ns = namespace(a='_') %}",
     "{% set ns.a = ns.a + a %}", "{% for a in b %}", "{% endfor %}", "{% if a %}", "{% endif %}", "{{ a[b] }}",
     "{{ a|join(b) }}", "{{ '%s%s' % (a, b) }}", "{% macro m(a) %}", "{% endmacro %}", "{{ m(m) }}", "{{ a * b }}",
     "{% set a = [a, 'b', 3] %}", "{% set b = {'a': a} %}", "{% set a = b.values()|list %}", "{{ a[1:][::-1] }}",
     "{% set a %}", "{% endset %}", "{% set b = a|map('replace', 'a', b)|list %}", "{{ range(a, 9) }}"]
)
# fmt: on


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(
        st.lists(_PIECES, max_size=60).map("".join),
        st.lists(_PIECES, max_size=40).map(lambda pieces: "{{ " + "".join(pieces) + " }}"),
        st.lists(_STATEMENTS, max_size=30).map("".join),
        st.text(max_size=200),
    )
)
def test_any_text_gets_a_verdict(template: str) -> None:
    verdict = check_template(template)
    assert all(refusal.rule in ("C1", "C6") for refusal in verdict.refusals)
    assert all(text.isprintable() for text in verdict.warnings + tuple(r.message for r in verdict.refusals))

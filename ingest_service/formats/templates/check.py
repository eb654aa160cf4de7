"""One template's verdict."""

from __future__ import annotations

from dataclasses import dataclass

from jinja2 import nodes

from ingest_service.formats.faults import refuse
from ingest_service.formats.templates.cost import find_bombs
from ingest_service.formats.templates.evaluate import evaluate
from ingest_service.formats.templates.expressions import TooMuch
from ingest_service.formats.templates.scan import TooDeep, scan
from ingest_service.formats.templates.syntax import KNOWN_FILTERS, KNOWN_TESTS, Unreadable, parse
from ingest_service.vocabulary.text import clean

#: Filters and tests that transformers, llama.cpp or vLLM add to Jinja2's.
_MORE = frozenset({"from_json", "fromjson", "strftime_now"})
_MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class Refusal:
    """The rule, C1 or C6, and why, for people."""

    rule: str
    message: str


@dataclass(frozen=True, slots=True)
class TemplateVerdict:
    """What speaks against a template."""

    refusals: tuple[Refusal, ...] = ()
    warnings: tuple[str, ...] = ()


def check_template(text: str) -> TemplateVerdict:
    """Judges a template without rendering it. Never raises; the work is bounded by the text's length."""
    try:
        counts = scan(text)
    except TooDeep as error:
        return _refused("C6", f"The template nests too deep ({error}).")
    try:
        tree, unknown_tags = parse(text)
        return _judged(tree, unknown_tags)
    except Unreadable as error:
        if counts.suspect:
            return _refused(
                "C1", f"The template cannot be parsed ({error}), and has {counts.suspect!r} in its code."
            )
        return TemplateVerdict(warnings=(f"The template cannot be parsed: {clean(str(error), 200)}",))
    except TooMuch:
        return _refused("C6", "The template has its variables take more values than can be judged.")
    except RecursionError:
        return _refused("C6", "The template nests too deep to be judged.")


def warnings_of(text: str, key: str, offset: int | None, *, refuse_unsafe: bool) -> list[str]:
    """What is said of the template under `key`, which begins at byte `offset`. Raises FormatFault for what C1
    and C6 refuse; where that is allowed, it is a warning too.
    """
    verdict = check_template(text)
    if refuse_unsafe and verdict.refusals:
        first = verdict.refusals[0]
        refuse(first.rule, offset, key, first.message)
    return [f"{key}: {words}" for words in (*(one.message for one in verdict.refusals), *verdict.warnings)]


def _judged(tree: nodes.Template, unknown_tags: frozenset[str]) -> TemplateVerdict:
    found = evaluate(tree)
    refusals = [Refusal("C1", clean(f"The template reaches {what}.", 300)) for what in found.escapes[:1]]
    bombs = found.bombs or find_bombs(tree, found)
    refusals += [
        Refusal("C6", clean(f"The template cannot be rendered safely: {what}.", 300)) for what in bombs[:1]
    ]
    filters = {node.name for node in tree.find_all(nodes.Filter)} - KNOWN_FILTERS - _MORE
    tests = {node.name for node in tree.find_all(nodes.Test)} - KNOWN_TESTS - _MORE
    warnings = [
        clean(
            f"The template uses {kind} that not every engine knows: {', '.join(sorted(names)[:_MAX_NAMED])}.",
            300,
        )
        for kind, names in (("tags", unknown_tags), ("filters", filters), ("tests", tests))
        if names
    ]
    return TemplateVerdict(tuple(refusals), tuple(warnings))


def _refused(rule: str, message: str) -> TemplateVerdict:
    return TemplateVerdict((Refusal(rule, clean(message, 300)),))

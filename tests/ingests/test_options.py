"""The allow-list of create options: names, types and ranges, each refusal naming its field."""

from __future__ import annotations

from typing import Any

import pytest

from ingest_service.ingests.options import MAX_TEXT_BYTES, PARAMETERS, check_options
from ingest_service.vocabulary.errors import OptionUnsupported

#: For each parameter what it may be: whatever Ollama's types hold.
_WHOLE_ENDS: list[Any] = [0, 4096.0, -(2**31), 2**31 - 1]
_NO_WHOLE: list[Any] = [1.5, 2**31, -(2**31) - 1, "4096", True, [1], float("inf"), float("nan")]
_ANY_ENDS: list[Any] = [0, -1.5, 0.7, 100, 3.4e38]
_NO_NUMBER: list[Any] = ["1", True, None, 1e300, float("nan")]
GOOD: dict[str, list[Any]] = {
    "use_mmap": [True, False],
    "seed": [-(2.0**63), -1, 2**32, 2.0**63],
    "stop": [[], [""], ["<|im_end|>"], ["a", "b"], ["x"] * 1000, ["x" * 100_000]],
}
BAD: dict[str, list[Any]] = {
    "use_mmap": [1, 0.0, "true", None],
    "seed": [2.0**64, -(2.0**64), 0.5],
    "stop": ["text", [1], ["a", None], ["x"] * 1001],
}
for _name in sorted(PARAMETERS.keys() - GOOD.keys()):
    _is_whole = _name.startswith(("num_", "main_", "draft_")) or _name in {"top_k", "repeat_last_n"}
    GOOD[_name] = _WHOLE_ENDS if _is_whole else _ANY_ENDS
    BAD[_name] = _NO_WHOLE if _is_whole else _NO_NUMBER


def refused_field(options: dict[str, Any], *, allow_from: bool = True) -> str | None:
    with pytest.raises(OptionUnsupported) as caught:
        check_options(options, allow_from=allow_from)
    assert caught.value.message.isprintable()
    return caught.value.field


def test_every_parameter_is_tried_here() -> None:
    assert set(GOOD) == set(BAD) == set(PARAMETERS)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in GOOD for value in GOOD[name]])
def test_a_good_parameter_passes(name: str, value: Any) -> None:
    check_options({"parameters": {name: value}}, allow_from=False)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in BAD for value in BAD[name]])
def test_a_bad_parameter_is_refused_by_its_name(name: str, value: Any) -> None:
    assert refused_field({"parameters": {name: value}}) == f"options.parameters.{name}"


@pytest.mark.parametrize("name", ["mirostat", "NUM_CTX", "num ctx", "remote_host", ""])
def test_an_unknown_parameter_is_refused_by_its_name(name: str) -> None:
    assert refused_field({"parameters": {"num_ctx": 1, name: 1}}) == f"options.parameters.{name}"


@pytest.mark.parametrize("name", ["a\nb", "\u202e", "x" * 65])
def test_a_name_that_cannot_be_repeated_is_not(name: str) -> None:
    assert refused_field({"parameters": {name: 1}}) == "options.parameters"


@pytest.mark.parametrize("name", ["remote_host", "files", "draft_files", "info", "stream", "model"])
def test_what_is_no_option_is_refused(name: str) -> None:
    assert refused_field({name: "x"}) == f"options.{name}"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"template": "LONG"}, "options.template"),
        ({"system": "LONG"}, "options.system"),
        ({"licenses": ["a", "LONG"]}, "options.licenses[1]"),
        ({"licenses": ["a"] * 1025}, "options.licenses"),
        ({"messages": [{"role": "user", "content": "LONG"}]}, "options.messages[0].content"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "tool"}]}, "options.messages[1].role"),
        ({"messages": [{"content": "a"}]}, "options.messages[0].role"),
        ({"messages": [{"role": "user"}] * 1025}, "options.messages"),
        ({"quantize": "Q5_K_M"}, "options.quantize"),
        ({"quantize": "q"}, "options.quantize"),
        ({"renderer": "x" * 257}, "options.renderer"),
        ({"renderer": "a\x00b"}, "options.renderer"),
        ({"parser": "a\nb"}, "options.parser"),
        ({"parser": "\u202e"}, "options.parser"),
        ({"parser": "\u00e4" * 129}, "options.parser"),
        ({"requires": "0.14.0\n"}, "options.requires"),
        ({"requires": "1" * 257}, "options.requires"),
        ({"requires": "newest"}, "options.requires"),
        ({"draft_quantize": "int4"}, "options.draft_quantize"),
        ({"from": "registry.example/library/llama"}, "options.from"),
        ({"from": "llama:cloud"}, "options.from"),
        ({"from": "gpt-oss:120b-cloud"}, "options.from"),
        ({"from": "../x"}, "options.from"),
    ],
)
def test_a_bad_option_is_refused_by_its_name(options: dict[str, Any], field: str) -> None:
    # One byte too many, though fewer characters than the limit.
    long = "\u00e4" * (MAX_TEXT_BYTES // 2) + "x"
    assert refused_field(_with_text(options, long)) == field
    if "LONG" in str(options):
        check_options(_with_text(options, long[:-1]), allow_from=True)


def _with_text(value: Any, long: str) -> Any:
    if isinstance(value, dict):
        return {name: _with_text(one, long) for name, one in value.items()}
    if isinstance(value, list):
        return [_with_text(one, long) for one in value]
    return long if value == "LONG" else value


@pytest.mark.parametrize("quantize", ["Q4_K_M", "q4_k_s", "f16", "INT4", "mxfp8"])
def test_what_one_era_or_another_quantizes_to_passes(quantize: str) -> None:
    check_options({"quantize": quantize}, allow_from=False)


def test_from_is_off_unless_it_is_switched_on() -> None:
    check_options({"from": "library/llama:8b"}, allow_from=True)
    assert refused_field({"from": "library/llama:8b"}, allow_from=False) == "options.from"


@pytest.mark.parametrize(
    "version",
    ["0", "0.14", "0.14.0", "v0.14.0", "10.20.30", "0.14.0-rc1", "0.14.0-rc.1+b.001", "1.0.0-0", "1.0.0--"],
)
def test_a_version_that_can_be_required_passes(version: str) -> None:
    """What Go's semver package takes behind a `v`, its short forms too: so Ollama's own client judges it."""
    check_options({"requires": version}, allow_from=False)


@pytest.mark.extended
@pytest.mark.parametrize(
    "version",
    [
        "v", "vv1", "V1.0.0", "00", "0.01", "0.14.00", "1.2.3.4", "1.0-rc1", "1.0.0-", "1.0.0-01",
        "1.0.0-a..b", "1.0.0+", " 1.0.0", "1.0.0 ", "1.0.0-\u00e4", "\u0661.0.0", "1.0.0\x00",
    ],
)  # fmt: skip
def test_what_is_no_version_cannot_be_required(version: str) -> None:
    assert refused_field({"requires": version}) == "options.requires"


@pytest.mark.parametrize("word", ["qwen3-coder", "x" * 256, "any name: Ollama's own are not listed here"])
def test_a_renderer_and_a_parser_of_any_name_pass(word: str) -> None:
    check_options({"renderer": word, "parser": word, "draft_quantize": "q8_0"}, allow_from=False)

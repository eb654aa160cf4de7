"""The JSON files of a safetensors set: each rule J, the templates' rules, and nothing else gets through."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from ingest_service.formats import FormatLimits, FormatReader
from ingest_service.formats.faults import FormatFault
from ingest_service.formats.incremental import State
from ingest_service.formats.json_files import JsonLimits, JsonReader
from tests.formats.corpus_files import CONFIG

LIMITS = JsonLimits()
FEW = JsonLimits(max_members=2)
SHORT = JsonLimits(max_string_bytes=8)
SMALL = JsonLimits(max_config_bytes=400, max_vocabulary_bytes=40, max_other_bytes=30)
OTHER = "preprocessor_config.json"
TOKENIZER = "tokenizer.json"
TEMPLATES = "tokenizer_config.json"


def read(data: bytes, name: str = OTHER, limits: JsonLimits = LIMITS, step: int = 1 << 20) -> JsonReader:
    reader = JsonReader(limits, len(data), name)
    for start in range(0, len(data), step):
        reader.feed(data[start : start + step])
    return reader


def fault_of(data: bytes, name: str = OTHER, limits: JsonLimits = LIMITS) -> FormatFault:
    reader = read(data, name, limits)
    assert reader.state is State.FAULT, reader.result
    assert reader.fault is not None
    return reader.fault


def config(**changes: Any) -> bytes:
    """A sound config.json but for these; `...` takes one away."""
    content = CONFIG | changes
    return json.dumps({name: value for name, value in content.items() if value is not ...}).encode()


def of(architecture: str, **changes: Any) -> bytes:
    return config(architectures=[architecture], **changes)


def rope(kind: str, architecture: str = "Qwen2ForCausalLM") -> bytes:
    return of(architecture, rope_scaling={"type": kind})


def template(text: Any) -> bytes:
    return json.dumps({"chat_template": text, "bos_token": "<s>"}).encode()


GOOD = config()
PHI = "Phi3ForCausalLM"
VISION = "Qwen3VLForConditionalGeneration"
#: Rule, what, field, name of the file, the file that breaks it, the same put right, limits.
ROWS: list[tuple[str, str, str, str, bytes, bytes, JsonLimits]] = [
    ("J6", "sparsity of 2", "activation_sparsity_pattern", "config.json",
     b'{"architectures":["x"],"activation_sparsity_pattern":[0.5,2.0]}',
     b'{"architectures":["x"],"activation_sparsity_pattern":[0.5,1.0]}', LIMITS),
    ("J1", "one byte", "file size", OTHER, b"1", b"11", LIMITS),
    ("J1", "31 bytes", "file size", OTHER, b"1" * 31, b"1" * 30, SMALL),
    ("J1", "tokenizer of 41", "file size", TOKENIZER, b"{%39s}" % b"", b"{%38s}" % b"", SMALL),
    ("J1", "config", "file size", "config.json", b" " * 400 + GOOD, b" " * (400 - len(GOOD)) + GOOD, SMALL),
    ("J2", "33 levels", "JSON", OTHER, b"[" * 33 + b"]" * 33, b"[" * 32 + b"]" * 32, LIMITS),
    ("J2", "33 levels, flat", "JSON", OTHER, b"[" * 32 + b"[1],1" + b"]" * 32,
     b"[" * 31 + b"[1],1" + b"]" * 31, LIMITS),
    ("J2", "string of 9", "JSON", OTHER, b'["123456789"]', b'["12345678"]', SHORT),
    ("J2", "three members", "c", OTHER, b'{"a":1,"b":1,"c":1}', b'{"a":1,"b":1}', FEW),
    ("J3", "comma more", "JSON", OTHER, b'{"a":1,}', b'{"a":1}', LIMITS),
    ("J3", "comma more in a list", "JSON", OTHER, b"[1,2,]", b"[1,2]", LIMITS),
    ("J3", "no colon", "JSON", OTHER, b'{"a" 1}', b'{"a":1}', LIMITS),
    ("J3", "no comma", "JSON", OTHER, b"[1 2]", b"[1,2]", LIMITS),
    ("J3", "number for a name", "JSON", OTHER, b"{1:1}", b'{"1":1}', LIMITS),
    ("J3", "wrong bracket", "JSON", OTHER, b'{"a":[1}]', b'{"a":[1]}', LIMITS),
    ("J3", "two texts", "JSON", OTHER, b"{} {}", b"{}   ", LIMITS),
    ("J3", "cut short", "JSON", OTHER, b'{"a":[', b'{"a":[]}', LIMITS),
    ("J3", "cut in a string", "JSON", OTHER, b'["abc', b'["abc"]', LIMITS),
    ("J3", "control character", "JSON", OTHER, b'["a\nb"]', b'["a\\nb"]', LIMITS),
    ("J3", "unknown escape", "JSON", OTHER, b'["\\x41"]', b'["\\u0041"]', LIMITS),
    ("J3", "not UTF-8", "JSON", OTHER, b'["\xff"]', b'["\xc3\xbf"]', LIMITS),
    ("J3", "not UTF-8 in a run", "JSON", OTHER, b'["\xff",1,2]', b'["\xc3\xbf",1,2]', LIMITS),
    ("J3", "leading zero", "JSON", OTHER, b"[01]", b"[0.1]", LIMITS),
    ("J3", "NaN", "JSON", "generation_config.json", b'{"a":NaN}', b'{"a":null}', LIMITS),
    ("J3", "128 digits", "JSON", OTHER, b"[" + b"1" * 128 + b"]", b"[" + b"1" * 127 + b"]", LIMITS),
    ("J3", "literal", "JSON", OTHER, b"[nul]", b"[null]", LIMITS),
    ("J4", "name twice", "a", OTHER, b'{"a":1,"a":1}', b'{"a":1,"b":1}', LIMITS),
    ("J4", "spelt otherwise", "a", OTHER, b'{"a":1,"\\u0061":1}', b'{"a":1,"\\u0062":1}', LIMITS),
    ("J4", "twice within", "x", "config.json", GOOD[:-1] + b',"y":{"x":1,"x":1}}',
     GOOD[:-1] + b',"y":{"x":1,"z":1}}', LIMITS),
    ("J4", "other case", "Vocab_Size", "config.json", config(Vocab_Size=1), config(Vocab_Sizes=1), LIMITS),
    ("J4", "long s", "vocab_\u017fize", "config.json", GOOD[:-1] + b',"vocab_\\u017fize":1}', GOOD, LIMITS),
    ("J5", "no architectures", "architectures", "config.json", config(architectures=...), GOOD, LIMITS),
    ("J5", "none", "architectures", "config.json", config(architectures=[]), GOOD, LIMITS),
    ("J5", "text", "architectures", "config.json", config(architectures="LlamaForCausalLM"), GOOD, LIMITS),
    ("J5", "number", "architectures", "config.json", config(architectures=[1]), GOOD, LIMITS),
    ("J5", "list", "JSON", "config.json", b"[]", GOOD, LIMITS),
    ("J5", "tokenizer is a list", "JSON", TOKENIZER, b"[]", b"{}", LIMITS),
    ("J6", "blocks", "num_hidden_layers", "config.json", config(num_hidden_layers=513),
     config(num_hidden_layers=512), LIMITS),
    ("J6", "2^32 - 1 blocks", "num_hidden_layers", "config.json", config(num_hidden_layers=2**32 - 1),
     GOOD, LIMITS),
    ("J6", "vocabulary", "vocab_size", "config.json", config(vocab_size=2**31), config(vocab_size=1 << 20),
     LIMITS),
    ("J6", "vocabulary within", "text_config.vocab_size", "config.json",
     config(text_config={"vocab_size": 2**32 - 1}), config(text_config={"vocab_size": 9}), LIMITS),
    ("J6", "vision depth", "vision_config.depth", "config.json",
     of(VISION, vision_config={"depth": 2**32 - 1}), of(VISION, vision_config={"depth": 27}), LIMITS),
    ("J6", "below 0", "hidden_size", "config.json", config(hidden_size=-1), GOOD, LIMITS),
    ("J6", "float", "hidden_size", "config.json", config(hidden_size=1e300), GOOD, LIMITS),
    ("J6", "one in a list", "num_key_value_heads", "config.json", config(num_key_value_heads=[1, 2**32]),
     config(num_key_value_heads=[1, 2]), LIMITS),
    ("J6", "experts", "num_experts", "config.json", config(num_experts=1025),
     config(num_experts=1024), LIMITS),
    ("J6", "token below 0", "<a>", "added_tokens.json", b'{"<a>":-1}', b'{"<a>":1}', LIMITS),
    ("J6", "token beyond", "<a>", "added_tokens.json", b'{"<a>":9999999}', b'{"<a>":1048576}', LIMITS),
    ("J7", "no heads", "num_attention_heads", "config.json", config(num_attention_heads=0), GOOD, LIMITS),
    ("J7", "no blocks", "num_hidden_layers", "config.json", config(num_hidden_layers=0), GOOD, LIMITS),
    ("J7", "heads not said", "num_attention_heads", "config.json",
     of("LlamaForCausalLM", num_attention_heads=...), of("LlamaForCausalLM"), LIMITS),
    ("J7", "heads null", "num_attention_heads", "config.json", of(PHI, num_attention_heads=None),
     of(PHI, num_attention_heads=None, n_head=2), LIMITS),
    ("J7", "heads not said within", "text_config.num_attention_heads", "config.json",
     of("Mistral3ForConditionalGeneration"),
     of("Mistral3ForConditionalGeneration", text_config={"num_attention_heads": 2}), LIMITS),
    ("J8", "unknown", "rope_scaling.type", "config.json", rope("dynamic"), rope("yarn"), LIMITS),
    ("J8", "another's", "rope_scaling.type", "config.json", rope("mrope", PHI), rope("longrope", PHI),
     LIMITS),
    ("J8", "other case of the name", "rope_scaling.Type", "config.json",
     config(rope_scaling={"Type": "linear"}), config(rope_scaling={"Typ": "linear"}), LIMITS),
    ("J8", "within", "text_config.rope_scaling.type", "config.json",
     of(VISION, text_config={"rope_scaling": {"type": "linear"}}),
     of(VISION, text_config={"rope_scaling": {"type": "default"}}), LIMITS),
    ("C1", "__class__", "chat_template", TEMPLATES, template("{{ ''.__class__ }}"),
     template("{{ m }}"), LIMITS),
    ("C1", "spelt otherwise", "chat_template", TEMPLATES, b'{"chat_template":"{{ x.\\u005f_class__ }}"}',
     b'{"chat_template":"{{ \\u005fclass__ }}"}', LIMITS),
    ("C1", "of many", "chat_template", TEMPLATES, template([{"name": "t", "template": "{{ x|attr(y) }}"}]),
     template([{"name": "t", "template": "{{ x|trim }}"}]), LIMITS),
    ("C6", "endless macro", "chat_template", TEMPLATES,
     template("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
     template("{% macro m() %}{{ m() }}{% endmacro %}"), LIMITS),
    ("C2", "long", "chat_template", TEMPLATES, template("a" * 11), template("a" * 10),
     JsonLimits(max_template_bytes=10)),
    ("C2", "together", "chat_template", TEMPLATES, template([{"template": "a" * 6}, {"template": "a" * 5}]),
     template([{"template": "a" * 6}, {"template": "a" * 4}]), JsonLimits(max_template_bytes=10)),
]  # fmt: skip
IDS = [f"{row[0]}: {row[1]}" for row in ROWS]


@pytest.mark.parametrize(("rule", "what", "field", "name", "bad", "good", "limits"), ROWS, ids=IDS)
def test_it_is_refused_by_its_rule_and_accepted_when_put_right(
    rule: str, what: str, field: str, name: str, bad: bytes, good: bytes, limits: JsonLimits
) -> None:
    fault = fault_of(bad, name, limits)
    assert (fault.rule, fault.field) == (rule, field), fault
    assert 0 <= (fault.offset or 0) <= len(bad)
    assert fault.message.isprintable()
    for step in (1, 7):
        assert str(read(bad, name, limits, step).fault) == str(fault)
    for step in (1, 1 << 20):
        assert read(good, name, limits, step).state is State.DONE, read(good, name, limits).fault


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b'{"a":{"b":[1,x]}}', b"x]}}"),
        (b'["a\x01b"]', b"\x01b"),
        (b'["ab\xffc",1]', b"\xff"),
        (b"{} x", b"x"),
    ],
)
def test_the_offset_is_where_the_fault_is(data: bytes, place: bytes) -> None:
    assert data[fault_of(data).offset :].startswith(place)


@pytest.mark.parametrize(("start", "word"), [(b'["a\x01', "control"), (b"{1", "name"), (b"[1 2", "comma")])
def test_it_is_refused_as_soon_as_the_fault_is_there(start: bytes, word: str) -> None:
    reader = JsonReader(LIMITS, 1 << 20, OTHER)
    reader.feed(start)
    assert reader.fault is not None
    assert word in reader.fault.message


_TOKENS = (
    b"{", b"}", b"[", b"]", b",", b":", b'"a"', b'"\\u00e9"', b"1", b"-0", b"1.5e3", b"true", b"null", b" ",
    b'"\\x"', b"01", b'"b":', b'"c":1,', b"[1,2],", b'"\xc3\xa9"', b'"\xff"', b"nul", b"[[1],2],", b"1e",
    b"-",
)  # fmt: skip
_SOUND = (b'{"a":[1,2,{"b":[["x",1],["y"]]}],"c":null}', b'[{"a":1},{"b":2}]', b'["a",["b","c"],["d"],1]')


def texts(count: int) -> Iterator[bytes]:
    """Texts that are nearly JSON, and some that are; the same ones each time."""
    draw = random.Random(5)
    for index in range(count):
        if index % 2:
            yield b"".join(draw.choices(_TOKENS, k=draw.randint(2, 9)))
            continue
        text = bytearray(draw.choice(_SOUND))
        for _ in range(draw.randint(0, 2)):
            place = draw.randrange(len(text))
            text[place : place + draw.randint(0, 2)] = draw.choice(_TOKENS)
        yield bytes(text)


def is_json(text: bytes) -> bool:
    def refused(name: str) -> None:
        raise ValueError(name)

    try:
        json.loads(text.decode("utf-8"), parse_constant=refused)
    except ValueError:
        return False
    return True


def test_what_it_passes_over_is_json_exactly_where_pythons_decoder_says_so() -> None:
    passed = 0
    for text in texts(1000):
        reader = read(text, "vocab.json")
        assert (reader.state is State.DONE) == is_json(text), (text, reader.fault)
        assert str(read(text, "vocab.json", step=1).fault) == str(reader.fault), text
        passed += reader.state is State.DONE
    assert passed > 60


def test_config_json_tells_facts_under_the_names_that_ggufs_have() -> None:
    reader = read(GOOD, "config.json")
    assert reader.result is not None
    assert reader.result.facts == {
        "architecture": "qwen2",
        "quantization": "BF16",
        "context_length": 128,
        "embedding_length": 8,
        "block_count": 2,
        "vocabulary_size": 4,
    }
    within = {"hidden_size": 16, "num_hidden_layers": 3}
    nested = read(config(text_config=within, hidden_size=..., num_hidden_layers=...), "config.json").result
    assert nested is not None
    assert (nested.facts["embedding_length"], nested.facts["block_count"]) == (16, 3)


@pytest.mark.parametrize(
    "text",
    [
        config(time_step_limit=[0.0, float("inf")], x=float("nan")),
        config(num_attention_heads=...),
        of("Gemma3ForConditionalGeneration", text_config={"rope_scaling": {"type": "linear"}}),
        of("LlamaForCausalLM", rope_scaling={"rope_type": "llama3", "factor": 8.0}),
        config(id2label={str(index): f"LABEL_{index}" for index in range(1000)}),
    ],
)
def test_what_others_write_into_config_json_passes(text: bytes) -> None:
    assert read(text, "config.json").state is State.DONE, read(text, "config.json").fault


def test_a_large_length_is_no_fault_of_a_tokenizer() -> None:
    assert read(b'{"model_max_length": 1000000000000000019884624838656}', TEMPLATES).state is State.DONE


def test_an_unsafe_template_is_a_warning_where_it_is_allowed() -> None:
    reader = read(template("{{ x.__globals__ }}"), TEMPLATES, JsonLimits(refuse_unsafe_templates=False))
    assert reader.result is not None
    assert "__globals__" in reader.result.warnings[0]


def test_special_tokens_that_are_texts_are_told() -> None:
    def told(tokens: object) -> object:
        reader = read(json.dumps({"additional_special_tokens": tokens}).encode(), "special_tokens_map.json")
        assert reader.result is not None
        return reader.result.facts.get("additional_special_tokens")

    assert (told(["<a>"]), told([{"content": "<a>"}]), told(None)) == ("texts", None, None)


def test_the_inspection_says_what_config_json_says() -> None:
    reader = FormatReader("config.json", len(GOOD), FormatLimits())
    for byte in GOOD:
        assert reader.wants_more
        reader.feed(bytes([byte]))
    assert reader.inspection is not None
    assert (reader.inspection.format, reader.inspection.facts["architecture"]) == ("json", "qwen2")


def vocabulary(count: int) -> bytes:
    added = [{"id": index, "content": f"<t{index}>", "special": True} for index in range(1000)]
    tokens = {f"token{index}\u00e9": index for index in range(count)}
    merges = [[f"tok{index}", f"en{index}"] for index in range(count)]
    model = {"type": "BPE", "vocab": tokens, "merges": merges}
    return json.dumps({"added_tokens": added, "model": model}, ensure_ascii=False).encode()


HOSTILE = {
    "lists": b"[" + b"[]," * 20_000 + b"1]",
    "members": b'{"a":' + b'{"a":1},' * 100 + b"}",
    "a string that never ends": b'["' + b"a" * (2 << 20),
    "spaces": b"[" + b" " * (1 << 20) + b"]",
    "digits": b"[" + b"1" * (4 << 20) + b"]",
    "names": b"{" + b",".join(b'"%d":1' % index for index in range(4000)) + b"}",
}


@pytest.mark.extended_unless("tokenizer")
@pytest.mark.extended_when("lists")
@pytest.mark.parametrize("name", [*HOSTILE, "tokenizer"])
def test_memory_stays_small_whatever_comes(name: str) -> None:
    data = HOSTILE.get(name) or vocabulary(30_000)
    tracemalloc.start()
    try:
        reader = read(data, TOKENIZER if name == "tokenizer" else OTHER)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reader.state is not State.NEEDS_MORE
    assert peak_bytes < 8 << 20


@pytest.mark.extended
def test_a_decoded_file_of_the_largest_size_stays_within_64_mib() -> None:
    size_bytes = 32 << 10
    text = (b'{"architectures":["x"],"a":[' + b'{"a":1},' * (size_bytes // 8 - 8) + b"1]}").ljust(size_bytes)
    tracemalloc.start()
    try:
        reader = read(text, "config.json")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reader.state is State.DONE, reader.fault
    # Nothing decodes into more bytes for one than small objects.
    assert peak_bytes / size_bytes * LIMITS.max_config_bytes < 64 << 20

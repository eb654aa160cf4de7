"""A file with several defects: all are told together, each once, and the first is the error's own."""

from __future__ import annotations

from ingest_service.formats import FormatLimits, FormatReader
from ingest_service.formats.faults import MAX_MORE_FAULTS
from ingest_service.formats.remedies import remedy_for
from ingest_service.vocabulary.errors import FormatInvalid
from tests.formats.build import U16, Gguf, Tensor, number, safetensors, text, texts, u32
from tests.formats.gguf_rows import G


def error_of(file: Gguf, name: str = "model.gguf", data: bytes | None = None) -> FormatInvalid:
    content = file.file() if data is None else data
    reader = FormatReader(name, len(content), FormatLimits())
    reader.feed(content)
    assert reader.error is not None
    return reader.error


def fields(error: FormatInvalid) -> list[str | None]:
    return [error.field, *(violation.field for violation in error.more)]


def test_defects_of_every_part_are_told_together() -> None:
    bad = G.but(
        {
            "llama.block_count": u32(0),
            "llama.context_length": None,
            "tokenizer.ggml.tokens": texts(["a", "a", "c"]),
            "general.name": text("a\0b"),
        },
        tensors=(Tensor("t", (32,), 4), Tensor("t", (32,), 0), Tensor("u", (33,), 2)),
    )
    error = error_of(bad)
    assert fields(error) == [
        "general.name",
        "llama.block_count",
        "llama.context_length",
        "tokenizer.ggml.tokens",
        "t",
        "t",
        "u",
    ]
    assert error.metadata["rule"] == "C3"
    rules = ["M1", "M2", "V4", "T5", "T2", "T8"]
    for rule, violation in zip(rules, error.more, strict=True):
        assert f"(rule {rule}" in violation.description
    # What to do is said once for each kind of defect.
    whole = " ".join([error.message, *(violation.description for violation in error.more)])
    for rule in ["C3", *rules]:
        assert whole.count(remedy_for(rule)) == 1, rule


def test_what_is_missing_has_no_offset() -> None:
    error = error_of(G.but({"llama.context_length": None}))
    assert error.metadata == {"rule": "M2", "field": "llama.context_length"}
    assert "byte" not in error.message
    assert "(rule M2)" in error.message


def test_without_an_architecture_no_key_of_it_is_called_missing() -> None:
    assert fields(error_of(G.but({"general.architecture": None}))) == ["general.architecture"]


def test_where_the_structure_breaks_what_was_read_is_still_checked_and_nothing_is_missing() -> None:
    pairs = dict(G.pairs)
    pairs["general.type"] = text("model")
    pairs["llama.block_count"] = u32(0)
    pairs["general.author"] = text("x", length=2**40)
    pairs["llama.context_length"] = pairs.pop("llama.context_length")
    error = error_of(Gguf(pairs=pairs))
    assert fields(error) == ["general.author", "llama.block_count"]
    assert error.metadata["rule"] == "K4"


def test_keys_that_are_there_twice_are_each_told_and_only_their_first_value_counts() -> None:
    again = Gguf(pairs={"llama.block_count": u32(0), "tokenizer.ggml.tokens": texts(["a", "a"])})
    header = again.header
    extra = (header[24 : again.header.index(b"tokenizer") - 8], header[header.index(b"tokenizer") - 8 :])
    bad = G.but(extra=(extra[0], extra[1][: extra[1].index(b"\x01\0\0\0\0\0\0\0a") + 18]))
    error = error_of(bad)
    assert fields(error) == ["llama.block_count", "tokenizer.ggml.tokens"]
    assert "rule K8" in error.message


def test_at_most_twenty_more_are_listed_and_the_others_are_counted() -> None:
    error = error_of(G.but(tensors=tuple(Tensor(f"t{index}", (1,), 99) for index in range(40))))
    assert len(error.more) == MAX_MORE_FAULTS == 20
    assert error.left_out == 40 - 1 - MAX_MORE_FAULTS


def test_parts_of_a_split_that_contradict_each_other_are_told_once() -> None:
    error = error_of(G.but({"split.no": number(U16, 3), "split.count": u32(2)}))
    assert fields(error) == ["split.count", "split.tensors.count"]


def test_safetensors_and_json_tell_all_that_they_find() -> None:
    entries = {
        "a": {"dtype": "X", "shape": [1], "data_offsets": [0, 4]},
        "b": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]},
    }
    content = safetensors(entries, 4)
    assert fields(error_of(G, "model.safetensors", content)) == ["a", "b"]
    config = b'{"num_hidden_layers": 0, "num_experts": -1, "architectures": []}'
    error = error_of(G, "config.json", config)
    assert fields(error) == ["architectures", "num_hidden_layers", "num_experts"]
    assert "offset" not in error.metadata

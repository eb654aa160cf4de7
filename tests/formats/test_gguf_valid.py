"""Valid files that look odd: what llama.cpp and Ollama take is taken, with a warning where one is due."""

from __future__ import annotations

import pytest

from ingest_service.formats.gguf import GgufFacts, GgufLimits, GgufReader
from tests.formats.build import BOOL, F32, I32, U8, U16, U32, Gguf, Tensor, number, numbers, text, texts, u32
from tests.formats.gguf_rows import CHARSMAP, EXPERTS, SHARD, G, of

FIRST = G.but({**SHARD, "split.no": number(U16, 0)}, tensors=())


def facts_of(file: Gguf, size_bytes: int | None = None) -> GgufFacts:
    reader = GgufReader(GgufLimits(), file.max_size_bytes if size_bytes is None else size_bytes)
    reader.feed(file.header)
    assert reader.result is not None, reader.faults.found
    return reader.result.facts


@pytest.mark.parametrize(
    "pairs",
    [
        {"split.count": number(U16, 0)},
        {"split.count": number(U16, 1)},
        {"split.count": number(U16, 0), "split.no": number(U16, 0), "split.tensors.count": number(I32, 3)},
        {"split.no": number(U16, 0)},
    ],
)
def test_a_merged_split_is_a_plain_file(pairs: dict[str, bytes]) -> None:
    assert facts_of(G.but(pairs)).split is None


def test_a_first_shard_without_tensors_may_be_padded() -> None:
    end = len(FIRST.header)
    assert end % 32
    for size_bytes in (end, end + -end % 32):
        assert facts_of(FIRST, size_bytes).tensor_count == 0


@pytest.mark.parametrize("alignment", [8, 128])
def test_the_last_tensor_may_be_padded_to_32_whatever_the_alignment(alignment: int) -> None:
    pairs = {"general.architecture": text("llama"), "general.type": text("adapter")}
    file = Gguf({**pairs, "general.alignment": u32(alignment)}, alignment=alignment)
    last = file.tensors[-1].size_bytes
    assert last % 32
    facts_of(file, file.min_size_bytes + -last % 32)


def test_a_tensor_may_have_no_elements() -> None:
    tensors = (Tensor("t", (0,), 0), Tensor("u", (0, 5), 0), Tensor("v", (32,), 0))
    assert facts_of(G.but(tensors=tensors)).parameter_count == 32


@pytest.mark.extended_when("laguna", "olmo3")
@pytest.mark.parametrize("architecture", ["deepseek2", "laguna", "mistral3", "olmo3"])
@pytest.mark.parametrize(("scaling", "shown"), [("", "empty"), ("default", "'default'")])
def test_ollamas_converters_write_a_rope_scaling_that_is_none(
    architecture: str, scaling: str, shown: str
) -> None:
    (warning,) = facts_of(of(architecture, {"rope.scaling.type": text(scaling)})).warnings
    assert f"{architecture}.rope.scaling.type is {shown}" in warning


def test_a_text_may_be_as_long_as_the_longest_tokenizer_of_hugging_face() -> None:
    facts_of(G.but({"tokenizer.huggingface.json": text("x" * (34 << 20))}))


def test_the_type_that_early_ollama_had_for_mxfp4_is_named() -> None:
    reader = GgufReader(GgufLimits(), 10_000)
    reader.feed(G.but(tensors=(Tensor("t", (32,), 4),)).header)
    assert reader.fault is not None
    assert "MXFP4" in reader.fault.message


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (G.but({"k": number(BOOL, 2)}), "k is a bool of 2"),
        (G.but({"k": numbers(BOOL, [0, 9])}), "k has bools beyond 1"),
        (G.but({"llama.attention.head_count": numbers(U32, [8] * 3)}), "has 3 numbers for 2 blocks"),
        (G.but({"llama.block_count": u32(3)}), "there are tensors of 2 blocks"),
        (G.but({"llama.attention.head_count_kv": u32(0)}), "head_count_kv is 0 of 8 heads"),
        (of("plamo2", {"attention.head_count_kv": u32(2**31)}), "is 2147483648 of 8 heads"),
        (G.but({"llama.attention.head_count": u32(2**31)}), "head_count is 2147483648"),
        (G.but({"llama.rope.dimension_count": u32(7)}), "rope.dimension_count is 7"),
        (G.but({"tokenizer.ggml.merges": None}), "merges is missing"),
    ],
)
def test_what_no_program_dies_of_is_a_warning(file: Gguf, words: str) -> None:
    (warning,) = facts_of(file).warnings
    assert words in warning


@pytest.mark.parametrize(
    "file",
    [
        G.but({"llama.context_length": u32(0)}),
        EXPERTS.but({"llama.expert_used_count": numbers(I32, [2, 8])}),
        G.but({"llama.feed_forward_length": numbers(U32, [8, 8])}),
        G.but({"tokenizer.ggml.scores": numbers(I32, [0, 0, 0])}),
        G.but({"tokenizer.ggml.token_type": numbers(I32, [1] * 4)}),
        G.but({CHARSMAP: numbers(U8, [0] * 3)}),
        G.but({"tokenizer.ggml.model": text("bert"), "tokenizer.ggml.merges": texts(["x"])}),
        G.but({"llama.vocab_size": number(F32, 3.0)}),
    ],
)
def test_what_llama_cpp_takes_is_taken_without_a_word(file: Gguf) -> None:
    assert facts_of(file).warnings == ()

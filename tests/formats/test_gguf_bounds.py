"""What is just allowed passes: every value type, every limit met exactly, rules that are not for all."""

from __future__ import annotations

import pytest

from ingest_service.formats.gguf import GgufLimits, GgufReader
from ingest_service.formats.gguf.types import CODES, TENSOR_TYPES
from ingest_service.formats.incremental import State
from tests.formats.build import Gguf, Tensor, number, numbers, text, texts, u32
from tests.formats.gguf_rows import CLIP, G

#: security.md section 3, verified there against the built library.
BUILT = (
    "0 F32 1/4, 1 F16 1/2, 2 Q4_0 32/18, 3 Q4_1 32/20, 6 Q5_0 32/22, 7 Q5_1 32/24, 8 Q8_0 "
    "32/34, 9 Q8_1 32/36, 10 Q2_K 256/84, 11 Q3_K 256/110, 12 Q4_K 256/144, 13 Q5_K 256/176, 14 "
    "Q6_K 256/210, 15 Q8_K 256/292, 16 IQ2_XXS 256/66, 17 IQ2_XS 256/74, 18 IQ3_XXS 256/98, 19 "
    "IQ1_S 256/50, 20 IQ4_NL 32/18, 21 IQ3_S 256/110, 22 IQ2_S 256/82, 23 IQ4_XS 256/136, 24 I8 "
    "1/1, 25 I16 1/2, 26 I32 1/4, 27 I64 1/8, 28 F64 1/8, 29 IQ1_M 256/56, 30 BF16 1/2, 34 "
    "TQ1_0 256/54, 35 TQ2_0 256/66, 39 MXFP4 32/17, 40 NVFP4 64/36, 41 Q1_0 128/18, 42 Q2_0 "
    "64/18"
)


def assert_accepted(file: Gguf, limits: GgufLimits | None = None) -> None:
    reader = GgufReader(limits or GgufLimits(), file.max_size_bytes)
    reader.feed(file.header)
    assert reader.state is State.DONE, reader.fault


@pytest.mark.parametrize("kind", CODES)
def test_every_value_type_alone_and_in_arrays(kind: int) -> None:
    assert_accepted(G.but({"k": number(kind, 1), "ks": numbers(kind, [0, 1, 1]), "none": numbers(kind, [])}))


@pytest.mark.parametrize("kind", TENSOR_TYPES)
def test_every_tensor_type(kind: int) -> None:
    assert_accepted(G.but(tensors=(Tensor("t", (TENSOR_TYPES[kind].block * 3, 5), kind),)))


def test_the_tensor_types_are_those_of_the_built_library() -> None:
    written = (f"{n} {t.name} {t.block}/{t.block_bytes}" for n, t in TENSOR_TYPES.items())
    assert ", ".join(written) == BUILT


def test_as_many_pairs_and_tensors_as_the_limits_say() -> None:
    assert_accepted(G, GgufLimits(max_pairs=len(G.pairs), max_tensors=len(G.tensors)))
    assert_accepted(Gguf(pairs={"general.architecture": text("clip")}))


def test_a_header_as_long_as_the_limit_says() -> None:
    assert_accepted(G, GgufLimits(max_header_bytes=len(G.header)))


def test_the_limits_of_tokens_are_not_those_of_other_strings() -> None:
    file = G.but({"tokenizer.ggml.merges": texts(["a" * 65, "b", "c", "d"])})
    assert_accepted(file, GgufLimits(max_tokens=3, max_token_bytes=64))


def test_a_vocabulary_needs_no_merges_and_no_scores() -> None:
    assert_accepted(G.but({"tokenizer.ggml.merges": None, "tokenizer.ggml.scores": None}))


def test_only_plamo2_writes_where_a_byte_token_says() -> None:
    assert_accepted(G.but({"tokenizer.ggml.tokens": texts(["a", "b", "<0x-1>"])}))


@pytest.mark.parametrize(
    "sizes",
    [
        {"clip.vision.image_size": 14, "clip.vision.patch_size": 14},
        {"clip.vision.image_size": 1024 * 14, "clip.vision.patch_size": 14},
        {"clip.vision.patch_size": 4096},
        {"clip.vision.image_size": 65_536},
        {"clip.audio.chunk_size": 8192, "clip.vision.block_count": 512},
    ],
)
def test_projectors_up_to_the_limits(sizes: dict[str, int]) -> None:
    assert_accepted(CLIP.but({key: u32(value) for key, value in sizes.items()}))

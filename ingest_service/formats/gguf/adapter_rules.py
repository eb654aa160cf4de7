"""Rule A5: keys of an adapter that llama.cpp reads without looking at their type."""

from __future__ import annotations

from ingest_service.formats.gguf.types import F32, NAMES, STRING
from ingest_service.formats.gguf.values import Metadata

_TYPES = {"adapter.lora.alpha": F32, "adapter.type": STRING}


def check_adapter(metadata: Metadata) -> None:
    """A5, if the file is an adapter; of an array it is its elements' type that counts."""
    if metadata.text("general.type") != "adapter":
        return
    for key, kind in _TYPES.items():
        value, array = metadata.values.get(key), metadata.array(key)
        if value is not None and kind != (array.element_type if array else value.type):
            message = f"{key} is of type {NAMES[kind]}, not {value.type_name}: llama.cpp aborts."
            metadata.faults.add("A5", value.offset, key, message)

"""What Ollama quantizes to while it creates (ollama-contract.md 3.2, 3.3)."""

from __future__ import annotations

#: Before 0.34.1, whatever the files are. Ollama takes any case; Q4_K is its other word for Q4_K_M.
GGUF_TYPES = ("F32", "F16", "BF16", "Q4_K", "Q4_K_M", "Q4_K_S", "Q8_0")
#: From 0.34.1 on, and for safetensors only.
SAFETENSORS_TYPES = ("int4", "int8", "nvfp4", "mxfp4", "mxfp8")

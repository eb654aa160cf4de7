"""Reads an Ollama Modelfile: its options as `CreateOptions`, and the files it names.

Ollama's own `parser` package defines the meaning; docs/client.md lists the few places where this differs.
`text` decodes the bytes, `commands` splits the text into commands, `values` and `parameters` give values
their types, `reader` builds the options.
"""

from __future__ import annotations

from model_ingest._modelfile.reader import Modelfile, ModelfileError, read_modelfile

__all__ = ["Modelfile", "ModelfileError", "read_modelfile"]

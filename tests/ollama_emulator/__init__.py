"""An emulator of Ollama's HTTP server: blobs, create, show, tags, and all that goes wrong.

See README.md beside this file; the facts are in the Ollama contract, cited by section.
"""

from __future__ import annotations

from .blobs import Blobs
from .calls import Call, Calls
from .eras import Era, Version
from .faults import Armed, Fault, FaultPlan, Kind
from .gguf_write import sample as sample_gguf
from .models import Layer, Model, Models
from .server import OllamaEmulator
from .thread import EmulatorThread

__all__ = [
    "Armed",
    "Blobs",
    "Call",
    "Calls",
    "EmulatorThread",
    "Era",
    "Fault",
    "FaultPlan",
    "Kind",
    "Layer",
    "Model",
    "Models",
    "OllamaEmulator",
    "Version",
    "sample_gguf",
]

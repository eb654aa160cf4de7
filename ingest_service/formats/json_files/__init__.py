"""The JSON files of a safetensors set: sound, within limits, and nothing in them that Ollama dies of."""

from ingest_service.formats.json_files.limits import JsonLimits
from ingest_service.formats.json_files.reader import JsonReader, SetFacts

__all__ = ["JsonLimits", "JsonReader", "SetFacts"]

"""GGUF: the header as it arrives, in facts or a named fault."""

from ingest_service.formats.gguf.facts import GgufFacts
from ingest_service.formats.gguf.limits import GgufLimits
from ingest_service.formats.gguf.reader import GgufHeader, GgufReader
from ingest_service.formats.gguf.tensors import Extent

__all__ = ["Extent", "GgufFacts", "GgufHeader", "GgufLimits", "GgufReader"]

"""safetensors in eras A and B: checks like Ollama's, then a stand-in GGUF.

The stand-in has the right architecture and file type but not the weights: no client of the
HTTP API can tell, and the emulator never runs a model (contract sections 3.3 and 7).
"""

from __future__ import annotations

import hashlib
import json
import struct

from . import gguf
from .blobs import InvalidDigest, missing
from .create_request import APIError
from .gguf_write import sample
from .models import Layer
from .parts import Part, Progress, Worker, Workshop, layer_status, media_type

_ARCHITECTURES = {
    "LlamaForCausalLM": "llama", "MistralForCausalLM": "llama", "MixtralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3", "GemmaForCausalLM": "gemma",
    "Gemma2ForCausalLM": "gemma2", "Gemma3ForCausalLM": "gemma3", "Phi3ForCausalLM": "phi3",
    "BertModel": "bert",
}  # fmt: skip


class Crash(Exception):
    """The Go process dies: a panic in a goroutine nobody recovers (section 7)."""


async def convert(shop: Workshop, files: dict[str, str], out: list[Part], *, adapter: bool) -> Worker:
    status = 400 if adapter else None
    try:
        paths = {name: shop.blobs.path(digest) for name, digest in files.items()}
    except InvalidDigest as error:
        raise APIError(str(error), status) from None
    yield Progress("converting adapter" if adapter else "converting model")

    def work() -> Part:
        config = "adapter_config.json" if adapter else "config.json"
        if config not in paths or not paths[config].exists():
            raise APIError(f"open {config}: no such file or directory", status)
        architecture = "llama" if adapter else _architecture(paths[config].read_bytes())
        digest = hashlib.sha256()
        for name in sorted(paths):
            if name.endswith(".safetensors"):
                if not paths[name].exists():
                    raise APIError(missing(paths[name]), status)
                with paths[name].open("rb") as file:
                    _check_header(file.read(8))
                    file.seek(0)
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        pairs = {
            "general.architecture": architecture,
            "general.file_type": 1,
            "emulator.source": digest.hexdigest(),
            **({"general.type": "adapter"} if adapter else {}),
        }
        temp = shop.blobs.temp()
        temp.write(sample(pairs, [("token_embd.weight", (32, 2), 1, None)]))
        stored, created = shop.blobs.keep(temp)
        model = gguf.read(shop.blobs.path(stored))
        kind = media_type("adapter" if adapter else "model")
        layer = Layer(kind, stored, model.size, status=layer_status(stored, created))
        return Part(layer, model, fresh=True)

    out.append(await shop.thread(work))


def _architecture(config: bytes) -> str:
    try:
        listed = json.loads(config).get("architectures") or []
    except (ValueError, AttributeError):
        raise APIError("invalid character in config.json") from None
    if not listed:
        raise APIError("unknown architecture")
    if listed[0] not in _ARCHITECTURES:
        raise APIError(f'unsupported architecture "{listed[0]}"')
    return _ARCHITECTURES[listed[0]]


def _check_header(head: bytes) -> None:
    if len(head) < 8:
        raise APIError("unexpected EOF")
    length = struct.unpack("<q", head)[0]
    if length < 0 or length > 1 << 40:
        # `make([]byte, 0, n)` with this n panics and takes the whole server down.
        raise Crash(f"makeslice: cap out of range: {length}")

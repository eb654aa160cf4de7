"""Era B's `llama-quantize COPY`, and quantizing in eras A and B (contract section 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from . import gguf
from .blobs import Temp
from .create_request import APIError
from .eras import Era
from .gguf_types import QUANTIZE_TARGETS
from .gguf_write import merge, rewrite
from .models import Layer
from .parts import Part, Progress, Worker, Workshop, layer_status

# Not a digest: nineteen zeros, as Ollama sends with every rewrite line.
NO_DIGEST = "0" * 19
_EMBEDDED = ("a.", "mm.", "mtp.", "s.", "v.")
_FAILED = (
    "failed to validate GGUF with llama-quantize without compatibility patches: "
    "llama-quantize failed: exit status 1"
)
# Architectures the emulated llama.cpp knows; any other fails its check in era B.
_KNOWN = frozenset(
    """
    bert command-r deepseek2 falcon gemma gemma2 gemma3 gemma4 glm4 gpt-oss gpt2 gptneox granite
    granitemoe laguna lfm2 llama llama4 mamba mistral3 nemotron nemotron_h nomic-bert olmo2 phi2
    phi3 qwen2 qwen2moe qwen3 qwen35 qwen3moe smollm3 stablelm starcoder2 t5
    """.split()  # noqa: SIM905
)


async def finish(shop: Workshop, part: Part, quantize: str, out: list[Layer]) -> Worker:
    """Quantizes or rewrites one part where its era does, and appends its layer."""
    model = part.gguf
    is_draft = part.layer.kind == "draft"
    if model is None or part.layer.kind not in {"model", "draft"} or shop.version.era is Era.C:
        if part.shards and shop.version.era is Era.C:
            async with aclosing(_run(shop, part, "COPY", {}, out)) as steps:
                async for progress in steps:
                    yield progress
            return
        out.append(part.layer)
        return
    wanted = quantize.upper()
    if wanted:
        if wanted not in QUANTIZE_TARGETS:
            listed = "F32, F16, Q4_K_S, Q4_K_M, Q8_0"
            text = f"unsupported quantization type {wanted} - supported types are {listed}"
            raise APIError(text)
        if is_draft and model.file_type not in ("F16", "BF16", "F32", "unknown"):
            raise APIError(f"draft quantization requires an unquantized draft model, got {model.file_type}")
        if model.file_type not in ("F16", "BF16", "F32"):
            raise APIError("quantization is only supported for F16, BF16 and F32 models")
        target = QUANTIZE_TARGETS[wanted]
        if model.kv.get("general.file_type") != target:
            changes = {"general.file_type": target}
            async with aclosing(_run(shop, part, wanted, changes, out)) as steps:
                async for progress in steps:
                    yield progress
            return
    embedded = any(tensor.name.startswith(_EMBEDDED) for tensor in model.tensors)
    if is_draft and not part.shards:
        out.append(part.layer)
        return
    if shop.version.era is Era.A or not part.fresh or (embedded and not part.shards):
        out.append(part.layer)
        return
    if model.architecture not in _KNOWN:
        raise APIError(_FAILED)
    async with aclosing(_run(shop, part, "COPY", {}, out)) as steps:
        async for progress in steps:
            yield progress


async def _run(shop: Workshop, part: Part, name: str, changes: dict[str, Any], out: list[Layer]) -> Worker:
    model = part.gguf
    assert model is not None
    status = f"quantizing {model.file_type} model to {name}"
    if name == "COPY":
        status = "validating GGUF model"
    total = part.layer.size
    if shop.rewrite_progress:
        yield Progress(status, NO_DIGEST, total, 0)
    # The temporary has the name Ollama gives it; a wedged create leaves it behind.
    temp = shop.blobs.temp(name)
    try:
        await shop.thread(_job(shop, part, model, changes, temp))
        if shop.rewrite_progress:
            yield Progress(status, NO_DIGEST, total, total // 2)
            yield Progress(status, NO_DIGEST, total, total)
        yield Progress("verifying conversion")
        digest, created = await shop.thread(lambda: shop.blobs.keep(temp))
        part.gguf = await shop.thread(lambda: gguf.read(shop.blobs.path(digest)))
    except OSError as error:
        raise APIError(f"{_FAILED}: {error}" if name == "COPY" else str(error)) from None
    finally:
        shop.executor.submit(temp.discard)
    status = layer_status(digest, created)
    out.append(Layer(part.layer.media_type, digest, temp.size, status=status))


def _job(
    shop: Workshop, part: Part, model: gguf.GGUF, changes: dict[str, Any], temp: Temp
) -> Callable[[], None]:
    def work() -> None:
        if part.shards:
            shards = [(shop.blobs.path(shard.layer.digest), shard.gguf) for shard in part.shards]
            merge([(path, known) for path, known in shards if known], temp)
        else:
            source = shop.blobs.path(part.layer.digest)
            rewrite(source, model, temp, changes)

    return work

"""Whether targets have a model, right now: for VerifyModel."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ingest_service.forwarding.ollama import OllamaClient, Shown
from ingest_service.forwarding.target import Target, TargetError
from ingest_service.vocabulary.records import Deployment, Model
from ingest_service.vocabulary.states import DeploymentState

#: `show` of a large model reads its header; a target that is slower than this is told as not answering.
_PATIENCE_SECONDS = 20.0
_AT_ONCE = 32
_DEPLOYED = frozenset({DeploymentState.READY, DeploymentState.LOST})


@dataclass(frozen=True, slots=True)
class TargetVerdict:
    """What one target says of a model. `words` tell why it could not be asked, or what is odd."""

    target: str
    present: bool
    words: str = ""
    #: It could not be asked.
    unknown: bool = False
    #: The deployment that was READY there, of which the target says that it has not got the model any more.
    lost: Deployment | None = None


class TargetPresence:
    """Asks every configured target, all at once, within a bounded time."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self._targets = tuple(targets)

    async def ask(self, model: Model) -> tuple[TargetVerdict, ...]:
        """Every target, in the order of the configuration."""
        free = asyncio.Semaphore(_AT_ONCE)
        return tuple(await asyncio.gather(*(self._ask(target, model, free) for target in self._targets)))

    async def _ask(self, target: Target, model: Model, free: asyncio.Semaphore) -> TargetVerdict:
        async with free:
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS), OllamaClient(target) as client:
                    # What is not there is written down as lost: a proxy's word is not enough.
                    shown = await client.show(model.newest.model, in_ollamas_words=True)
                    manifest = "" if shown is None else await _manifest(client, model.canonical_model)
            except TimeoutError:
                words = f"The target did not answer within {_PATIENCE_SECONDS:.0f} s."
                return TargetVerdict(target.name, present=False, words=words, unknown=True)
            except TargetError as error:
                return TargetVerdict(target.name, present=False, words=error.words, unknown=True)
        deployed = next(
            (one for one in model.deployments if one.target == target.name and one.state in _DEPLOYED),
            None,
        )
        return _verdict(target.name, shown, manifest, deployed)


async def _manifest(client: OllamaClient, canonical_model: str) -> str:
    try:
        return await client.manifest_digest(canonical_model)
    except TargetError:
        # The model is there; a list that cannot be read takes nothing from that.
        return ""


def _verdict(name: str, shown: Shown | None, manifest: str, deployed: Deployment | None) -> TargetVerdict:
    if shown is None:
        words = "" if deployed else "It was not deployed there."
        is_news = deployed is not None and deployed.state is DeploymentState.READY
        return TargetVerdict(name, present=False, words=words, lost=deployed if is_news else None)
    if deployed is None:
        words = "It has a model of that name, which was not deployed from here."
        return TargetVerdict(name, present=True, words=words)
    if not manifest or manifest == deployed.manifest_digest:
        return TargetVerdict(name, present=True)
    # Where Ollama rewrites a model's bytes, the layer's digest alone tells nothing: only both do.
    if shown.layer_digest and deployed.layer_digest and shown.layer_digest != deployed.layer_digest:
        words = "Another model has that name there by now."
        return TargetVerdict(name, present=False, words=words)
    words = "It was changed there since it was deployed." if deployed.manifest_digest else ""
    return TargetVerdict(name, present=True, words=words)

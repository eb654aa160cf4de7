"""Drives one deployment: version, HEAD, POST blob, POST create, show (ollama-contract.md section 8)."""

from __future__ import annotations

import logging

from ingest_service.forwarding.breaker import MAX_CREATES_CUT, Breaker
from ingest_service.forwarding.create_answer import CreateLine
from ingest_service.forwarding.create_request import create_request, layer_digest_expected
from ingest_service.forwarding.eras import rewrites_at_length, unsupported
from ingest_service.forwarding.moves import DeploymentMoves
from ingest_service.forwarding.ollama import OllamaClient, Shown
from ingest_service.forwarding.pushing import BlobPush
from ingest_service.forwarding.statuses import StatusWriter
from ingest_service.forwarding.target import (
    BlobMissing,
    OutcomeUnknown,
    Refused,
    Resting,
    TargetError,
    Unreachable,
)
from ingest_service.forwarding.turn import TargetTurn
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.records import Deployment, Ingest
from ingest_service.vocabulary.states import DeploymentState

_log = logging.getLogger(__name__)

_MIN_SILENCE_SECONDS = 15 * 60.0
_SLOWEST_CREATE_BYTES_PER_SECOND = 20_000_000
#: The whole of a create that talks all the time may take so much longer than one that is silent.
_SLOWEST_TALKING_BYTES_PER_SECOND = 2_000_000
#: What Ollama says of a blob that is not what its name promises.
_ROTTEN = ("eof", "invalid file magic", "not in gguf format", "exceeds file size")


class Driver:
    """One attempt. Ends with the deployment READY, or raises why not (TargetError, LeaseLost, CancelDue,
    SupersededByNewer)."""

    def __init__(
        self,
        client: OllamaClient,
        push: BlobPush,
        moves: DeploymentMoves,
        turn: TargetTurn,
        breaker: Breaker,
        *,
        create_seconds: float,
    ) -> None:
        self._client = client
        self._push = push
        self._moves = moves
        self._turn = turn
        self._breaker = breaker
        self._create_seconds = create_seconds
        self._creating: tuple[int, int] | None = None
        self._last_status = ""
        self.news = 0

    def _heard(self, line: CreateLine) -> None:
        """Counts what is new in a create's answer: `news` is read by whoever waits for it after a cancel."""
        step = (line.completed_bytes, line.total_bytes)
        if line.status != self._last_status or step != self._creating:
            self.news += 1
        self._last_status, self._creating = line.status, step

    @property
    def progress(self) -> tuple[int, int]:
        """(done, total) bytes of the present step; read by whoever renews the lease."""
        return self._push.progress if self._creating is None else self._creating

    async def run(self) -> None:
        """Takes the deployment as far as it goes."""
        if self._breaker.rests and not await self._moves.is_retried():
            raise Resting(f"The target did not answer a moment ago: {self._breaker.words}")
        async with self._client:
            await self._run()

    async def _run(self) -> None:
        ingest, deployment = await self._moves.read()
        if deployment.state is not DeploymentState.PENDING:
            extra = {"ingest": ingest.id, "target": deployment.target, "state": deployment.state}
            _log.info("took over a deployment whose worker is gone", extra=extra)
        if deployment.create_baseline is not None and await self._settled(ingest, deployment):
            return
        version = await self._client.version()
        self._breaker.succeeded()
        await self._check(ingest, deployment, version)
        await self._moves.move(DeploymentState.PUSHING, target_version=version, create_baseline=None)
        await self._push.push(ingest)
        async with self._turn:
            try:
                await self._create(ingest)
            except BlobMissing:
                # It vanished between HEAD and create (pruned, or deleted with another model): once more.
                await self._moves.notice(
                    "The target lost the bytes before it used them; they are sent again."
                )
                self._creating = None
                await self._moves.move(DeploymentState.PUSHING, create_baseline=None)
                await self._push.push(ingest)
                await self._create(ingest)

    async def _check(self, ingest: Ingest, deployment: Deployment, version: str) -> None:
        """Raises Refused before a byte is pushed that the target could not use."""
        words = unsupported(version, ingest)
        if words:
            await self._moves.move(deployment.state, target_version=version)
            raise Refused(words, reason=Reason.OPTION_UNSUPPORTED)
        await self._check_base(ingest)
        if rewrites_at_length(version, ingest) and deployment.target_version != version:
            # Once, not with every attempt.
            await self._moves.notice(
                f"Ollama {version} on {deployment.target} writes the model's file anew: expect minutes of"
                " silence, and up to three times its size on that disk."
            )

    async def _check_base(self, ingest: Ingest) -> None:
        """`from` a model that is not there makes Ollama pull it from a registry (contract 3.1)."""
        base = ingest.options.get("from")
        if base and await self._client.show(base) is None:
            raise Refused(f"The target has no model {base} to build upon (`options.from`).")

    async def _create(self, ingest: Ingest) -> None:
        # Again, as late as can be: it may have been deleted since. A moment stays (resources.proto).
        await self._check_base(ingest)
        before = await self._client.show(ingest.model)
        # First: whoever renews the lease must not write the push's progress over the new step's.
        self._creating = (0, 0)
        await self._moves.move(DeploymentState.CREATING, create_baseline=_baseline(before))
        size_bytes = sum(file.size_bytes for file in ingest.files)
        silence = max(_MIN_SILENCE_SECONDS, size_bytes / _SLOWEST_CREATE_BYTES_PER_SECOND)
        total = max(self._create_seconds, size_bytes / _SLOWEST_TALKING_BYTES_PER_SECOND)
        layer_digest = ""

        def on_line(line: CreateLine) -> None:
            nonlocal layer_digest
            self._heard(line)
            layer_digest = layer_digest or _layer(line.status)
            words.put(line.status)

        try:
            async with StatusWriter(self._moves) as words:
                await self._client.create(create_request(ingest), on_line, silence, total)
        except OutcomeUnknown as error:
            _, deployment = await self._moves.read()
            if await self._settled(ingest, deployment):
                return
            if error.otherwise is None and self._breaker.create_was_cut(deployment.id):
                # Else each try would kill its server once more, for as long as it may be tried.
                raise Refused(
                    f"The target broke off {MAX_CREATES_CUT} times while it created this model"
                    f" ({error.words}): perhaps its server dies of it. Look at its log before you retry."
                ) from error
            raise error.otherwise or Unreachable(error.words) from error
        except Refused as error:
            raise self._rotten_or(error) from error
        await self._confirm(ingest, layer_digest)

    async def _confirm(self, ingest: Ingest, layer_digest: str) -> None:
        shown = await self._client.show(ingest.model)
        if shown is None:
            raise Unreachable("Create said success, but the target does not show the model.")
        await self._ready(ingest, layer_digest or shown.layer_digest)

    async def _settled(self, ingest: Ingest, deployment: Deployment) -> bool:
        """A create whose answer was not seen: if `show` differs from before and has our bytes, it worked.

        Differing alone proves nothing: another ingest of the name, or anybody with the target's own tools,
        may have put other bytes there meanwhile. Where Ollama rewrites the bytes (0.30.0 to 0.34.0) the
        layer's digest is mostly another one, and so it is of shards, safetensors, `quantize` and `from`; then
        create comes again, which changes nothing if it worked. Nor can a newer ingest's create of the same
        bytes, with other options perhaps, be told from ours.
        """
        now = await self._client.show(ingest.model)
        if now is None or _baseline(now) == deployment.create_baseline:
            return False
        expected = layer_digest_expected(ingest)
        if not expected or now.layer_digest != expected:
            return False
        await self._moves.check_order()
        await self._moves.notice("The answer to create was lost; the target shows the model.")
        await self._ready(ingest, now.layer_digest)
        return True

    async def _ready(self, ingest: Ingest, layer_digest: str) -> None:
        try:
            manifest = await self._client.manifest_digest(ingest.canonical_model)
        except TargetError:
            # The model is there; a list that cannot be read takes nothing from that.
            manifest = ""
        await self._moves.move(
            DeploymentState.READY, layer_digest=layer_digest, manifest_digest=manifest, failure=None
        )
        _log.info("model ready", extra={"ingest": ingest.id, "model": ingest.model})

    def _rotten_or(self, error: Refused) -> Refused:
        """A blob that was there before we came, and that Ollama cannot read, is rotten there."""
        if self._push.brought or not any(text in error.words.lower() for text in _ROTTEN):
            return error
        return Refused(
            f"The target cannot read the copy of the bytes that it already had ({error.words}). Remove that"
            " blob from the target's models directory, then retry.",
            reason=Reason.TARGET_BLOB_CORRUPT,
        )


def _baseline(shown: Shown | None) -> dict[str, str]:
    return {} if shown is None else {"modified_at": shown.modified_at}


def _layer(status: str) -> str:
    """The model layer's digest, from the first line that names a layer (contract 3.5)."""
    for start in ("using existing layer ", "creating new layer "):
        if status.startswith(start):
            return status.removeprefix(start)[:80]
    return ""

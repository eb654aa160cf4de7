"""The emulator: a listener on a raw socket, a data directory, a fault plan, a call record."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .blobs import Blobs
from .calls import Calls
from .connections import Connections
from .dispatch import Dispatcher
from .eras import Era, Version
from .faults import Armed, FaultPlan, Kind
from .models import Models
from .parts import Workshop


class OllamaEmulator:
    """Speaks Ollama's HTTP contract on the current event loop.

    version decides the era (`0.24.0` A, `0.34.0` B, `0.34.1` and unknown C).
    data_dir keeps `blobs/` and `manifests/` like `$OLLAMA_MODELS`; a temporary one by default.
    reset_delay: what Go waits between the answer and the RST when a body was left unread.
    rewrite_progress: era B's `validating GGUF model` lines; real servers often send none.
    no_prune: OLLAMA_NOPRUNE. utc_offset_minutes: the zone of `modified_at`.
    """

    def __init__(
        self,
        version: str = "0.24.0",
        data_dir: Path | str | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        reset_delay: float = 0.5,
        rewrite_progress: bool = True,
        no_prune: bool = False,
        utc_offset_minutes: int = 0,
    ) -> None:
        self._temporary = data_dir is None
        self.data_dir = Path(data_dir or tempfile.mkdtemp(prefix="ollama-emulator-")).absolute()
        self.executor = ThreadPoolExecutor(max_workers=4, thread_name_prefix="ollama-emulator")
        self.blobs = Blobs(self.data_dir / "blobs")
        self.models = Models(self.data_dir / "manifests", self.blobs)
        self.faults = FaultPlan()
        self.calls = Calls()
        self.errors: list[Exception] = []
        self.reset_delay = reset_delay
        self.host = host
        self.port = port
        self._shop = Workshop(
            self.blobs, self.models, Version(version), self.executor, rewrite_progress, no_prune
        )
        self.dispatcher = Dispatcher(self._shop, self.faults, utc_offset_minutes, self._power)
        self._connections = Connections(self)
        self._listener: socket.socket | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count(1)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def version(self) -> str:
        return self._shop.version.text

    @version.setter
    def version(self, text: str) -> None:
        self._shop.version = Version(text)

    @property
    def era(self) -> Era:
        return self._shop.version.era

    @property
    def listening(self) -> bool:
        return self._listener is not None

    @property
    def wedged(self) -> int:
        """Creates of eras A and B that lost their client and hang for ever (section 3.4)."""
        return len(self.dispatcher.wedged)

    async def __aenter__(self) -> Self:
        try:
            await self.start_listening()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends every connection and thread, and removes a temporary data directory."""
        background = list(self._background)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await self.stop_listening()
        await self._drop_wedged()
        # The last writes and removals are short; waiting for them keeps the directory ours.
        self.executor.shutdown(wait=True)
        if self._temporary:
            shutil.rmtree(self.data_dir, ignore_errors=True)
        if self.errors:
            raise RuntimeError("the emulator itself failed") from self.errors[0]

    async def start_listening(self) -> None:
        """Binds (the same port as before, after `stop_listening`) and accepts."""
        if self._listener is not None:
            return
        for attempt in itertools.count(1):
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            listener = socket.socket(family, socket.SOCK_STREAM)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((self.host, self.port))
                listener.listen(128)
                break
            except OSError:
                listener.close()
                # While we were down somebody's outgoing connection may have held our port.
                if self.port == 0 or attempt >= 100:
                    raise
                await asyncio.sleep(0.05)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    async def stop_listening(self) -> None:
        """Connections are refused from now on, and those that exist are reset."""
        listener, self._listener = self._listener, None
        if listener is not None:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        await self._connections.reset_all()

    async def restart(self, prune: str = "grace", version: str | None = None) -> list[str]:
        """The process dies and comes back on the same port and directory.

        prune: what start-up pruning does (section 4): `none` (OLLAMA_NOPRUNE), `grace` (as the
        version does it: nothing younger than an hour since 0.21.0), `all` (as if an hour had
        passed). Returns the pruned digests.
        """
        await self.stop_listening()
        await self._drop_wedged()
        self._shop.shown_ns.clear()
        if version is not None:
            self.version = version
        removed: list[str] = []
        if prune != "none":
            grace = self._shop.version.prune_grace_seconds if prune == "grace" else 0
            removed = self.blobs.prune(self.models.used(), grace)
        await self.start_listening()
        return removed

    def restart_soon(self, prune: str = "grace", version: str | None = None) -> None:
        """The same, from inside a connection that will not survive it."""
        self._spawn(self._restart_quietly(prune, version))

    def refuse_soon(self, seconds: float | None) -> None:
        """Refuses connections for so long; None is until `start_listening`."""
        self._spawn(self._refuse(seconds))

    def state(self) -> dict[str, Any]:
        """What the control endpoint and the state file show."""
        blobs = {digest: self.blobs.size(digest) for digest in sorted(self.blobs.digests())}
        return {
            "url": self.url,
            "pid": os.getpid(),
            "version": self.version,
            "era": self.era.value,
            "data_dir": str(self.data_dir),
            "blobs": blobs,
            "temps": len(self.blobs.temps()),
            "models": list(self.models),
            "wedged": self.wedged,
            "calls": len(self.calls),
        }

    def _accept(self, listener: socket.socket) -> None:
        # A callback and no task: a task cancelled just after `sock_accept` would lose a socket.
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while True:
                self._connections.add(listener.accept()[0], next(self._numbers))

    async def _refuse(self, seconds: float | None) -> None:
        await self.stop_listening()
        if seconds is not None:
            await asyncio.sleep(seconds)
            await self.start_listening()

    async def _restart_quietly(self, prune: str, version: str | None) -> None:
        await self.restart(prune, version)

    def _power(self, armed: Armed | None) -> None:
        """What refuse and restart faults, and a crash (None), do to the whole server."""
        if armed is not None and armed.fault.kind is Kind.REFUSE:
            self.refuse_soon(armed.fault.seconds)
        elif armed is not None:
            self.restart_soon(armed.fault.prune, armed.fault.version)
        else:
            self.restart_soon("grace")

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _drop_wedged(self) -> None:
        wedged, self.dispatcher.wedged[:] = list(self.dispatcher.wedged), []
        for worker in wedged:
            with contextlib.suppress(Exception):
                await worker.aclose()

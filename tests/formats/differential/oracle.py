"""llama.cpp's verdict on files: the test's side of the engine process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.formats.differential.engine import read_message, write_message

_ROOT = Path(__file__).parents[3]
#: One thread each; no debugger is started for an abort's stack.
_ENVIRONMENT = {"OMP_THREAD_LIMIT": "1", "OMP_NUM_THREADS": "1", "GGML_NO_BACKTRACE": "1"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """`outcome` is taken, refused, died, hung, or slow (no verdict); `words` are llama.cpp's own."""

    outcome: str
    stage: str
    words: str

    @property
    def is_deadly(self) -> bool:
        return self.outcome in ("died", "hung")


class Oracle:
    """One engine process. Not for several threads at once."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.formats.differential.engine"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
            env={**os.environ, **_ENVIRONMENT},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._in.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._out.close()

    def ask(self, what: str, *arguments: Any) -> Verdict:
        """`what` is a method of `Llama`; paths are strings."""
        write_message(self._in.fileno(), {"ask": what, "arguments": arguments})
        return Verdict(**read_message(self._out.fileno()))

    def ask_all(self, requests: Iterable[tuple[Any, ...]]) -> Iterator[Verdict]:
        for request in requests:
            yield self.ask(*request)

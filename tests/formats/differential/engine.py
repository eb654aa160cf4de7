"""The process that asks llama.cpp: `python -m tests.formats.differential.engine`.

Requests come on standard input, answers go out on standard output, each a length (u32) and that many bytes of
JSON. The library is loaded once; a child made by fork answers, and when a file ends it (an abort, a crash, no
end) the next child takes over with the next request. So a death costs milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import resource
import signal
import struct
import sys
from typing import Any

from tests.formats.differential.llama import Llama

_LENGTH = struct.Struct("<I")
_BOARD_BYTES = 4096
_MAX_CPU_SECONDS = 10.0
_MAX_SECONDS = 60.0
_MAX_MEMORY_BYTES = 12 << 30


class Board:
    """Memory that outlives the child: the stage it is in, and the last that llama.cpp said."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _BOARD_BYTES)
        self._stage = ""
        self._words: list[str] = []

    def clear(self) -> None:
        self._stage, self._words = "", []
        self._write()

    def stage(self, name: str) -> None:
        self._stage = name
        self._write()

    def say(self, words: str) -> None:
        self._words = [*self._words[-3:], words[:600]]
        self._write()

    def _write(self) -> None:
        data = json.dumps([self._stage, "; ".join(self._words)[-900:]]).encode()[: _BOARD_BYTES - 4]
        self._memory.seek(0)
        self._memory.write(_LENGTH.pack(len(data)) + data)

    def read(self) -> tuple[str, str]:
        self._memory.seek(0)
        (length,) = _LENGTH.unpack(self._memory.read(_LENGTH.size))
        stage, words = json.loads(self._memory.read(length))
        return stage, words


def read_exactly(source: int, count: int) -> bytes:
    """Not more than it takes: the next child reads on from the same place."""
    data = b""
    while len(data) < count:
        piece = os.read(source, count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def read_message(source: int) -> Any:
    (length,) = _LENGTH.unpack(read_exactly(source, _LENGTH.size))
    return json.loads(read_exactly(source, length))


def write_message(sink: int, message: Any) -> None:
    data = json.dumps(message).encode()
    data = _LENGTH.pack(len(data)) + data
    while data:
        data = data[os.write(sink, data) :]


def _serve(llama: Llama, board: Board, source: int, sink: int) -> None:
    while True:
        request = read_message(source)
        board.clear()
        signal.setitimer(signal.ITIMER_PROF, _MAX_CPU_SECONDS)
        signal.setitimer(signal.ITIMER_REAL, _MAX_SECONDS)
        ok = getattr(llama, request["ask"])(*request["arguments"])
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        stage, words = board.read()
        write_message(sink, {"outcome": "taken" if ok else "refused", "stage": stage, "words": words})


def main() -> int:
    source, sink = os.dup(0), os.dup(1)
    # What the library prints goes nowhere: the answers are on a descriptor of their own.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    board = Board()
    llama = Llama(board.say, board.stage)
    while True:
        child = os.fork()
        if child == 0:
            with contextlib.suppress(EOFError):
                _serve(llama, board, source, sink)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            return 0
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        # A machine with much else to do is no fault of the file: only processor time tells of no end.
        outcome = {signal.SIGPROF: "hung", signal.SIGALRM: "slow"}.get(signal.Signals(number or 1), "died")
        stage, words = board.read()
        name = signal.Signals(number).name if number else f"exit {os.WEXITSTATUS(status)}"
        write_message(sink, {"outcome": outcome, "stage": stage, "words": f"{name}: {words}"})


if __name__ == "__main__":
    sys.exit(main())

"""`python -m tests.ollama_emulator --listen 127.0.0.1:0 --version 0.24.0`"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from pathlib import Path

from .server import OllamaEmulator


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.ollama_emulator")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT")
    parser.add_argument("--version", default="0.24.0", help="the Ollama version to emulate")
    parser.add_argument("--data-dir", type=Path, help="default: a temporary directory")
    parser.add_argument(
        "--state-file", type=Path, help="JSON with url, pid and state; written at start and end"
    )
    return parser.parse_args()


def _write_state(path: Path | None, emulator: OllamaEmulator, *, running: bool) -> None:
    if path is not None:
        partial = path.with_name(path.name + ".part")
        partial.write_text(json.dumps({**emulator.state(), "running": running}, indent=2) + "\n")
        partial.replace(path)


async def _main(arguments: argparse.Namespace) -> None:
    host, _, port = arguments.listen.rpartition(":")
    emulator = OllamaEmulator(arguments.version, arguments.data_dir, host=host.strip("[]"), port=int(port))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with emulator:
        _write_state(arguments.state_file, emulator, running=True)
        print(f"listening on {emulator.url}", flush=True)
        await stop.wait()
        _write_state(arguments.state_file, emulator, running=False)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(_arguments()))
    sys.exit(0)

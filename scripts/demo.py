"""`make demo`: the main job once, from nothing to a model that runs; exit code 0 only if all of it worked.

Uses the Ollama at OLLAMA_URL (default http://127.0.0.1:11434) if it answers, else the emulator, and says
which. MODEL=path pushes that file; else a small valid GGUF is made. KEEP=1 leaves the model on a real Ollama.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
MODEL_NAME = "model-ingest-demo:latest"
START_SECONDS = 60.0


def say(text: str) -> None:
    """One line to the person."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


#: Proxies of the environment are for the outside; a demo talks to this machine.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ollama_version(url: str) -> str | None:
    """Its version if an Ollama answers there."""
    try:
        with _OPENER.open(f"{url}/api/version", timeout=3) as response:
            return str(json.load(response)["version"])
    except (OSError, ValueError, KeyError, http.client.HTTPException):
        return None


@contextlib.contextmanager
def process(
    name: str, arguments: list[str], log: Path, **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A child that is ended when the block is left; its output goes to `log`."""
    with log.open("wb") as sink:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("INGEST_")}
        environment = {**inherited, **variables, "PYTHONPATH": str(ROOT)}
        child = subprocess.Popen(  # noqa: S603 (our own interpreter)
            [sys.executable, *arguments], cwd=ROOT, env=environment, stdout=sink, stderr=sink
        )
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            code = child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            code = child.wait()
        say(f"   {name} stopped (exit {code})")


def wait_for_line(log: Path, text: str, child: subprocess.Popen[bytes]) -> str:
    """The first line of the log that holds `text`."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        for line in log.read_text(errors="replace").splitlines():
            if text in line:
                return line
        if child.poll() is not None:
            break
        time.sleep(0.05)
    sys.stderr.write(log.read_text(errors="replace"))
    raise SystemExit(f"error: `{text}` did not appear in {log}")


def small_gguf(path: Path) -> None:
    """The least that the format's rules take for a model."""
    from tests.support.models import model

    path.write_bytes(model())


@contextlib.contextmanager
def target(directory: Path) -> Iterator[tuple[str, bool]]:
    """The URL of an Ollama, and whether it is a real one."""
    url = os.environ.get("OLLAMA_URL", "http://127.0.0.1:11434").rstrip("/")
    version = ollama_version(url)
    if version is not None:
        say(f"== Using the REAL Ollama {version} at {url}")
        yield url, True
        return
    say(f"== No Ollama answers at {url}: using the EMULATOR. Nothing here shows that a model can answer.")
    log = directory / "emulator.log"
    arguments = ["-m", "tests.ollama_emulator", "--listen", "127.0.0.1:0", "--version", "0.24.0"]
    with process("emulator", [*arguments, "--data-dir", str(directory / "ollama")], log) as child:
        line = wait_for_line(log, "listening on ", child)
        yield line.split("listening on ")[1].strip(), False


def remove_model(url: str) -> None:
    """Leaves a real Ollama as it was found."""
    request = urllib.request.Request(  # noqa: S310 (http only)
        f"{url}/api/delete", data=json.dumps({"model": MODEL_NAME}).encode(), method="DELETE"
    )
    with _OPENER.open(request, timeout=30):
        say(f"== Deleted {MODEL_NAME} from Ollama again (KEEP=1 keeps it)")


def run(command: list[str], server: str) -> None:
    """One `model-ingest` command, shown and run; a failure ends the demo."""
    say(f"\n$ model-ingest {' '.join(command)} --server {server}")
    program = str(BIN / "model-ingest")
    result = subprocess.run([program, *command, "--server", server], cwd=ROOT, check=False)  # noqa: S603
    if result.returncode:
        raise SystemExit(f"error: `model-ingest {command[0]}` ended with exit code {result.returncode}")


def main() -> int:
    """The exit code."""
    sys.path.insert(0, str(ROOT))
    given = os.environ.get("MODEL", "")
    if given and not Path(given).is_file():
        raise SystemExit(f"error: MODEL={given} is no file")
    # A SIGTERM (a CI's time-out) must stop the children as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="model-ingest-demo-") as name:
        directory = Path(name)
        # The client remembers unfinished pushes; those of a demo are nobody's business.
        os.environ["XDG_STATE_HOME"] = str(directory / "state")
        model = Path(given).resolve() if given else directory / "model.gguf"
        if not given:
            small_gguf(model)
        say(f"== Pushing {model} ({model.stat().st_size} bytes)")
        with target(directory) as (url, is_real):
            log = directory / "service.log"
            settings = {
                "INGEST_LISTEN": "127.0.0.1:0",
                "INGEST_DATA_DIR": str(directory / "data"),
                "INGEST_DATABASE_URL": "",
                "INGEST_TARGETS": f"default={url}",
                "INGEST_DRAIN_SECONDS": "5",
            }
            with process("service", ["-m", "ingest_service", "serve"], log, **settings) as child:
                line = wait_for_line(log, "message=serving ", child)
                server = "127.0.0.1:" + line.partition(" port=")[2].split()[0]
                say(f"== The service listens on {server} (SQLite, local directory)")
                run(["push", str(model), "--name", MODEL_NAME], server)
                run(["ls"], server)
                run(["show", MODEL_NAME], server)
                if is_real and os.environ.get("KEEP") != "1":
                    remove_model(url)
                say("\n== Stopping what was started")
    say(f"== Done in {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        raise SystemExit("interrupted: the demo's service and its store are gone") from None

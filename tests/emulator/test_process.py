"""The emulator as a process, in a thread, and its control endpoint."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.emulator.helpers import DIGEST, MODEL
from tests.ollama_emulator import EmulatorThread, Fault

# It is a tool of the tests: what they need of it fails there, and contract/ holds it to be like Ollama.
pytestmark = pytest.mark.extended

ROOT = Path(__file__).parents[2]


class Running:
    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-W", "error", "-m", "tests.ollama_emulator", *arguments]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:"), line
        self.url = line.split()[-1]

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    state, data = str(tmp_path / "state.json"), str(tmp_path / "data")
    process = Running("--version", "0.34.0", "--data-dir", data, "--state-file", state)
    yield process
    process.stop()


def test_life_of_a_process(running: Running, tmp_path: Path) -> None:
    state = json.loads((tmp_path / "state.json").read_text())
    assert (state["url"], state["running"], state["era"]) == (running.url, True, "B")
    with httpx.Client(base_url=running.url, trust_env=False) as client:
        client.post(f"/api/blobs/{DIGEST}", content=MODEL)
        body = {"model": "m", "files": {"m.gguf": DIGEST}, "stream": False}
        assert client.post("/api/create", json=body).json() == {"status": "success"}
        assert running.stop() == 0
    state = json.loads((tmp_path / "state.json").read_text())
    assert (state["running"], state["models"]) == (False, ["m:latest"])
    assert DIGEST in state["blobs"]
    again = Running("--data-dir", str(tmp_path / "data"))
    try:
        names = [model["name"] for model in httpx.get(f"{again.url}/api/tags").json()["models"]]
        assert names == ["m:latest"]
    finally:
        assert again.stop(signal.SIGINT) == 0


def test_control_endpoint(running: Running) -> None:
    with httpx.Client(base_url=running.url, trust_env=False) as client:
        control = "/__emulator__"
        added = client.post(
            f"{control}/faults",
            json=[
                {"kind": "respond", "call": "version", "status": 503, "body_base64": "/w=="},
                {"kind": "stall", "call": "tags"},
            ],
        )
        assert added.status_code == 201
        _, second = added.json()["faults"]
        refused = client.get("/api/version")
        assert (refused.status_code, refused.content) == (503, b"\xff")
        with pytest.raises(httpx.ReadTimeout):
            client.get("/api/tags", timeout=0.2)
        listed = client.get(f"{control}/faults").json()["faults"]
        assert [fault["fired"] for fault in listed] == [1, 1]
        released = client.post(f"{control}/release", json={"id": second["id"]})
        assert released.json() == {"released": 1}
        client.post(f"/api/blobs/{DIGEST}", content=MODEL)
        calls = client.get(f"{control}/calls").json()["calls"]
        assert [call["name"] for call in calls] == ["version", "tags", "blob_post"]
        assert [call["faults"] for call in calls] == [["respond"], ["stall"], []]
        assert (calls[0]["status"], calls[2]["status"]) == (503, 201)
        assert calls[2]["body_bytes"] == len(MODEL)
        blob = client.get(f"{control}/blobs/{DIGEST}").json()
        assert blob == {"size": len(MODEL), "sha256": DIGEST}
        assert client.get(f"{control}/state").json()["blobs"] == {DIGEST: len(MODEL)}
        assert client.delete(f"{control}/calls").status_code == 204
        assert client.delete(f"{control}/faults").status_code == 204
        assert client.get(f"{control}/faults").json() == {"faults": []}
        assert client.get(f"{control}/calls").json() == {"calls": []}
        for path, body in (("faults", {"kind": "no"}), ("faults", [1]), ("refuse", {}), ("x", {})):
            status = client.post(f"{control}/{path}", json=body).status_code
            assert status == (404 if path == "x" else 400)


@pytest.mark.parametrize(("path", "body"), [("restart", {"prune": "all"}), ("refuse", {"seconds": 0.2})])
def test_control_of_the_whole_server(running: Running, path: str, body: dict[str, object]) -> None:
    transport = httpx.HTTPTransport(retries=6)
    with httpx.Client(base_url=running.url, trust_env=False, transport=transport) as client:
        client.post(f"/api/blobs/{DIGEST}", content=MODEL)
        assert client.post(f"/__emulator__/{path}", json=body).status_code == 204
    with httpx.Client(
        base_url=running.url, trust_env=False, transport=httpx.HTTPTransport(retries=6)
    ) as client:
        status = client.head(f"/api/blobs/{DIGEST}").status_code
    assert status == (404 if path == "restart" else 200)


def test_thread() -> None:
    holder = EmulatorThread(version="0.34.1", reset_delay=0.1)
    with holder as emulator, httpx.Client(base_url=emulator.url, trust_env=False) as client:
        assert client.get("/api/version").json() == {"version": "0.34.1"}
        emulator.faults.add(Fault("respond", "version", status=500))
        assert client.get("/api/version").status_code == 500
        holder.run(emulator.restart())
        assert emulator.listening
    assert not emulator.data_dir.exists()

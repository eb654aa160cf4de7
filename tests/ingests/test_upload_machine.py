"""Any history of uploads, with crashes in it, against a small model of what was promised.

Breaks when: committed_size goes back or counts bytes that are not on the disk, a wrong byte gets into a file,
a crash or a newcomer costs a committed byte or leaves another's bytes behind, a file is stored whose digest
is not right, a failed file's bytes stay, or an event's number is left out.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from ingest_service.formats import FormatLimits, FormatReader
from tests.ingests.lives import Life, Refused, start_fork_server
from tests.support.files import digest, gguf

KIBIBYTE = 1024
OPEN_STATES = {"PENDING", "UPLOADING"}
#: Counted from the newest; mostly one file, so that histories of it get long.
WHICH = st.sampled_from([0, 0, 0, 1])
SIZE = st.integers(400, 64 * KIBIBYTE)
MOST_FILES = 6
LENGTH = st.integers(1, 20 * KIBIBYTE)
SHARE = st.floats(0, 1)


def harmed(data: bytes) -> bytes:
    return bytes(byte ^ 0xFF for byte in data)


@dataclass
class Sent:
    """One file: what its clients did, and the least and the most that may be left of it."""

    request: tuple[str, int, str, str]
    data: bytes
    ingest_id: str
    file_id: str
    state: str
    #: What the present or last writer brought; where a writer was lost, what was found of it.
    received: bytes = b""
    durable_bytes: int = 0
    ended_as: str = "FAILED"
    call: int | None = None
    sha256: str = ""

    def takes(self, fresh: bytes) -> bool:
        """False if these bytes show that it is no model."""
        reader = FormatReader("model.gguf", len(self.data), FormatLimits())
        reader.feed(self.received + fresh)
        return reader.error is None


class UploadMachine(RuleBasedStateMachine):
    migrated: Path

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="model-ingest-machine-"))
        (self.directory / "data").mkdir()
        shutil.copy(self.migrated, self.directory / "test.db")
        self.days_later = 0.0
        self.files: list[Sent] = []
        self.calls = 0
        self.life = Life(self.directory, 0.0)

    # What is asked for ------------------------------------------------------------------------------------

    @initialize(size=SIZE, declared=st.booleans())
    def first(self, size: int, *, declared: bool) -> None:
        self._create(size, declared=declared)

    # Few rules, each with a choice: of many, hypothesis would leave most out of a history and repeat others.

    @rule(
        which=WHICH,
        deed=st.sampled_from(
            ["write", "write", "write wrong bytes", "write all", "overlap", "overlap", "overlap wrong bytes",
             "gap", "harmed on the way", "too much"]
        ),
        length=LENGTH,
        back=SHARE,
    )  # fmt: skip
    def send(self, which: int, deed: str, length: int, back: float) -> None:
        if deed.startswith("write") and deed != "write all":
            self.write(which, length, right=deed == "write")
        elif deed.startswith("overlap"):
            self.overlap(which, back, length, right=deed == "overlap")
        elif deed == "gap":
            self.gap(which, length)
        elif deed == "harmed on the way":
            self.chunk_that_the_network_harmed(which, length)
        elif deed == "too much":
            self.more_than_was_declared(which)
        else:
            self._complete(self._opened(which))

    @rule(which=WHICH, lost=LENGTH, brought=LENGTH)
    def take_over(self, which: int, lost: int, brought: int) -> None:
        """The second writer brings other bytes, and perhaps fewer, than the first had sent."""
        file = self._opened(which)
        at = len(file.received)
        wrong = harmed(file.data[at : at + lost])
        if file.call is not None and wrong and file.takes(wrong):
            self._chunk(file, at, wrong)
        self._begin(file)
        at = len(file.received)
        if file.call is not None and at < len(file.data):
            self._chunk(file, at, file.data[at : at + brought])

    @rule(
        which=WHICH,
        given=st.sampled_from(["right", "right", "own", "wrong", "none"]),
        deed=st.sampled_from(["finish", "finish", "finish early", "finish once more", "crash amid it"]),
        milliseconds=st.integers(0, 60),
    )
    def end(self, which: int, given: str, deed: str, milliseconds: int) -> None:
        if deed == "crash amid it":
            self.crash_while_it_is_finished(which, given, milliseconds)
        elif deed == "finish once more":
            self.finish_once_more(given)
        else:
            self.finish(which, given, early=deed == "finish early")

    @rule(
        which=WHICH,
        deed=st.sampled_from(["half-close", "half-close", "vanish", "cancel", "leave and cancel"]),
    )
    def leave(self, which: int, deed: str) -> None:
        if deed == "leave and cancel":
            # Nobody is at it then who would clean up: that is the sweep's.
            self.half_close(which)
            self.cancel(which)
        else:
            {"half-close": self.half_close, "vanish": self.vanish, "cancel": self.cancel}[deed](which)

    @rule(
        which=WHICH,
        deed=st.sampled_from(["crash", "crash", "stop", "sweep", "sweep", "create", "create", "ask again"]),
        days=st.sampled_from([0.0, 6.0, 8.0]),
        size=SIZE,
        declared=st.booleans(),
        same=st.booleans(),
    )
    def happen(self, which: int, deed: str, days: float, size: int, *, declared: bool, same: bool) -> None:
        if deed == "create":
            self.create(size, declared=declared, same=same)
        elif deed == "sweep":
            self.sweep(days)
        elif deed == "ask again":
            self.create_again(which)
        else:
            {"crash": self._crash, "stop": self.stop_and_start}[deed]()

    def create(self, size: int, *, declared: bool, same: bool) -> None:
        # The same bytes as another's: one copy, or none to send at all.
        if len(self.files) < MOST_FILES:
            self._create(len(self.files[0].data) if same else size, declared=declared)

    def _create(self, size: int, *, declared: bool) -> None:
        data = gguf(size)
        number = len(self.files)
        request = (f"model{number}", size, digest(data) if declared else "", f"request{number}")
        ingest_id, file_id = self.life.ask("create", *request)
        is_there = declared and any(file.sha256 == digest(data) for file in self.files)
        file = Sent(request, data, ingest_id, file_id, "STORED" if is_there else "PENDING")
        if is_there:
            file.received, file.durable_bytes, file.sha256 = data, size, digest(data)
        self.files.append(file)

    def create_again(self, which: int) -> None:
        file = self._file(which)
        assert self.life.ask("create", *file.request) == (file.ingest_id, file.file_id)
        model, size, sha256, request_id = file.request
        self._refused("REQUEST_ID_REUSED", "create", model, size + 1, sha256, request_id)

    def write(self, which: int, length: int, *, right: bool) -> None:
        file = self._opened(which)
        fresh = file.data[len(file.received) :][:length]
        if file.call is None or not fresh:
            return
        self._chunk(file, len(file.received), fresh if right else harmed(fresh))

    def _complete(self, file: Sent) -> None:
        while file.call is not None and len(file.received) < len(file.data):
            at = len(file.received)
            self._chunk(file, at, file.data[at : at + 16 * KIBIBYTE])

    def overlap(self, which: int, back: float, length: int, *, right: bool) -> None:
        file = self._opened(which)
        if file.call is None or not file.received:
            return
        offset = int(back * (len(file.received) - 1))
        data = file.data[offset:][:length]
        behind = len(file.received) - offset
        self._chunk(file, offset, data if right else harmed(data[:behind]) + data[behind:])

    def _chunk(self, file: Sent, offset: int, data: bytes) -> None:
        fresh = data[len(file.received) - offset :]
        if fresh and not file.takes(fresh):
            self._refused("FORMAT_INVALID", "chunk", file.call, offset, data)
            self._failed(file)
            return
        assert self.life.ask("chunk", file.call, offset, data) == "taken"
        file.received += fresh

    def gap(self, which: int, length: int) -> None:
        file = self._opened(which)
        if file.call is not None:
            refused = self._refused("OFFSET_GAP", "chunk", file.call, len(file.received) + length, b"data")
            assert refused.metadata["committed_size"] == str(len(file.received))
            self._left(file)

    def chunk_that_the_network_harmed(self, which: int, length: int) -> None:
        file = self._opened(which)
        if file.call is not None:
            data = file.data[:length]
            refused = self._refused("CHUNK_CHECKSUM_MISMATCH", "harmed", file.call, len(file.received), data)
            assert refused.metadata["committed_size"] == str(len(file.received))
            self._left(file)

    def more_than_was_declared(self, which: int) -> None:
        file = self._opened(which)
        if file.call is not None:
            at = len(file.received)
            self._refused("SIZE_MISMATCH", "chunk", file.call, at, file.data[at:] + b"!")
            self._failed(file)

    def half_close(self, which: int) -> None:
        file = self._opened(which)
        if file.call is not None:
            assert self.life.ask("half_close", file.call) == "half-closed"
            self._left(file)

    def vanish(self, which: int) -> None:
        file = self._opened(which)
        if file.call is not None:
            self.life.ask("vanish", file.call)
            self._left(file)

    def finish(self, which: int, given: str, *, early: bool) -> None:
        file = self._file(which) if early else self._opened(which)
        if not early:
            self._complete(file)
        sha256 = self._digest(file, given)
        if file.call is None:
            return
        state, reason = self._end_of(file, sha256)
        if reason:
            self._refused(reason, "finish", file.call, sha256)
        else:
            assert self.life.ask("finish", file.call, sha256) == "STORED"
        self._ended(file, state)

    def _digest(self, file: Sent, given: str) -> str:
        # "own": of what was really sent, be it the model or not.
        return {"right": digest(file.data), "own": digest(file.received), "wrong": digest(b"other"),
                "none": ""}[given]  # fmt: skip

    def _end_of(self, file: Sent, sha256: str) -> tuple[str, str]:
        """What `finish` has to make of it: the file's state, and the reason if it is refused."""
        declared = file.request[2]
        if sha256 and declared and sha256 != declared:
            return "FAILED", "DIGEST_MISMATCH"
        if not sha256 and not declared:
            return "UPLOADING", "DIGEST_REQUIRED"
        if len(file.received) < len(file.data):
            return "FAILED", "SIZE_MISMATCH"
        if digest(file.received) != (sha256 or declared):
            return "FAILED", "DIGEST_MISMATCH"
        return "STORED", ""

    def finish_once_more(self, given: str) -> None:
        """The answer was lost: the client asks again."""
        for file in (file for file in self.files if file.state == "STORED"):
            self.calls += 1
            assert self.life.ask("open", self.calls, file.ingest_id) == "stored already"
            sha256 = self._digest(file, given)
            if sha256 in {"", file.sha256}:
                assert self.life.ask("finish", self.calls, sha256) == "STORED"
            else:
                self._refused("DIGEST_MISMATCH", "finish", self.calls, sha256)

    def cancel(self, which: int) -> None:
        file = self._file(which)
        self.life.ask("cancel", file.ingest_id)
        if file.state in OPEN_STATES:
            if file.call is not None:
                self._refused("UPLOAD_CLOSED", "outcome", file.call)
            self._failed(file, "CANCELLED")

    # What time and fate do --------------------------------------------------------------------------------

    def sweep(self, days: float) -> None:
        self.days_later += days
        expired = self.life.ask("sweep", self.days_later)
        for file in self.files:
            if file.ingest_id in expired:
                # Whoever is at it is left in peace.
                assert (file.state in OPEN_STATES, file.call) == (True, None)
                self._failed(file, "EXPIRED")
            elif days > 7:
                assert file.call is not None or file.state not in OPEN_STATES
        kept = {f"{file.file_id}.part" for file in self.files if file.state == "UPLOADING"}
        assert {path.name for path in (self.directory / "data" / "uploads").glob("*.part")} <= kept

    def crash_while_it_is_finished(self, which: int, given: str, milliseconds: int) -> None:
        file = self._opened(which)
        self._complete(file)
        if file.call is None:
            return
        sha256 = self._digest(file, given)
        state, _ = self._end_of(file, sha256)
        self.life.tell("finish", file.call, sha256)
        time.sleep(milliseconds / 1000)
        self._crash(finishing=file, state=state)

    def _crash(self, finishing: Sent | None = None, state: str = "") -> None:
        self.life.kill()
        self.life = Life(self.directory, self.days_later)
        for file in self.files:
            found = self._look(file)[1]
            if file is finishing and found == state and state != "UPLOADING":
                self._ended(file, state)
            elif file.call is not None:
                file.call = None
                self._lost_writer(file)

    def stop_and_start(self) -> None:
        self._stop()
        self.life = Life(self.directory, self.days_later)

    def _stop(self) -> None:
        drained, tasks, held_bytes, open_files = self.life.ask("stop")
        at_work = [file for file in self.files if file.call is not None]
        assert len(drained) == len(at_work)
        assert (tasks, held_bytes, open_files) == (0, 0, [])
        self.life.kill()
        for file in at_work:
            self._left(file)

    # What must be so --------------------------------------------------------------------------------------

    @invariant()
    def promises_are_kept(self) -> None:
        found = self.life.ask("look")
        for file in self.files:
            ingest_state, state, committed, sha256 = found[file.ingest_id]
            assert state == file.state
            assert file.durable_bytes <= committed <= len(file.received)
            file.durable_bytes = committed
            partial = self._partial(file)
            if state == "UPLOADING":
                kept = partial.read_bytes() if partial.exists() else b""
                assert kept[:committed] == file.received[:committed]
                if file.call is None:
                    assert kept == file.received
            elif state == "STORED":
                assert sha256 == digest(file.received)
                blob = self.directory / "data" / "blobs" / sha256.replace(":", "-")
                assert blob.read_bytes() == file.received
                assert not partial.exists()
            elif state == "FAILED":
                assert ingest_state == file.ended_as

    def teardown(self) -> None:
        try:
            self.sweep(0.0)
            for file in self.files:
                sequences = self.life.ask("sequences", file.ingest_id)
                assert sequences == list(range(1, len(sequences) + 1))
                assert sequences
            self._stop()
            self.promises_are_kept_on_the_disk()
        finally:
            self.life.kill()
            shutil.rmtree(self.directory)

    def promises_are_kept_on_the_disk(self) -> None:
        """After a stop in good order nothing is left that was not durable."""
        for file in self.files:
            partial = self._partial(file)
            if file.state == "UPLOADING" and partial.exists():
                assert partial.read_bytes() == file.received

    # How it is told ---------------------------------------------------------------------------------------

    def _partial(self, file: Sent) -> Path:
        return self.directory / "data" / "uploads" / f"{file.file_id}.part"

    def _file(self, which: int) -> Sent:
        return self.files[-1 - which % len(self.files)]

    def _opened(self, which: int) -> Sent:
        """The file, with a call open if it takes bytes; a new one for it if it does not, within reason."""
        file = self._file(which)
        if file.state not in OPEN_STATES and len(self.files) < MOST_FILES:
            self._create(30 * KIBIBYTE + len(self.files), declared=False)
            file = self.files[-1]
        if file.call is None and file.state in OPEN_STATES:
            self._begin(file)
        return file

    def _begin(self, file: Sent) -> None:
        self.calls += 1
        if file.state == "STORED":
            assert self.life.ask("open", self.calls, file.ingest_id) == "stored already"
            assert self.life.ask("half_close", self.calls) == "half-closed"
        elif file.state == "FAILED":
            reason = "UPLOAD_EXPIRED" if file.ended_as == "EXPIRED" else "UPLOAD_CLOSED"
            self._refused(reason, "open", self.calls, file.ingest_id)
        else:
            assert self.life.ask("open", self.calls, file.ingest_id) == "session"
            if file.call is not None:
                self._refused("WRITER_SUPERSEDED", "outcome", file.call)
                self._lost_writer(file)
            file.state, file.call = "UPLOADING", self.calls
            # Of those before it, this writer finds the committed bytes and nothing behind them.
            assert self._partial(file).read_bytes() == file.received

    def _look(self, file: Sent) -> tuple[str, str, int, str]:
        found: tuple[str, str, int, str] = self.life.ask("look")[file.ingest_id]
        return found

    def _refused(self, reason: str, *question: object) -> Refused:
        with pytest.raises(Refused) as caught:
            self.life.ask(*question)  # type: ignore[arg-type]
        assert caught.value.reason == reason
        return caught.value

    def _left(self, file: Sent) -> None:
        """Its writer went in peace: every byte that it brought is durable."""
        file.call = None
        file.durable_bytes = len(file.received)

    def _lost_writer(self, file: Sent) -> None:
        """Of what its writer brought, so much was committed; the rest is gone, and must not come back."""
        committed = self._look(file)[2]
        assert file.durable_bytes <= committed <= len(file.received)
        file.received = file.received[:committed]

    def _ended(self, file: Sent, state: str) -> None:
        file.call = None
        if state == "FAILED":
            self._failed(file)
        elif state == "STORED":
            file.state, file.sha256 = "STORED", digest(file.received)
        else:
            self._left(file)

    def _failed(self, file: Sent, ingest_state: str = "FAILED") -> None:
        file.state, file.ended_as, file.call = "FAILED", ingest_state, None


def _run(migrated_sqlite: Path, examples: int, steps: int) -> None:
    class Machine(UploadMachine):
        migrated = migrated_sqlite

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            # Crashes do not repeat themselves: shrinking would take minutes and might find nothing.
            phases=(Phase.generate,),
            report_multiple_bugs=False,
        ),
    )


@pytest.fixture(scope="session", autouse=True)
def fork_server() -> None:
    """Shared by the whole session, so no test's own."""
    start_fork_server()


def test_any_history_keeps_its_promises(migrated_sqlite: Path) -> None:
    _run(migrated_sqlite, examples=3, steps=25)


@pytest.mark.soak
def test_any_long_history_keeps_its_promises(migrated_sqlite: Path) -> None:
    _run(migrated_sqlite, examples=80, steps=60)

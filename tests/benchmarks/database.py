"""A PostgreSQL server of the benchmark's own, where its programs are on this machine."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def programs() -> Path | None:
    """The folder of PostgreSQL's server programs; None: they are not here (Debian: apt-get install postgresql)."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("initdb")
    folders = [*installed, *([Path(on_path).parent] if on_path else [])]
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


class Database:
    """A durable server (fsync) on a socket, with PostgreSQL's own defaults otherwise."""

    def __init__(self, folder: Path, bin_folder: Path) -> None:
        self._folder, self._bin = folder, bin_folder
        self._made = 0
        # PostgreSQL refuses to be run by root.
        names = {user.pw_name for user in pwd.getpwall()}
        self._user = next(name for name in ("postgres", "nobody") if name in names) if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(folder, self._user)
        init = [bin_folder / "initdb", "-D", folder / "data", "-U", "postgres", "--auth=trust", "--encoding=UTF8"]
        subprocess.run(init, check=True, user=self._user, cwd=folder, stdout=subprocess.DEVNULL)
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [bin_folder / "postgres", "-D", folder / "data", "-k", folder, "-c", "listen_addresses="],
                stdout=log,
                stderr=log,
                user=self._user,
            )
        ready = [bin_folder / "pg_isready", "-q", "-h", folder]
        until = time.monotonic() + 120
        while subprocess.run(ready, check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"PostgreSQL did not start: {(folder / 'log').read_text()[-1000:]}")
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        return self._process.pid

    def new(self) -> str:
        """The URL of an empty database."""
        self._made += 1
        name = f"bench{self._made}"
        subprocess.run([self._bin / "createdb", "-h", self._folder, "-U", "postgres", name], check=True)
        return f"postgresql://postgres@/{name}?host={self._folder}"

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)


@contextmanager
def database() -> Iterator[Database | None]:
    """A running server; None where its programs are missing. A socket's path has at most 107 characters."""
    bin_folder = programs()
    if bin_folder is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="nextbest-pg-") as name:
        server = Database(Path(name), bin_folder)
        try:
            yield server
        finally:
            server.stop()

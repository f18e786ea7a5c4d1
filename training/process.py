"""Who makes a run: the process, as its tags name it, so that somebody can see later whether it still lives."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_TAG = "nextbest."


@dataclass(frozen=True)
class Process:
    """Enough to tell a process from another one that was given the same number later."""

    host: str
    boot: str
    pid: int
    started: str

    @classmethod
    def this(cls) -> Process:
        return cls(socket.gethostname(), _boot_id(), os.getpid(), _started(os.getpid()))

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> Process | None:
        names = [f"{_TAG}{name}" for name in ("host", "boot", "pid", "started")]
        if not all(name in tags for name in names):
            return None
        host, boot, pid, started = (tags[name] for name in names)
        return cls(host, boot, int(pid), started)

    @property
    def tags(self) -> dict[str, str]:
        parts = {"host": self.host, "boot": self.boot, "pid": str(self.pid), "started": self.started}
        return {f"{_TAG}{name}": value for name, value in parts.items()}

    @property
    def is_gone(self) -> bool:
        """True when it ran on this host and surely no longer does."""
        if self.host != socket.gethostname():
            return False
        return self.boot != _boot_id() or _started(self.pid) != self.started


def _boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else "unknown"


def _started(pid: int) -> str:
    """When a process started, in clock ticks since boot; empty when it does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return _alive_elsewhere(pid)


def _alive_elsewhere(pid: int) -> str:
    """Systems without /proc: "runs" or empty."""
    if Path("/proc/self").exists():
        return ""
    try:
        os.kill(pid, 0)
    except OSError:
        return ""
    return "runs"

"""No process outlives the one that started it, even where that one was killed and could not say goodbye."""

from __future__ import annotations

import os
import signal
import threading

POLL_SECONDS = 0.5


def stop_with_parent() -> None:
    """Ask this process to stop (SIGTERM) as soon as the process that started it is gone."""
    parent = os.getppid()
    threading.Thread(target=_watch, args=(parent, threading.Event()), name="parent-watch", daemon=True).start()


def _watch(parent: int, never: threading.Event) -> None:
    while os.getppid() == parent:
        never.wait(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)

"""Servers that start in a moment, to be killed: run as a process of its own that imports everything once.

    python forked_server.py PORT

For each line on standard input it forks a process that serves the app on PORT, with everything opened anew, and says
its number. Settings come from the environment, as the server's do. What is left out of the real server is BentoML,
which mounts the app and passes requests on, and the seconds that its imports take.
"""

from __future__ import annotations

import os
import sys
import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path

import mlflow.tracking  # noqa: F401
import uvicorn

import serving.trial  # noqa: F401
from serving.api import create_app
from serving.opening import Opening, open_serving
from serving.orphans import stop_with_parent
from serving.settings import Settings


def serve(port: int) -> None:
    stop_with_parent()
    settings = Settings.from_environment(os.environ, Path.cwd())
    opening = Opening(lambda: open_serving(settings))
    app = create_app(opening, clock=lambda: datetime.now(UTC), new_decision_id=lambda: uuid.uuid4().hex)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


def main(port: int) -> None:
    # A thread that holds a lock is not there after a fork, and its lock stays.
    names = {Path(f"/proc/self/task/{task}/comm").read_text().strip() for task in os.listdir("/proc/self/task")}
    assert names <= {"python", "jemalloc_bg_thd"}, names  # jemalloc looks after its own
    assert threading.active_count() == 1
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            serve(port)
            os._exit(0)
        print(child, flush=True)
        os.waitpid(child, 0)
        print("gone", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))

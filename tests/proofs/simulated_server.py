"""The served app over HTTP with a clock that is told the time: run as a process of its own.

    python simulated_server.py PORT CLOCK

CLOCK is a file of eight bytes, the present in seconds since 1970 as a float. Settings come from the environment, as the
server's do. Everything but the clock is what `serving.service` mounts.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

import uvicorn

from serving.api import create_app
from serving.opening import Opening, open_serving
from serving.settings import Settings


def main(port: int, clock: Path) -> None:
    """Serve until SIGTERM."""
    settings = Settings.from_environment(os.environ, Path.cwd())
    with clock.open("rb") as file, mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ) as told:
        app = create_app(
            Opening(lambda: open_serving(settings)),
            clock=lambda: datetime.fromtimestamp(struct.unpack("d", told[:8])[0], UTC),
            new_decision_id=lambda: uuid.uuid4().hex,
        )
        uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))

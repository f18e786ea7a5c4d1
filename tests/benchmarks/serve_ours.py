"""The server of `nextbest serve`, without its two minutes for becoming ready: python serve_ours.py PORT WORKERS.

On a busy machine the imports alone may take longer, and it is not the start that is measured.
"""

import os
import sys
from pathlib import Path

from serving.launch import HOST, command, environment
from serving.settings import Settings


def serve(port: int, workers: int) -> None:
    """Become the server; settings come from the environment, as they do there."""
    arguments = command(HOST, port)
    settings = Settings.from_environment(os.environ, Path.cwd())
    os.execve(arguments[0], arguments, environment(settings, os.environ, workers))


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))

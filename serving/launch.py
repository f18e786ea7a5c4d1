"""Starting and stopping the real server: BentoML as a child process, with an environment that keeps it quiet."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import FrameType, TracebackType

from features.errors import InputError, NextbestError
from serving.settings import Settings

HOST = "127.0.0.1"
PORT = 3000
TIED = "NEXTBEST_TIED"
"""In the environment of a BentoML that has to end with the process that started it."""
WORKERS = "NEXTBEST_WORKERS"
"""In the environment of a BentoML that runs more than one worker process."""
MOST_WORKERS = 64
STOP_SECONDS = 20
_DRAIN_SECONDS = 10


class ServerFailed(NextbestError):
    """The server ended, or did not become ready; the text has what it said last."""


class Server:
    """A running server. Leaving its context stops it: it finishes its requests, closes the ledger, and is gone."""

    def __init__(
        self, settings: Settings, host: str = HOST, port: int = PORT, workers: int = 1, output: Path | None = None
    ) -> None:
        """Start the process; output: file for what it prints (default: this process's standard error).

        InputError for a wrong host, a wrong number of workers or a port in use; NotBuilt where the home has no
        features.
        """
        _check(settings, host, port, workers)
        self.url = f"http://{_bracketed(host)}:{port}"
        self._output = output
        self._sure = 1 if workers == 1 else 20 * workers
        with ExitStack() as stack:
            sink = stack.enter_context(output.open("ab")) if output else None
            self._process = subprocess.Popen(
                command(host, port),
                env=environment(settings, os.environ, workers),
                stdin=subprocess.DEVNULL,
                stdout=sink or 2,  # standard output is for answers of a command, never for a server's chatter
                stderr=subprocess.STDOUT if sink else None,
                start_new_session=True,  # Ctrl-C reaches it once, through stop()
            )

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self, seconds: float = 120.0) -> None:
        """Return when /readyz says yes; ServerFailed with the reasons when it ends first or is not ready in time.

        Several workers share the port, and any of them may answer: then a run of answers has to say yes.
        """
        deadline = time.monotonic() + seconds
        yes = 0
        while True:
            if self._process.poll() is not None:
                raise ServerFailed(f"the server ended with code {self._process.returncode}: {self._last_output()}")
            reason = _not_ready(self.url)
            yes = yes + 1 if reason is None else 0
            if yes >= self._sure:
                return
            if reason is None:
                continue
            if time.monotonic() > deadline:
                raise ServerFailed(f"the server is not ready after {seconds:g} s: {reason} {self._last_output()}")
            time.sleep(0.05)

    def wait(self) -> int:
        """Wait for the end; the exit code."""
        return self._process.wait()

    def terminate(self) -> None:
        """Ask the server to end; returns at once."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """Ask the server to end, and make sure of it: it is killed if it takes too long.

        BentoML's worker has a session of its own; it notices that its parent is gone and ends by itself.
        """
        self.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        return self._process.wait()

    def _last_output(self) -> str:
        return self._output.read_text("utf-8", errors="replace")[-2000:] if self._output else ""


def serve(
    settings: Settings,
    host: str = HOST,
    port: int = PORT,
    workers: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> int:
    """Run the server until SIGTERM or SIGINT; 0 after a clean end. Must be called from the main thread."""
    server = Server(settings, host, port, workers)
    stopping = False

    def ask_to_end(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        server.terminate()

    before = {number: signal.signal(number, ask_to_end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with server:
            try:
                server.wait_ready()
                say(f"ready at {server.url}; stop with Ctrl-C")
                code = server.wait()
            except ServerFailed:
                if not stopping:
                    raise
                code = server.stop()
        return 0 if stopping else code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def command(host: str, port: int) -> list[str]:
    """The command line of BentoML's server."""
    return [
        *(sys.executable, "-m", "bentoml", "serve", "serving.service:NextBestService"),
        *("--host", host, "--port", str(port)),
        *("--timeout-graceful-shutdown", str(_DRAIN_SECONDS)),
        *("--working-dir", str(Path(__file__).resolve().parents[1])),
    ]


def environment(settings: Settings, present: Mapping[str, str], workers: int = 1) -> dict[str, str]:
    """The child's environment: our settings, BentoML's files in our home, no usage statistics, one thread each."""
    threads = {name: present.get(name, "1") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    return {
        **present,
        **threads,
        **settings.to_environment(),
        TIED: "1",
        WORKERS: str(workers),
        "BENTOML_HOME": str(settings.home.resolve() / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "PYTHONUNBUFFERED": "1",
    }


def free_port(host: str = HOST) -> int:
    """A port of this machine that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _check(settings: Settings, host: str, port: int, workers: int) -> None:
    if not 1 <= workers <= MOST_WORKERS:
        raise InputError(f"--workers must lie in 1..{MOST_WORKERS}, however it is {workers}")
    if not 1 <= port <= 65_535:
        raise InputError(f"--port must lie in 1..65535, however it is {port}")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise InputError(f"--host must be an IP address, however it is {host!r}; this machine is {HOST}") from None
    from features.home import Home  # it brings numpy

    Home(settings.home).build()
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InputError(f"cannot listen on {host}:{port} ({error.strerror}); choose another --port") from None


def _not_ready(url: str) -> str | None:
    """Why the server at `url` is not ready; None: it is."""
    try:
        # Never through a proxy: the server is on this machine.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/readyz", timeout=5):
            return None
    except urllib.error.HTTPError as error:
        return error.read().decode(errors="replace")
    except OSError as error:
        return str(error)


def _bracketed(host: str) -> str:
    """A host as a URL writes it; the wildcard addresses are reached over loopback."""
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        return HOST if address.version == 4 else "[::1]"
    return f"[{host}]" if address.version == 6 else host

"""The stacks that are compared: how each is started, asked, and what it answers for."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from database import Database
from naive import WORLD
from world import World

HERE = Path(__file__).resolve().parent
READY_SECONDS = 600.0
Body = Callable[[str], object]


@dataclass(frozen=True)
class Stack:
    """path, body: the question about one customer. command: its server on a port. note: what it does, for the table."""

    name: str
    path: str
    body: Body
    command: Callable[[int], Sequence[str | Path]]
    environment: Mapping[str, str]
    note: str
    folder: Path = HERE
    beside: tuple[int, ...] = ()
    """Processes that work for it and are not below it: the database server."""


@dataclass
class Running:
    """A started stack."""

    stack: Stack
    port: int
    process: subprocess.Popen[bytes]
    output: Path

    @property
    def processes(self) -> list[int]:
        return [self.process.pid, *self.stack.beside]

    def ask(self, customer_id: str) -> tuple[int, bytes]:
        """Status and body of one question, over a connection of its own."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{self.stack.path}",
            json.dumps(self.stack.body(customer_id)).encode(),
            {"Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def wait_ready(self, customer_id: str) -> None:
        """Until it answers with 200; RuntimeError with its last words where it ends or takes too long."""
        until, said, broken = time.monotonic() + READY_SECONDS, b"", 0
        while time.monotonic() < until:
            if self.process.poll() is not None:
                break
            try:
                status, said = self.ask(customer_id)
                if status == 200:
                    return
                broken += status == 500
                if broken > 5:
                    break
            except OSError:
                pass
            time.sleep(0.3)
        words = self.output.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{self.stack.name} does not answer ({said[:500]!r}); it said last: {words}")

    def stop(self) -> None:
        """End it and all that it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(25)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


def start(stack: Stack, port: int, output: Path) -> Running:
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [str(part) for part in stack.command(port)],
            cwd=stack.folder,
            env={**stack.environment},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    return Running(stack, port, process, output)


@contextmanager
def running(stacks: Sequence[Stack], folder: Path, customer_id: str) -> Iterator[dict[str, Running]]:
    """All of them started and answering; those that do not come up are left out, and it is said why."""
    folder.mkdir(parents=True, exist_ok=True)
    started: dict[str, Running] = {}
    try:
        for stack in stacks:  # one after the other: on two cores their imports would only wait for each other
            one = started[stack.name] = start(stack, free_port(), folder / f"{stack.name}.log")
            try:
                one.wait_ready(customer_id)
            except RuntimeError as error:
                print(f"left out: {error}", file=sys.stderr, flush=True)
                started.pop(stack.name).stop()
        yield started
    finally:
        for one in started.values():
            one.stop()


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Shelf:
    """Makes the stacks by name. checkouts: label → code of ours that is measured."""

    world: World | None
    checkouts: Mapping[str, Path]
    database: Database | None
    scratch: Path
    plain: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def names(self) -> list[str]:
        """All that can be made here, in the order of the table."""
        ours = [f"ours{kind}{_tag(label)}" for label in self.checkouts for kind in self._kinds()]
        served = ["mlflow", "feast"] if self.world else []
        others = ["naive", "naive-2", "naive-bento", "tidied", "tidied-2"] if self.world else []
        return [*(ours if self.world else []), *others, *served, "empty-bento", "empty-api", "empty-uvicorn"]

    def make(self, name: str) -> Stack:
        """The stack of this name; KeyError where there is none."""
        if name.startswith("ours"):
            kind, _, label = name.removeprefix("ours").partition(":")
            workers, _, ledger = kind.partition("-")
            return self._ours(name, int(workers), ledger == "postgres", label)
        return {
            "naive": lambda: self._fastapi(name, "naive_fastapi:app", 1),
            "naive-2": lambda: self._fastapi(name, "naive_fastapi:app", 2),
            "naive-bento": lambda: self._bento(name, "naive_bento:NaiveService"),
            "tidied": lambda: self._fastapi(name, "tidied_fastapi:app", 1, "--no-access-log"),
            "tidied-2": lambda: self._fastapi(name, "tidied_fastapi:app", 2, "--no-access-log"),
            "mlflow": self._mlflow,
            "feast": self._feast,
            "empty-bento": lambda: self._bento(name, "empty:EmptyService", "mounted app, log and tracing off"),
            "empty-api": lambda: self._bento(name, "empty:EmptyApi", "@bentoml.api, defaults"),
            "empty-uvicorn": lambda: self._fastapi(name, "empty:app", 1, "--no-access-log"),
        }[name]()

    def _kinds(self) -> list[str]:
        """One worker or two on the ledger in the home, and two on PostgreSQL."""
        return ["1", "2", "2-postgres"] if self.database else ["1", "2"]

    def _ours(self, name: str, workers: int, postgres: bool, label: str) -> Stack:
        assert self.world
        checkout = self.checkouts[label]
        home = self.world.copy_of_home(self.scratch / name.replace(":", "-"))
        environment = self.world.environment(checkout, home)
        beside: tuple[int, ...] = ()
        if postgres:
            assert self.database
            environment["NEXTBEST_LEDGER_URL"] = self.database.new()
            beside = (self.database.pid,)
        note = f"nextbest serve, {workers} worker{'s' * (workers > 1)}, {'PostgreSQL' if postgres else 'SQLite'}"
        return Stack(
            name,
            "/v1/decide",
            lambda customer_id: {"customer_id": customer_id},
            lambda port: [sys.executable, HERE / "serve_ours.py", str(port), str(workers)],
            environment,
            f"{note}: rules, propensity, texts, durable record",
            checkout,
            beside,
        )

    def _fastapi(self, name: str, app: str, workers: int, *more: str) -> Stack:
        command = [sys.executable, "-m", "uvicorn", app, "--workers", str(workers), *more]
        note = f"uvicorn {app}" + (f", {workers} workers" if workers > 1 else "")
        return Stack(
            name, "/decide", _customer, lambda port: [*command, "--port", str(port)], self._environment(), note
        )

    def _bento(self, name: str, service: str, note: str = "bentoml serve, defaults") -> Stack:
        home = self.scratch / "bentoml"
        environment = {**self._environment(), "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}
        command = [sys.executable, "-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--working-dir", HERE]
        return Stack(name, "/decide", _customer, lambda port: [*command, "--port", str(port)], environment, note)

    def _mlflow(self) -> Stack:
        assert self.world
        model = self.world.folder / "naive-mlflow"
        said = json.loads((self.world.folder / "naive.json").read_text())
        columns = [name.split(":")[1] for name in said["features"]]

        def body(customer_id: str) -> object:
            values = [float((ord(customer_id[-1]) * 31 + at) % 17) for at in range(len(columns))]
            return {"dataframe_split": {"columns": columns, "data": [values]}}

        command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local"]
        note = "mlflow models serve: the 24 classes only, features in the question"
        environment = self._environment()
        return Stack("mlflow", "/invocations", body, lambda port: [*command, "-p", str(port)], environment, note)

    def _feast(self) -> Stack:
        assert self.world
        said = json.loads((self.world.folder / "naive.json").read_text())

        def body(customer_id: str) -> object:
            return {"features": said["features"], "entities": {"customer_id": [customer_id]}}

        program = shutil.which("feast") or str(Path(sys.executable).with_name("feast"))
        command = [program, "-c", self.world.folder / "feast", "serve", "-h", "127.0.0.1"]
        note = "feast serve: the 80 features only"
        environment = self._environment()
        return Stack("feast", "/get-online-features", body, lambda port: [*command, "-p", str(port)], environment, note)

    def _environment(self) -> dict[str, str]:
        return {**self.plain, "PYTHONDONTWRITEBYTECODE": "1", **({WORLD: str(self.world.folder)} if self.world else {})}


def _customer(customer_id: str) -> object:
    return {"customer_id": customer_id}


def _tag(label: str) -> str:
    return f":{label}" if label else ""

"""A small bank behind a real server, models that can be put into its registry, and callers that never stop asking."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from features.home import Build, Home
from features.importing import read_bank, write_bank
from features.packed import OnlineStates, define
from features.views import state_tables, views
from training.track import Tracking


def home_of(bank_folder: Path, root: Path) -> Home:
    """A home with a complete build of the bank in `bank_folder`, made without Feast (whose import takes seconds)."""
    bank, home = read_bank(bank_folder), Home(root)
    end = max(table["event_timestamp"].to_pandas().max() for table in bank.tables.values() if table.num_rows)
    build = Build(home.builds / "small", "f" * 64, views(bank.catalog, bank.attributes), end.to_pydatetime())
    write_bank(bank, build.bank_folder)
    define(build.online_path, build.views)
    online = OnlineStates(build.online_path, build.views)
    for view, table in state_tables(bank):
        online.write(view, table)
    build.mark_complete()
    home.use(build)
    return home


class Shelf:
    """A registry of models, as training writes it: any folder can become a version, and aliases move."""

    def __init__(self, folder: Path) -> None:
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self._client = Tracking(self.uri).client

    def put(self, model: str, folder: Path) -> str:
        """The artefact in `folder`, whatever it is, as the next version of `model`."""
        try:
            self._client.get_registered_model(model)
        except MlflowException:
            self._client.create_registered_model(model)
        return str(self._client.create_model_version(model, source=str(folder)).version)

    def move(self, model: str, version: str, alias: str = "champion") -> None:
        self._client.set_registered_model_alias(model, alias, version)


class Caller:
    """One connection to the server, kept open."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=60)

    def __call__(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body; OSError or HTTPException where the server is gone."""
        sent = None if body is None else json.dumps(body)
        self._connection.request(method, path, sent, {"content-type": "application/json", **(headers or {})})
        response = self._connection.getresponse()
        return response.status, response.read()

    def json(self, path: str) -> dict[str, Any]:
        """The document at `path`, which is there."""
        status, body = self("GET", path)
        assert status == 200, body
        return dict(json.loads(body))

    def close(self) -> None:
        self._connection.close()


@dataclass
class Load:
    """What callers did and what went wrong. counts: by name of what was done."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def did(self, what: str, right: bool, detail: object = "") -> None:
        with self.lock:
            self.counts[what] += 1
            if not right:
                self.wrong.append(f"{what}: {detail!s:.500}")

    def until(self, what: str, count: int, seconds: float = 240.0) -> None:
        """Wait until so many have been done."""
        deadline = time.monotonic() + seconds
        while self.counts[what] < count:
            assert time.monotonic() < deadline, (what, count, self.counts, self.wrong[:3])
            time.sleep(0.05)


@contextmanager
def under_load(url: str, callers: int, pause: float, ask: Callable[[Caller, int, Load], None]) -> Iterator[Load]:
    """`ask` again and again in so many threads, with a pause in seconds in between; (connection, number, load)."""
    load, stop = Load(), threading.Event()

    def run(first: int) -> None:
        caller, number = Caller(url), first
        while not stop.is_set():
            try:
                ask(caller, number, load)
            except Exception as error:
                load.did("call", False, repr(error))
                caller.close()
                time.sleep(0.1)
            number += callers
            stop.wait(pause)
        caller.close()

    threads = [threading.Thread(target=run, args=(first,)) for first in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stop.set()
        for thread in threads:
            thread.join()

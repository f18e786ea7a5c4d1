"""`nextbest run DIR`: build, train what the tables allow, serve once with the real server, decide, report."""

from __future__ import annotations

import json
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.build import build_features
from features.columns import CUSTOMER_ID, Table
from features.errors import NextbestError
from serving.content_model import CONTENT_MODEL
from serving.launch import Server, free_port
from serving.registry import TIMING_MODEL
from serving.settings import Settings
from training.content.train_content import train_content
from training.labels import ModelNotPossible
from training.plan import MODELS, Order
from training.row_store import RowStore
from training.stable import hashes
from training.terminal import Terminal
from training.track import Tracking
from training.train import Trained, train
from training.train_timing import train_timing

if TYPE_CHECKING:
    from features.home import Build, Home

CUSTOMERS_SHOWN = 5
PRODUCTS_SHOWN = 3
SECONDS_TO_ANSWER = 30


@dataclass(frozen=True)
class Served:
    """What the real server answered for one customer: the documents of /v1/decide and /v1/rank."""

    customer_id: str
    as_of: str
    decision: Mapping[str, Any]
    ranking: Mapping[str, Any]


@dataclass(frozen=True)
class Report:
    """The whole job: which models were trained, which were left out and why, and what was served."""

    directory: str
    build: str
    data_end: str
    trained: tuple[Trained, ...]
    left_out: Mapping[str, str]
    served: tuple[Served, ...]
    tracking_uri: str


def run_all(
    directory: Path,
    home: Home,
    tracking_uri: str,
    seed: int,
    tags: Mapping[str, str],
    terminal: Terminal,
    served: pa.Table | None = None,
) -> Report:
    """Every step in order; the first that fails raises. Raises ModelNotPossible where no model is possible.

    served: events of the home's ledger, to learn from as well.
    """
    terminal.say(f"build the features of {directory}", "bold")
    build = build_features(directory, home, terminal, served)
    trained, left_out = train_all(build, tracking_uri, seed, tags, terminal)
    terminal.say("serve, and decide for some customers", "bold")
    settings = Settings(home=home.root, tracking_uri=tracking_uri)
    served = serve_once(settings, some_customers(build), build.data_end + timedelta(seconds=1), terminal)
    end = build.data_end.isoformat()
    return Report(str(directory), str(build.folder), end, trained, left_out, served, tracking_uri)


def train_all(
    build: Build, tracking_uri: str, seed: int, tags: Mapping[str, str], terminal: Terminal
) -> tuple[tuple[Trained, ...], dict[str, str]]:
    """Train each model that the tables allow; model → reason for the others."""
    tracking = Tracking(tracking_uri)
    trained: list[Trained] = []
    left_out: dict[str, str] = {}
    jobs: dict[str, Callable[[], Trained]] = {
        model: partial(train, Order(model, seed=seed), build, tracking, tags, terminal, store=RowStore.beside(build))
        for model in MODELS
    }
    content = Order(CONTENT_MODEL, seed=seed)
    jobs[CONTENT_MODEL] = partial(train_content, content, build, tracking, tags, terminal)
    jobs[TIMING_MODEL] = partial(train_timing, build, tracking, tags, seed=seed, progress=terminal)
    for model, job in jobs.items():
        terminal.say(f"train {model}", "bold")
        try:
            trained.append(job())
        except ModelNotPossible as reason:
            left_out[model] = str(reason)
            terminal.say(f"  left out: {reason}", "yellow")
    if not any(one.model in MODELS for one in trained):
        raise ModelNotPossible("; ".join(f"{model} is left out: {reason}" for model, reason in left_out.items()))
    return tuple(trained), left_out


def some_customers(build: Build, count: int = CUSTOMERS_SHOWN) -> list[str]:
    """A few customers, the same ones every time, spread by a hash of their id."""
    ids = np.asarray(pc.unique(build.bank.tables[Table.CUSTOMERS][CUSTOMER_ID]).to_pylist(), dtype=object)
    return [str(customer) for customer in ids[np.argsort(hashes(ids), kind="stable")[:count]]]


def serve_once(settings: Settings, customers: Sequence[str], as_of: datetime, terminal: Terminal) -> tuple[Served, ...]:
    """Start the real server on a free loopback port, ask it about each customer, and stop it."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "server.log"
        with Server(settings, port=free_port(), output=output) as server:
            with terminal.step("start the server"):
                server.wait_ready()
            with terminal.step(f"ask it about {len(customers)} customers", len(customers)) as advance:
                served = []
                for customer in customers:
                    question = {"customer_id": customer, "as_of": as_of.isoformat()}
                    decision = ask(f"{server.url}/v1/decide", question)
                    ranking = ask(f"{server.url}/v1/rank", question | {"limit": PRODUCTS_SHOWN})
                    served.append(Served(customer, as_of.isoformat(), decision, ranking))
                    advance(1)
    return tuple(served)


def ask(url: str, question: Mapping[str, object]) -> dict[str, Any]:
    """POST JSON, give back the JSON of the answer; NextbestError with what the server said otherwise."""
    body = json.dumps(question).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the server is on this machine
    try:
        with direct.open(request, timeout=SECONDS_TO_ANSWER) as answer:
            document: dict[str, Any] = json.load(answer)
            return document
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")
        raise NextbestError(f"{url} must answer 200, however it answered {error.code}: {said[:500]}") from error
    except OSError as error:
        raise NextbestError(f"{url} must answer, however: {error}") from error

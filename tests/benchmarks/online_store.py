"""Online features: the packed stores against those that Feast brings, in one interleaved run.

    python tests/benchmarks/online_store.py                    # files; Redis too where redis-server is installed
    python tests/benchmarks/online_store.py --customers 100000 --rounds 15

Every store holds the same customers in the same views (4 × 20 numbers), applied and materialised by Feast from the
same Parquet files with the same offline store. Two kinds of reads are timed, and they are not the same thing:

- *SDK*: `FeatureStore.get_online_features(…).to_dict()`, which every store answers;
- *direct*: `features.packed` as serving reads it, NumPy arrays without protobuf; only the packed stores have it.

Each round asks every store for other customers, in another order; a ratio is taken within a round. Printed are medians
over the rounds and their range.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from features.build import store_states
from features.columns import CREATED_TIMESTAMP, CUSTOMER_ID, EVENT_TIMESTAMP
from features.home import Build
from features.packed import OnlineStates, PackedStates
from features.redis_states import RedisStates, connect
from features.schema import Column, View
from serving.launch import free_port

VIEWS = tuple(
    View(f"view{number}", "customer", timedelta(days=400), tuple(Column(f"v{number}_{name}") for name in range(20)))
    for number in range(4)
)
FEATURES = [f"{view.name}:{column.name}" for view in VIEWS for column in view.columns]
END = datetime(2024, 6, 1, tzinfo=UTC)
BEGIN = datetime(1900, 1, 1, tzinfo=UTC)
PREFIX = "nextbest:benchmark:"


@dataclass
class Kept:
    """One online store under test."""

    name: str
    config: dict[str, Any]
    rival: str | None
    """The name of the store that it is compared with; None for the rivals themselves."""
    states: Callable[[], PackedStates] | None = None
    bytes: Callable[[], int] = lambda: 0
    store: Any = None
    seconds: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    """Kind of read and number of customers → median seconds of a read, per round."""
    materialised: list[float] = field(default_factory=list)
    """Values per second."""


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--customers", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--turns", type=int, default=3, help="times that everything is materialised")
    parser.add_argument("--without-redis", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="nextbest-online-") as name, redis_server(options.without_redis) as port:
        stores = world(Path(name), options.customers, port)
        materialise(stores, options.customers, options.turns)
        held = {kept.name: kept.bytes() for kept in stores}
        read(stores, options.customers, options.rounds)
        failures = [failures_while_materialising(kept) for kept in stores]
    report = summary(stores, held, failures, options.customers)
    print(json.dumps(report) if options.json else "\n".join(lines(report)))
    return 0


def world(folder: Path, customers: int, port: int) -> list[Kept]:
    """The stores, applied and empty, over one build's Parquet files."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64

    build = Build(folder, "f" * 64, VIEWS, END)
    draw = np.random.default_rng(0)
    store_states(build, ((view, table(view, customers, draw)) for view in VIEWS))
    ours = "features.online.Packed{}OnlineStore"
    file = folder / "packed.db"
    stores = [
        Kept("Feast SQLite", {"type": "sqlite", "path": str(folder / "feast.db")}, None),
        Kept("packed file", {"type": ours.format(""), "path": str(file)}, "Feast SQLite"),
    ]
    stores[0].bytes = lambda: on_disk(folder / "feast.db")
    stores[1].bytes = lambda: on_disk(file)
    stores[1].states = lambda: OnlineStates(file, VIEWS)
    if port:
        url = f"redis://127.0.0.1:{port}/2"
        stores += [
            Kept("Feast Redis", {"type": "redis", "connection_string": f"127.0.0.1:{port},db=1"}, None),
            Kept("packed Redis", {"type": ours.format("Redis"), "url": url, "prefix": PREFIX}, "Feast Redis"),
        ]
        stores[3].states = lambda: RedisStates(url, PREFIX, VIEWS)
    entity = Entity(name="customer", join_keys=[CUSTOMER_ID], value_type=ValueType.STRING)
    views = [
        FeatureView(
            name=view.name,
            entities=[entity],
            ttl=view.ttl,
            schema=[Field(name=column.name, dtype=Float64) for column in view.columns],
            source=FileSource(
                name=view.name,
                path=str(build.view_path(view)),
                timestamp_field=EVENT_TIMESTAMP,
                created_timestamp_column=CREATED_TIMESTAMP,
            ),
        )
        for view in VIEWS
    ]
    for number, kept in enumerate(stores):
        packed = kept.states is not None
        registry = {"registry_type": "sql", "path": f"sqlite:///{folder}/registry{number}.db", "cache_ttl_seconds": 0}
        kept.store = FeatureStore(
            config=RepoConfig(
                project="benchmark",
                provider="local",
                repo_path=folder,
                entity_key_serialization_version=3,
                registry=registry | ({"serve_features_while_materializing": True} if packed else {}),
                offline_store={"type": "duckdb"},
                online_store=kept.config,
                batch_engine={"type": "features.online.ArrowBatchEngine"} if packed else {"type": "local"},
            )
        )
        kept.store.apply([entity, *views])
    return stores


def table(view: View, customers: int, draw: np.random.Generator) -> pa.Table:
    """One state per customer: times within a day, numbers of no meaning."""
    second = draw.integers(0, 86_400, customers)
    at = pa.array((1_704_067_200 + second) * 1_000_000, pa.int64()).cast(pa.timestamp("us", "UTC"))
    columns = {CUSTOMER_ID: pa.array(names(range(customers))), EVENT_TIMESTAMP: at, CREATED_TIMESTAMP: at}
    return pa.table(columns | {column.name: draw.normal(size=customers) for column in view.columns})


def names(numbers: Sequence[int]) -> list[str]:
    return [f"c{number:08d}" for number in numbers]


def materialise(stores: list[Kept], customers: int, turns: int) -> None:
    """Materialise everything into every store, turn by turn; each turn writes over the one before."""
    from features.store import own_duckdb

    values = customers * len(FEATURES)
    for turn in range(turns):
        for kept in stores if turn % 2 else stores[::-1]:
            before = used(kept) if turn == 0 else 0
            start = time.perf_counter()
            with own_duckdb(), quiet():
                kept.store.materialize(start_date=BEGIN, end_date=END)
            kept.materialised.append(values / (time.perf_counter() - start))
            if turn == 0 and "Redis" in kept.name:
                grown = used(kept) - before
                kept.bytes = lambda grown=grown: grown


def read(stores: list[Kept], customers: int, rounds: int) -> None:
    """Time reads of one customer and of fifty, every store in every round, in changing order."""
    draw = random.Random(1)
    jobs: list[tuple[Kept, str, Callable[[list[str]], object]]] = []
    for kept in stores:
        jobs.append((kept, "SDK", by_sdk(kept)))
        if kept.states:
            jobs.append((kept, "direct", kept.states().read))
    for number in range(rounds + 1):
        for many, times in ((1, 60), (50, 12)):
            draw.shuffle(jobs)
            asked = [names([draw.randrange(customers) for _ in range(many)]) for _ in range(times)]
            for kept, kind, ask in jobs:
                taken = []
                for keys in asked:
                    start = time.perf_counter()
                    ask(keys)
                    taken.append(time.perf_counter() - start)
                if number:  # the first round warms up
                    kept.seconds.setdefault((kind, many), []).append(statistics.median(taken))


def by_sdk(kept: Kept) -> Callable[[list[str]], object]:
    def ask(keys: list[str]) -> object:
        rows = [{CUSTOMER_ID: key} for key in keys]
        return kept.store.get_online_features(features=FEATURES, entity_rows=rows).to_dict()

    return ask


def failures_while_materialising(kept: Kept) -> dict[str, Any]:
    """Reads in another process while this one materialises again: how many there were, and how many failed."""
    from features.store import own_duckdb

    context = multiprocessing.get_context("spawn")
    ends, ready, counts = context.Event(), context.Event(), context.Queue()
    child = context.Process(
        target=_keep_reading, args=(kept.store.config.model_dump(by_alias=True), ends, ready, counts)
    )
    child.start()
    ready.wait(120)
    with own_duckdb(), quiet():
        kept.store.materialize(start_date=BEGIN, end_date=END)
    ends.set()
    found = counts.get(timeout=120)
    child.join()
    return {"store": kept.name, **found}


def _keep_reading(config: dict[str, Any], ends: Any, ready: Any, counts: Any) -> None:
    from feast import FeatureStore, RepoConfig

    store = FeatureStore(config=RepoConfig(**config))
    reads, failed, why = 0, 0, ""
    rows = [{CUSTOMER_ID: name} for name in names(range(5))]
    store.get_online_features(features=FEATURES, entity_rows=rows)
    ready.set()
    while not ends.is_set():
        reads += 1
        try:
            store.refresh_registry()
            answer = store.get_online_features(features=FEATURES, entity_rows=rows).to_dict()
            if any(value is None for values in answer.values() for value in values):
                raise LookupError("a customer that is there was not found")
        except Exception as error:
            failed += 1
            why = f"{type(error).__name__}: {error}"[:120]
    counts.put({"reads": reads, "failed": failed, "why": why})


def summary(stores: list[Kept], held: dict[str, int], failures: list[dict[str, Any]], customers: int) -> dict[str, Any]:
    by_name = {kept.name: kept for kept in stores}
    reads, writes = [], []
    for kept in stores:
        rival = by_name.get(kept.rival or "")
        for (kind, many), seconds in sorted(kept.seconds.items()):
            entry: dict[str, Any] = {"store": kept.name, "kind": kind, "customers": many, "ms": spread(seconds, 1e3)}
            if rival:
                theirs = rival.seconds["SDK", many]
                entry["times_faster_than_sdk_of"] = rival.name
                entry["ratio"] = spread([a / b for a, b in zip(theirs, seconds, strict=True)])
            reads.append(entry)
        entry = {"store": kept.name, "values_per_second": spread(kept.materialised), "bytes": held[kept.name]}
        if rival:
            pairs = zip(kept.materialised, rival.materialised, strict=True)
            entry |= {"ratio": spread([a / b for a, b in pairs]), "share": held[kept.name] / max(held[rival.name], 1)}
        writes.append(entry)
    return {"customers": customers, "reads": reads, "materialising": writes, "reads_while_materialising": failures}


def lines(report: dict[str, Any]) -> Iterator[str]:
    world = f"{report['customers']:,} customers × {len(FEATURES)} features in {len(VIEWS)} views"
    yield f"{world}; median (lowest to highest)"
    for entry in report["reads"]:
        text = f"{entry['store']:14}{entry['kind']:8}{entry['customers']:3} customers {told(entry['ms'])} ms"
        yield text + (
            f"   {told(entry['ratio'])} × the SDK's {entry['times_faster_than_sdk_of']}" if "ratio" in entry else ""
        )
    for entry in report["materialising"]:
        rate, size = told(entry["values_per_second"], "{:,.0f}"), f"{entry['bytes'] / 1e6:,.1f} MB"
        text = f"{entry['store']:14}materialises {rate} values/s, {size}"
        yield text + (f"   {told(entry['ratio'])} ×, {entry['share']:.3f} of the bytes" if "ratio" in entry else "")
    for entry in report["reads_while_materialising"]:
        told_failed = f"{entry['failed']} of {entry['reads']} reads failed {entry['why']}"
        yield f"{entry['store']:14}while materialising: {told_failed}"


def spread(values: Sequence[float], scale: float = 1.0) -> list[float]:
    """Median, lowest, highest."""
    return [statistics.median(values) * scale, min(values) * scale, max(values) * scale]


def told(values: Sequence[float], form: str = "{:.3g}") -> str:
    middle, low, high = (form.format(value) for value in values)
    return f"{middle} ({low} to {high})"


def on_disk(path: Path) -> int:
    return sum(found.stat().st_size for found in path.parent.glob(f"{path.name}*"))


def used(kept: Kept) -> int:
    """Bytes that the Redis server of a store uses; 0 for a file."""
    if "Redis" not in kept.name:
        return 0
    place = kept.config.get("connection_string") or kept.config["url"].removeprefix("redis://")
    info: Any = connect(f"redis://{place.split(',')[0]}").info("memory")
    return int(info["used_memory"])


@contextmanager
def redis_server(without: bool) -> Iterator[int]:
    """The port of a Redis server of this run alone; 0 where there is none."""
    program = shutil.which("redis-server")
    if without or not program:
        print("without Redis" if without else "without Redis: redis-server is not installed", file=sys.stderr)
        yield 0
        return
    with tempfile.TemporaryDirectory(prefix="nextbest-redis-") as name:
        port = free_port()
        command = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=name)
        try:
            while not answers(port):
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()
            process.wait(60)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def quiet() -> Iterator[None]:
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

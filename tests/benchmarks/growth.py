"""Does a decision take longer where more is stored? By customers in the online store, by events on one timeline.

    python tests/benchmarks/growth.py --world /tmp/world --sizes 10000,100000,1000000 --events 100,1000,10000

The stores are filled in bulk with the world's customers under other names. Timelines come into the ledger by
POST /v1/events and, of another bank, by `nextbest features build`. Rounds are interleaved; a ratio is taken against the
smallest of the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bank import CHANNEL_IDS, heavy_id, product_ids, write_bank
from decisions import ALONE, measured_over_http
from figures import markdown, median, percentile, ratio, shown
from stacks import Running, Shelf, running
from where_time_goes import measured, opened
from world import REPOSITORY, World, make_world

CUSTOMERS_OF_A_LENGTH = 20
AT_ONCE = 500
"""Events of one call."""
BLOCK = 50_000
SMALL_BANK = 2_000
"""Customers beside those with the long timelines."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=Path, help="keep the generated world here and use it again")
    parser.add_argument("--customers", type=int, help="of the world, where it is made")
    parser.add_argument("--sizes", default="10000,100000,1000000", help="of the online store; empty: leave it out")
    parser.add_argument("--events", default="100,1000,10000", help="on one timeline; empty: leave it out")
    parser.add_argument("--parts", default="store,ledger,imported")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--checkout", type=Path, default=REPOSITORY, help="whose code to measure")
    parser.add_argument("--scratch", type=Path, help="a folder for large files; default: a temporary one")
    parser.add_argument("--out", type=Path, help="write OUT.json and OUT.md")
    options = parser.parse_args(argv)
    sys.path.insert(0, str(options.checkout.resolve()))
    os.environ["PYTHONPATH"] = str(options.checkout.resolve())
    with tempfile.TemporaryDirectory(prefix="nextbest-bench-", dir=options.scratch) as name:
        scratch = Path(name)
        world = make_world(options.world or scratch / "world", options.customers)
        parts: dict[str, Any] = {}
        lengths = [int(length) for length in options.events.split(",") if length]
        if "ledger" in options.parts and lengths:
            parts["events in the ledger"] = ledger_timelines(world, lengths, scratch, options)
        if "imported" in options.parts and lengths:
            parts["imported events"] = imported_timelines(world, lengths, scratch, options)
        sizes = [int(size) for size in options.sizes.split(",") if size]
        if "store" in options.parts and sizes:
            parts["customers in the online store"] = stores(world, sizes, scratch, options)
    report = "\n\n".join(_table(title, found) for title, found in parts.items())
    print(report)
    if options.out:
        options.out.with_suffix(".json").write_text(json.dumps(parts, indent=1))
        options.out.with_suffix(".md").write_text(report + "\n")
    return 0


Found = dict[str, list[dict[str, float]]]
"""By size: in every round the CPU ms of a decision and its p50 in ms, in process or over HTTP."""


def stores(world: World, sizes: Sequence[int], scratch: Path, options: argparse.Namespace) -> Found:
    """Decisions in one process over stores of these sizes, with one ledger and the same models."""
    from features.packed import OnlineStates

    found: Found = {f"{size:,}": [] for size in sizes}
    with opened(world, options.checkout, scratch / "home") as serving:
        views = serving.decider.customers.views
        of_size = {}
        for size in sizes:
            path = scratch / f"online-{size}.db"
            fill(path, views, serving.decider.customers, world.customer_ids, size)
            decider = replace(serving.decider, customers=OnlineStates(path, views))
            of_size[size] = replace(serving, decider=decider)
            _say(f"{size:,} customers in {path.stat().st_size / 1e9:.2f} GB")
        for number in range(options.rounds):
            for size in _turned(sizes, number):
                timing = measured(of_size[size], [_name(at) for at in range(size)], options.seconds, sample=False)
                said = {
                    "cpu_ms": 1000 * timing.own_cpu / timing.count,
                    "p50": 1000 * percentile(timing.totals, 0.5),
                    "decide_p50": 1000 * percentile(timing.steps["decide"], 0.5),
                }
                found[f"{size:,}"].append(said)
                _say(f"round {number + 1}: {size:,} customers: {said}")
    return found


def _name(at: int) -> str:
    return f"n{at:08d}"


def fill(path: Path, views: Sequence[Any], source: Any, known: Sequence[str], size: int) -> None:
    """A store of `size` customers at `path`: the states of `known` again and again, under other names."""
    from features.packed import OnlineStates, define

    define(path, views)
    store = OnlineStates(path, views)
    for start in range(0, size, BLOCK):
        names = [_name(at) for at in range(start, min(start + BLOCK, size))]
        states = source.read([known[(start + at) % len(known)] for at in range(len(names))])
        for view in views:
            if view.entity == "market" and start:
                continue
            store.write(view, states_table(view, states[view.name], names))


def states_table(view: Any, state: Any, names: Sequence[str]) -> Any:
    """States as the table that a store writes; who has no state has no row."""
    import numpy as np
    import pyarrow as pa

    from features.columns import CREATED_TIMESTAMP, EVENT_TIMESTAMP
    from features.packing import key_column
    from features.schema import MARKET_ID

    if view.entity == "market":
        names, there = [MARKET_ID], np.array([0])
    else:
        there = np.flatnonzero(np.isfinite(state.at))
    at = pa.array(np.round(state.at[there] * 1e6).astype(np.int64), pa.timestamp("us", "UTC"))
    columns: dict[str, Any] = {
        key_column(view): pa.array([names[place] for place in there], pa.string()),
        EVENT_TIMESTAMP: at,
        CREATED_TIMESTAMP: at,
    }
    columns |= {name: pa.array(state.numbers[there, place]) for place, name in enumerate(view.numbers)}
    columns |= {
        name: pa.array(state.texts[there, place].tolist(), pa.string()) for place, name in enumerate(view.texts)
    }
    return pa.table(columns)


def ledger_timelines(world: World, lengths: Sequence[int], scratch: Path, options: argparse.Namespace) -> Found:
    """Decisions over HTTP about customers whose timelines in the ledger are so long."""
    people = {
        length: world.customer_ids[place * CUSTOMERS_OF_A_LENGTH : (place + 1) * CUSTOMERS_OF_A_LENGTH]
        for place, length in enumerate(lengths)
    }
    with _server(world, scratch / "ledger", options) as server:
        for length, customers in people.items():
            for customer in customers:
                for block in _blocks(events(customer, length, datetime.now(UTC))):
                    _post(server, {"events": block})
            _say(f"{len(customers)} customers with {length:,} events each")
        return _over_http(server, people, options)


def imported_timelines(world: World, lengths: Sequence[int], scratch: Path, options: argparse.Namespace) -> Found:
    """The same of a bank in whose tables the long timelines are."""
    folder = scratch / "imported"
    folder.mkdir()
    write_bank(folder / "bank", SMALL_BANK, heavy=dict.fromkeys(lengths, CUSTOMERS_OF_A_LENGTH))
    environment = world.environment(options.checkout, folder / "home")
    command = [sys.executable, "-m", "training.cli", "features", "build", str(folder / "bank")]
    _say("nextbest features build")
    subprocess.run(command, env=environment, cwd=options.checkout, check=True, capture_output=True)
    for name in ("mlflow.db", "trained.json"):
        (folder / name).symlink_to(world.folder / name)
    people = {length: [heavy_id(length, at) for at in range(CUSTOMERS_OF_A_LENGTH)] for length in lengths}
    with _server(World(folder, SMALL_BANK), scratch / "imported-served", options) as server:
        return _over_http(server, people, options)


@contextmanager
def _server(world: World, scratch: Path, options: argparse.Namespace) -> Iterator[Running]:
    """One worker of ours."""
    scratch.mkdir()
    shelf = Shelf(world, {"": options.checkout.resolve()}, None, scratch)
    with running([shelf.make("ours1")], scratch / "logs", world.customer_ids[-1]) as up:
        yield up["ours1"]


def _over_http(server: Running, people: dict[int, list[str]], options: argparse.Namespace) -> Found:
    found: Found = {f"{length:,}": [] for length in people}
    for number in range(options.rounds):
        for length in _turned(list(people), number):
            said = measured_over_http(server, people[length], number, ALONE, options.seconds)
            found[f"{length:,}"].append({name: said[name] for name in ("cpu_ms", "p50", "p99")})
            _say(f"round {number + 1}: {length:,} events: CPU {shown(said['cpu_ms'])} ms, p50 {shown(said['p50'])} ms")
    return found


def events(customer: str, count: int, now: datetime) -> list[dict[str, Any]]:
    """A timeline of two years: visits, messages and what became of them, some opt-outs that were taken back."""
    draws = random.Random(f"{customer} {count}")
    kinds = draws.choices(
        ("visited", "decided", "sent", "delivered", "opened", "clicked", "opted_out"),
        (55, 10, 10, 10, 9, 5, 1),
        k=count - 1,
    )
    made: list[dict[str, Any]] = []
    for number, kind in enumerate(kinds):
        event: dict[str, Any] = {
            "event_id": f"{customer}-{number}",
            "customer_id": customer,
            "event_timestamp": (now - timedelta(days=730) * (1 - number / count)).isoformat(),
            "kind": kind,
            "channel": draws.choice(CHANNEL_IDS),
        }
        if kind in ("decided", "sent", "delivered", "opened", "clicked"):
            about = draws.randrange(max(number // 5, 1))
            event |= {"purpose": "marketing", "product_id": draws.choice(product_ids()[:3])}
            event |= {"decision_id": f"{customer}-d{about if kind != 'decided' else number}"}
        if kind in ("sent", "delivered", "opened", "clicked"):
            event["message_id"] = f"{customer}-m{about}"
        made.append(event)
    back = {"event_id": f"{customer}-back", "customer_id": customer, "kind": "opted_in"}
    return [*made, {**back, "event_timestamp": (now - timedelta(minutes=1)).isoformat()}]


def _blocks(made: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(made), AT_ONCE):
        yield made[start : start + AT_ONCE]


def _post(server: Running, body: object) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    url = f"http://127.0.0.1:{server.port}/v1/events"
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with opener.open(request, timeout=120) as answer:
        results = json.load(answer)["results"]
    wrong = [result for result in results if result["status"] not in ("accepted", "duplicate")]
    if wrong:
        raise RuntimeError(f"events were refused: {wrong[0]}")


def _turned(sizes: Sequence[int], number: int) -> list[int]:
    """The sizes in another order every round."""
    shift = number % len(sizes)
    return [*sizes[shift:], *sizes[:shift]]


def _table(title: str, found: Found) -> str:
    names = list(found)
    figures = list(found[names[0]][0])
    smallest = found[names[0]]
    rows = []
    for name in names:
        cells = [name]
        for figure in figures:
            values, first = [one[figure] for one in found[name]], [one[figure] for one in smallest]
            cells += [shown(median(values)), str(ratio(values, first))]
        rows.append(cells)
    head = [title]
    for figure in figures:
        head += [figure.replace("_", " ") + ("" if "ms" in figure else " ms"), "ratio"]
    return markdown(head, rows)


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""Decisions over HTTP: ours beside the stacks that others would write, in one run, interleaved, closed and open loop.

    python tests/benchmarks/decisions.py --seconds 5 --rounds 3
    python tests/benchmarks/decisions.py --checkout main=/path/to/one --checkout mine=/path/to/another --only ours,naive

Every round asks every stack once, in an order that rotates, so that what disturbs the machine for a while disturbs all.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from database import database
from figures import arrivals, markdown, median, percentile, ratio, shown
from load import Measured, Order
from stacks import HERE, Running, Shelf, running
from world import REPOSITORY, make_world

ALONE, MANY = 1, 8
"""Connections of the closed loop: for latency, and to saturate two workers."""
POOL = 200
"""Connections of the open loop: more than any of the stacks lets wait."""
BODIES = 20_000
NAIVE = "naive"
KINDS = ("alone", "saturated", "half", "double")


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nextbest-bench-")))
        wanted = options.only.split(",") if options.only else []
        empty_only = bool(wanted) and all(name.startswith("empty") for name in wanted)
        world = None if empty_only else make_world(options.world or scratch / "world", options.customers)
        server = None if empty_only or options.no_postgres else stack.enter_context(database())
        checkouts = dict(_labelled(given) for given in options.checkout) or {"": REPOSITORY}
        shelf = Shelf(world, checkouts, server, scratch)
        chosen = picked(shelf.names(), wanted)
        customers = world.customer_ids if world else ["c0"]
        up = stack.enter_context(running([shelf.make(name) for name in chosen], scratch / "logs", customers[0]))
        rounds = []
        for number in range(options.rounds):
            if options.step:
                print(f"round {number + 1}: press Enter", file=sys.stderr, flush=True)
                sys.stdin.readline()
            rounds.append(_round(number, up, customers, options))
        checked = {name: _actions(one, customers) for name, one in up.items() if name.startswith("ours")}
        notes = {name: one.stack.note for name, one in up.items()}
    result = {"machine": _machine(), "options": vars(options) | {"world": None}, "rounds": rounds, "notes": notes}
    result["actions"] = checked
    print(report := tables(rounds, notes, checked))
    if options.out:
        options.out.with_suffix(".json").write_text(json.dumps(result, indent=1, default=str))
        options.out.with_suffix(".md").write_text(report + "\n")
    return 0


def picked(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The names that are wanted: exactly so, or, where there is no such one, all that begin so; all of nothing."""
    found = [name for name in names if not wanted]
    for want in wanted:
        found += [want] if want in names else [name for name in names if name.startswith(want)]
    return list(dict.fromkeys(found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="names, or how they begin, with commas: ours,naive,empty-bento")
    parser.add_argument("--kinds", default=",".join(KINDS), help="which measurements")
    parser.add_argument("--customers", type=int, help="of the world, where it is made")
    parser.add_argument("--world", type=Path, help="keep the generated world here and use it again")
    parser.add_argument("--checkout", action="append", default=[], help="LABEL=FOLDER of code to measure as ours")
    parser.add_argument("--no-postgres", action="store_true", help="leave out what needs its server programs")
    parser.add_argument(
        "--step", action="store_true", help="wait for Enter before every round: start it when it is quiet"
    )
    parser.add_argument("--out", type=Path, help="write OUT.json and OUT.md")
    return parser


Round = dict[str, dict[str, dict[str, Any]]]
"""Stack → kind of measurement → what was measured."""


def _round(number: int, up: dict[str, Running], customers: list[str], options: argparse.Namespace) -> Round:
    names = list(up)
    shift = number % max(len(names), 1)
    found: Round = {}
    kinds = options.kinds.split(",")
    for name in names[shift:] + names[:shift]:
        one, mine = up[name], found.setdefault(name, {})
        seconds, seed = options.seconds, number * 10
        if "alone" in kinds:
            mine["alone"] = measured_over_http(one, customers, seed, ALONE, seconds)
        mine["saturated"] = measured_over_http(one, customers, seed + 1, MANY, seconds)
        rate = mine["saturated"]["rate"]
        if "half" in kinds:
            mine["half"] = measured_over_http(one, customers, seed + 2, POOL, seconds, 0.5 * rate)
        if "double" in kinds and name.startswith("ours"):
            mine["double"] = measured_over_http(one, customers, seed + 3, POOL, seconds, 2.0 * rate)
        rates = ", ".join(f"{kind} {shown(said['rate'])}/s p50 {shown(said['p50'])} ms" for kind, said in mine.items())
        print(f"round {number + 1}: {name}: {rates}", file=sys.stderr, flush=True)
    return found


def measured_over_http(
    one: Running, customers: Sequence[str], seed: int, connections: int, seconds: float, rate: float = 0.0
) -> dict[str, Any]:
    """One measurement by a process of its own; rate: of an open loop, 0 = closed loop."""
    drawn = random.Random(seed).choices(customers, k=min(BODIES, 20 * len(customers)))
    order = Order(
        "127.0.0.1",
        one.port,
        one.stack.path,
        [json.dumps(one.stack.body(customer)) for customer in drawn],
        connections,
        seconds,
        min(1.0, seconds / 4),
        arrivals(rate, seconds, seed) if rate else None,
        one.processes,
    )
    if rate:
        order = Order(**{**asdict(order), "warm_seconds": 0.0})
    done = subprocess.run(
        [sys.executable, HERE / "load.py"], input=json.dumps(asdict(order)), capture_output=True, text=True, check=True
    )
    return _said(Measured(**json.loads(done.stdout)), order)


def _said(measured: Measured, order: Order) -> dict[str, Any]:
    """rate: answers with 200 per second. Times in ms; cpu_ms: of the server, per answer of any kind."""
    good = [latency / 1000 for latency in measured.latencies]
    answers = len(good) + len(measured.refused)
    refused = [latency / 1000 for latency in measured.refused]
    return {
        "rate": len(good) / measured.seconds,
        "offered": len(order.arrivals) / order.seconds if order.arrivals is not None else None,
        "p50": percentile(good, 0.50),
        "p95": percentile(good, 0.95),
        "p99": percentile(good, 0.99),
        "answers": answers,
        "refused": len(refused),
        "refused_p50": percentile(refused, 0.5),
        "failed": measured.failed,
        "cpu_ms": 1000 * measured.server_cpu / answers if answers else float("nan"),
        "client_share": measured.client_cpu / measured.seconds,
        "late_ms": measured.late / 1000,
        "sample": measured.sample[:300],
    }


def _actions(one: Running, customers: list[str], asked: int = 40) -> dict[str, float]:
    """How many actions the decisions chose among, and which share contacted: that ours did the whole job."""
    import urllib.request

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    candidates, contacts, ranked = [], 0, []
    for customer in random.Random(1).choices(customers, k=asked):
        _, body = one.ask(customer)
        answer = json.loads(body)
        contacts += answer["action"] is not None
        url = f"http://127.0.0.1:{one.port}/v1/decisions/{answer['decision_id']}"
        with opener.open(url, timeout=30) as record:
            recorded = json.load(record)
        candidates.append(len(recorded["candidates"]) - 1)
        held = sum(gone["rule"] in ("held", "just_taken_up") for gone in recorded["removed"])
        ranked.append(24 - held)
    return {
        "actions, median": median(candidates),
        "actions, least": min(candidates),
        "products ranked, median": median(ranked),
        "contacted": contacts / asked,
    }


def tables(rounds: list[Round], notes: dict[str, str], checked: dict[str, dict[str, float]]) -> str:
    """All tables, as Markdown."""
    names = list(notes)
    parts = [_measures(rounds, names), _ratios(rounds, names), _loads(rounds, names)]
    shown_notes = "\n".join(f"- {name}: {note}" for name, note in notes.items())
    actions = "\n".join(f"- {name}: {said}" for name, said in checked.items())
    return "\n\n".join([part for part in (*parts, shown_notes, actions, _machine()) if part])


def _of(rounds: list[Round], name: str, kind: str, what: str) -> list[float]:
    """The figure in every round."""
    return [one[name][kind][what] for one in rounds if kind in one.get(name, {})]


def _measures(rounds: list[Round], names: list[str]) -> str:
    head = ["stack", "decisions/s, 8 conn.", "CPU ms", "p50 at 8", "decisions/s, 1 conn.", "p50", "p95", "p99"]
    head += ["CPU ms at 1", "errors", "client's CPU"]
    rows = []
    for name in names:
        cells: list[str] = [name]
        for kind, what in (
            *(("saturated", "rate"), ("saturated", "cpu_ms"), ("saturated", "p50"), ("alone", "rate")),
            *(("alone", "p50"), ("alone", "p95"), ("alone", "p99"), ("alone", "cpu_ms")),
        ):
            cells.append(shown(median(_of(rounds, name, kind, what))))
        wrong = sum(
            sum(said["failed"].values()) + said["refused"]
            for one in rounds
            for kind, said in one.get(name, {}).items()
            if kind in ("alone", "saturated")
        )
        share = max(_of(rounds, name, "saturated", "client_share"), default=0.0)
        rows.append([*cells, str(wrong), f"{share:.0%}"])
    return "Closed loop; medians over rounds, times in ms.\n\n" + markdown(head, rows)


def _ratios(rounds: list[Round], names: list[str]) -> str:
    """Ours against the others, medians over rounds [least–most]."""
    ours = [name for name in names if name.startswith("ours")]
    others = [name for name in names if not name.startswith(("ours", "mlflow", "feast"))]
    rows = []
    for mine in ours:
        for other in others + [another for another in ours if another != mine]:
            both = [one for one in rounds if mine in one and other in one]
            cells = []
            for kind, what, turned in (
                ("saturated", "rate", False),
                ("saturated", "cpu_ms", True),
                ("alone", "p50", True),
                ("alone", "p99", True),
            ):
                left, right = _of(both, mine, kind, what), _of(both, other, kind, what)
                pair = (right, left) if turned else (left, right)
                cells.append(str(ratio(*pair)) if left and right else "–")
            rows.append([f"{mine} against {other}", *cells])
    if not rows:
        return ""
    head = ["how many times better", "decisions/s", "CPU per decision", "p50, 1 conn.", "p99, 1 conn."]
    return "Ratios, median over rounds [least–most]; above 1: the first is better.\n\n" + markdown(head, rows)


def _loads(rounds: list[Round], names: list[str]) -> str:
    rows = []
    for name in names:
        for kind, title in (("half", "half"), ("double", "twice")):
            if not _of(rounds, name, kind, "rate"):
                continue
            middle = {
                what: median(_of(rounds, name, kind, what))
                for what in ("offered", "rate", "p50", "p99", "refused", "refused_p50", "late_ms", "cpu_ms")
            }
            p99 = _of(rounds, name, kind, "p99")
            alone = median(_of(rounds, name, "alone", "p50"))
            errors = sum(sum(one[name][kind]["failed"].values()) for one in rounds if kind in one.get(name, {}))
            rows.append(
                [
                    name,
                    title,
                    shown(middle["offered"]),
                    shown(middle["rate"]),
                    shown(middle["p50"]),
                    f"{shown(middle['p99'])} [{shown(min(p99))}–{shown(max(p99))}]",
                    shown(middle["p99"] / alone if alone else float("nan")),
                    shown(middle["refused"]),
                    shown(middle["refused_p50"]),
                    str(errors),
                    shown(middle["late_ms"]),
                ]
            )
    if not rows:
        return ""
    head = ["stack", "of the saturated rate", "offered/s", "answered/s", "p50", "p99", "p99 / p50 alone"]
    head += ["503", "p50 of a 503", "errors", "client late by"]
    return "Open loop: times of all requests fixed beforehand, latency from the moment meant, ms.\n\n" + markdown(
        head, rows
    )


def _labelled(given: str) -> tuple[str, Path]:
    label, equals, folder = given.partition("=")
    return (label, Path(folder).resolve()) if equals else ("", Path(label).resolve())


def _machine() -> str:
    import os

    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, Python {platform.python_version()}, load generator on the same machine"


if __name__ == "__main__":
    sys.exit(main())

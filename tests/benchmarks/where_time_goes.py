"""Where the time of one decision goes: the real decider and ledger, asked in one thread of this process.

    python tests/benchmarks/where_time_goes.py --world /tmp/world

Four steps are timed one by one: the question is parsed, decided, made into an answer, recorded durably. Within a step a
sample every millisecond says in which module the thread was; modules belong to stages, so that the table stays true
when functions move. A module that is not named below counts as rules, value and choice.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from figures import markdown, percentile, shown
from world import REPOSITORY, World, make_world

STEPS = ("parse", "decide", "answer", "record")
OURS = ("features", "serving")
STAGES = {
    "read features": "packed packing online online_redis redis_states",
    "live features": "live joins customer_events",
    "read history": "history readers receipts ledger sqlite sqlite_events sqlite_decisions postgres postgres_events "
    "entries",
    "rows": "assemble profile holdings transactions engagement purchases consent market folds hours habits touches",
    "model": "scoring choice scorers counts_scorer count_keys network ensemble calibration question compiled",
    "rules": "lookup eligibility policies contact_policy caps quiet_hours suitability relaxation segments sendable "
    "situation reservation",
    "actions and texts": "candidates content templates",
    "when to send": "schedule timing",
}
EVERYTHING_ELSE = "value and choice"
_STAGE_OF = {module: stage for stage, modules in STAGES.items() for module in modules.split()}


@dataclass
class Timing:
    """Seconds of every decision by step, its CPU seconds, those of all threads, samples by (step, module)."""

    steps: dict[str, list[float]] = field(default_factory=lambda: {step: [] for step in STEPS})
    totals: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)
    all_cpu: float = 0.0
    samples: Counter[tuple[str, str]] = field(default_factory=Counter)
    actions: list[int] = field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.totals)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=Path, help="keep the generated world here and use it again")
    parser.add_argument("--customers", type=int, help="of the world, where it is made")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--checkout", type=Path, default=REPOSITORY, help="whose code to measure")
    parser.add_argument("--modules", action="store_true", help="also the modules, one by one")
    parser.add_argument("--out", type=Path, help="write OUT.json and OUT.md")
    options = parser.parse_args(argv)
    sys.path.insert(0, str(options.checkout.resolve()))
    with tempfile.TemporaryDirectory(prefix="nextbest-bench-") as scratch:
        world = make_world(options.world or Path(scratch) / "world", options.customers)
        with opened(world, options.checkout, Path(scratch) / "home") as serving:
            timing = measured(serving, world.customer_ids, options.seconds)
    report = table(timing) + (f"\n\n{modules(timing)}" if options.modules else "")
    print(report)
    if options.out:
        said = {
            "decisions": timing.count,
            "ms": _ms(timing),
            "cpu_ms": {
                "thread, p10": 1000 * percentile(timing.cpus, 0.1),
                "thread, p50": 1000 * percentile(timing.cpus, 0.5),
                "all threads": 1000 * timing.all_cpu / timing.count,
            },
        }
        options.out.with_suffix(".json").write_text(json.dumps(said, indent=1))
        options.out.with_suffix(".md").write_text(report + "\n")
    return 0


@contextmanager
def opened(world: World, checkout: Path, home: Path) -> Iterator[Any]:
    """What a server opens, with a home of its own and its settings: `serving.opening.Serving`."""
    os.environ.update(world.environment(checkout, world.copy_of_home(home)))
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    from serving.opening import open_serving
    from serving.settings import Settings

    serving = open_serving(Settings.from_environment(os.environ, Path.cwd()))
    try:
        yield serving
    finally:
        serving.ledger.close()


def measured(serving: Any, customers: Sequence[str], seconds: float, sample: bool = True) -> Timing:
    """Decisions about customers drawn at random for so many seconds, after some that are not counted."""
    from serving import contract
    from serving.entries import Entry

    drawn, timing, step = random.Random(3), Timing(), [""]

    def one(counted: Timing) -> None:
        customer = drawn.choice(customers)
        body = json.dumps({"customer_id": customer}).encode()
        began, own = time.perf_counter(), time.thread_time()
        step[0] = "parse"
        wanted = contract.parse(contract.DecideRequest, body)
        request_hash = contract.fingerprint("decide", wanted)
        now = datetime.now(UTC)
        parsed = time.perf_counter()
        step[0] = "decide"
        decision = serving.decider.decide(wanted.ask(now), uuid.uuid4().hex)
        decided = time.perf_counter()
        step[0] = "answer"
        answer = _answer(decision)
        answered = time.perf_counter()
        step[0] = "record"
        serving.ledger.record(
            Entry.of(
                decision,
                now,
                answer,
                None,
                request_hash,
                contact=decision.contact,
                caps=decision.caps,
                consent_version=decision.consent_version,
            )
        )
        ended = time.perf_counter()
        step[0] = ""
        counted.cpus.append(time.thread_time() - own)
        counted.totals.append(ended - began)
        times = (parsed - began, decided - parsed, answered - decided, ended - answered)
        for name, took in zip(STEPS, times, strict=True):
            counted.steps[name].append(took)
        if len(counted.actions) < 200:
            counted.actions.append(len(decision.candidates) - 1)

    for _ in range(30):
        one(Timing())
    until, cpu = time.perf_counter() + seconds, time.process_time()
    with _sampled(timing.samples, step) if sample else _nothing():
        while time.perf_counter() < until:
            one(timing)
    timing.all_cpu = time.process_time() - cpu
    return timing


def _answer(decision: Any) -> bytes:
    """The bytes that are sent."""
    import orjson

    answer = decision.answer()
    return answer if isinstance(answer, bytes) else orjson.dumps(answer)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _sampled(samples: Counter[tuple[str, str]], step: list[str]) -> Iterator[None]:
    """Count, every millisecond of time, the step and the innermost of our modules that the main thread is in."""

    def look(_: int, frame: FrameType | None) -> None:
        if step[0]:
            samples[step[0], _module(frame)] += 1

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _module(frame: FrameType | None) -> str:
    while frame is not None:
        package, _, rest = str(frame.f_globals.get("__name__", "")).partition(".")
        if package in OURS:
            return rest.rpartition(".")[2]
        frame = frame.f_back
    return "other"


def stage(step: str, module: str) -> str:
    """The line of the table that a sample belongs to."""
    if step == "record":
        return "record: wait for the disk" if module == "group_commit" else "record: write the record"
    if step != "decide":
        return step
    if module.startswith("compiled"):
        return "model"
    return _STAGE_OF.get(module, EVERYTHING_ELSE)


def _ms(timing: Timing) -> dict[str, float]:
    """Milliseconds per decision by stage: the mean of its step, shared out by the samples within."""
    sampled = Counter[str]()
    for step, _ in timing.samples:
        sampled[step] = sum(count for (of, _), count in timing.samples.items() if of == step)
    found: Counter[str] = Counter()
    for (step, module), count in timing.samples.items():
        mean = 1000 * sum(timing.steps[step]) / timing.count
        found[stage(step, module)] += mean * count / sampled[step]  # type: ignore[assignment]
    return dict(found)


ELSEWHERE = ("features", "history", "rows", "model", "record")
"""Words in the names of stages that are features, models or the ledger."""


def overhead(ms: dict[str, float]) -> float:
    """Milliseconds of what is neither features, nor models, nor the ledger."""
    return sum(took for name, took in ms.items() if not any(word in name for word in ELSEWHERE))


def table(timing: Timing) -> str:
    ms = _ms(timing)
    whole = sum(ms.values())
    order: Callable[[str], float] = lambda name: -ms[name]  # noqa: E731
    rows = [[name, shown(ms[name]), f"{ms[name] / whole:.1%}"] for name in sorted(ms, key=order)]
    totals = [1000 * total for total in timing.totals]
    actions = sorted(timing.actions)
    head = (
        f"One decision in one thread, {timing.count:,} of them, median {actions[len(actions) // 2]} actions: "
        f"p50 {shown(percentile(totals, 0.5))} ms, p99 {shown(percentile(totals, 0.99))} ms, "
        f"CPU in the thread p10 {shown(1000 * percentile(timing.cpus, 0.1))} ms, "
        f"p50 {shown(1000 * percentile(timing.cpus, 0.5))} ms; with the ledger's, mean "
        f"{shown(1000 * timing.all_cpu / timing.count)} ms; "
        f"{shown(overhead(ms))} ms are neither features, nor models, nor the ledger.\n\n"
    )
    steps = [
        [step, shown(1000 * percentile(timing.steps[step], 0.5)), shown(1000 * sum(timing.steps[step]) / timing.count)]
        for step in STEPS
    ]
    return (
        head + markdown(["step", "p50 ms", "mean ms"], steps) + "\n\n" + markdown(["stage", "ms (mean)", "share"], rows)
    )


def modules(timing: Timing) -> str:
    """The most frequent modules of all samples."""
    whole = sum(timing.samples.values())
    rows = [[step, module, f"{count / whole:.1%}"] for (step, module), count in timing.samples.most_common(40)]
    return markdown(["step", "module", "share"], rows)


if __name__ == "__main__":
    sys.exit(main())

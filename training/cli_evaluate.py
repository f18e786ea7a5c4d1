"""`nextbest evaluate`: what a policy would have earned on a log, and which factors decide."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from features.errors import GateRefused, InputError
from training.edge import Edge, command

if TYPE_CHECKING:
    from features.home import Home
    from serving.decide import Decider
    from training.off_policy import Evaluation

ESTIMATORS = "ips,snips,dm,dr,switch-dr,dros"


@click.group()
def evaluate() -> None:
    """Policies on logs: what another one would have earned, and what decides."""


@command(evaluate, "policy", "nextbest evaluate policy --target champion")
@click.option("--target", default="champion", show_default=True, help="champion, greedy, random or no-contact.")
@click.option("--log", type=Path, metavar="DIR", help="A bank data directory. Default: what the home was built from.")
@click.option("--estimators", default=ESTIMATORS, show_default=True, help="Separated by commas; mips too.")
@click.option("--horizon", type=click.FloatRange(min=0, min_open=True), default=30, show_default=True, metavar="DAYS")
@click.option("--most", type=click.IntRange(min=1), default=5_000, show_default=True, help="Decisions, spread by hash.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
def evaluate_policy(
    edge: Edge, target: str, log: Path | None, estimators: str, horizon: float, most: int, seed: int
) -> None:
    """Estimate what TARGET would have earned per decision on logged decisions; exit code 3 where the log cannot say."""
    from features.build import build_features
    from features.home import Home
    from training.labels import DAY, last_fact
    from training.off_policy import evaluate as estimate
    from training.policy_cases import cases
    from training.policy_value import TARGETS, policy_log

    names = [name.strip() for name in estimators.split(",") if name.strip()]
    if target not in TARGETS:
        raise InputError(f"--target is one of {', '.join(TARGETS)}, however it is {target!r}")
    home = edge.home
    if log is not None:
        home = Home(edge.home_folder / "evaluated")
        build_features(log, home, edge.terminal)
    build = home.build()
    with decider_of(edge, home) as decider:
        worth = decider.worth
        window = round(horizon * DAY)
        found = cases(build.bank, last_fact(build.bank), window, worth.margins, worth.costs, most)
        table = policy_log(build, decider, found, target, seed, edge.terminal)
        unit = worth.unit
    answer(edge, target, unit, dict(found.left_out), estimate(table, names, seed))


@command(evaluate, "factors", "nextbest evaluate factors --most 1000")
@click.option("--most", type=click.IntRange(min=1), default=10_000, show_default=True, help="Newest decisions.")
def evaluate_factors(edge: Edge, most: int) -> None:
    """Which factors decide: the share of served decisions whose best action is another one without a factor."""
    from serving.records import recent_records
    from serving.sensitivity import recorded_factors, sensitivity
    from training.terminal import table

    records = recent_records(edge.settings.ledger_url, edge.home.ledger_path, most)
    found = sensitivity(recorded_factors(record) for record in records)
    if not found.decisions:
        raise InputError("factors are told from served decisions with a choice, however the ledger has none yet")
    rows = [(name, f"{share:.1%}") for name, share in sorted(found.changed.items(), key=lambda item: -item[1])]
    edge.answer(
        {"decisions": found.decisions, "changed": dict(found.changed)},
        table(f"{found.decisions:,} served decisions", ("without this factor", "another action is the best"), rows),
    )


def answer(edge: Edge, target: str, unit: str, left_out: dict[str, int], found: Evaluation) -> None:
    """Tell the estimates, or why there are none."""
    from training.terminal import table

    overlap = found.overlap
    result: dict[str, Any] = {
        "target": target,
        "unit": unit,
        "decisions": overlap.decisions,
        "left_out": left_out,
        "logged": {**vars(found.logged_value)},
        "overlap": {name: value for name, value in vars(overlap).items() if value == value},
        "withheld": list(overlap.reasons),
        "estimates": {
            name: {**vars(one.interval), "bernstein": one.bernstein} for name, one in found.estimates.items()
        },
    }
    own = found.logged_value
    rows = [("as logged", f"{own.mean:.4g}", f"{own.low:.4g} to {own.high:.4g}")]
    rows += [
        (f"{target}, {name}", f"{one.interval.mean:.4g}", f"{one.interval.low:.4g} to {one.interval.high:.4g}")
        for name, one in found.estimates.items()
    ]
    edge.answer(
        result,
        table(f"{unit} per decision", ("policy", "value", "95 % interval"), rows),
        f"{overlap.decisions:,} decisions, effective sample size {overlap.effective_size:,.0f}, largest weight "
        f"{overlap.largest_weight:,.1f}",
        *(f"left out: {count:,}, because {why}" for why, count in left_out.items() if count),
        *(f"withheld: {reason}" for reason in overlap.reasons),
    )
    if overlap.reasons:
        sys.exit(GateRefused.exit_code)


@contextmanager
def decider_of(edge: Edge, home: Home) -> Iterator[Decider]:
    """The decider as it would be served from `home`, over a ledger that is thrown away."""
    from serving.opening import open_serving
    from serving.settings import Settings

    with tempfile.TemporaryDirectory() as folder:
        serving = open_serving(Settings(home.root, edge.tracking_uri), Path(folder) / "ledger.db")
        try:
            yield serving.decider
        finally:
            serving.ledger.close()

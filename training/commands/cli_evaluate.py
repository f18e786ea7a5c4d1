"""`nextbest evaluate`: what a policy would have earned on a log, and which factors decide."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from features.errors import GateRefused, InputError
from training.edge import Edge, command

if TYPE_CHECKING:
    from rich.table import Table

    from features.home import Home
    from serving.decide import Decider
    from training.policies.decision_log import DecisionLog
    from training.policies.off_policy import Evaluation

ESTIMATORS = "ips,snips,dm,dr,switch-dr,dros"
PICTURES = (".png", ".svg", ".pdf")


def _picture(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and (path.suffix.lower() not in PICTURES or not path.absolute().parent.is_dir()):
        raise click.BadParameter(f"a file that ends in {', '.join(PICTURES)}, in a folder that is there, not {path}")
    return path


PLOT = click.option(
    "--plot", type=Path, callback=_picture, metavar="FILE", help="A picture of the estimates and the weights (.png)."
)
SEED = click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)


@click.group()
def evaluate() -> None:
    """Policies on logs: what another one would have earned, and what decides."""


@command(evaluate, "policy", "nextbest evaluate policy --target champion")
@click.option("--target", default="champion", show_default=True, help="champion, greedy, random or no-contact.")
@click.option("--log", type=Path, metavar="DIR", help="A bank data directory. Default: what the home was built from.")
@click.option(
    "--served", is_flag=True, help="Only decisions of the home's own ledger: all of their propensities are known."
)
@click.option("--estimators", default=ESTIMATORS, show_default=True, help="Separated by commas; mips with --served.")
@click.option("--feature", default="channel", show_default=True, help="For mips: channel, product or product-channel.")
@click.option("--horizon", type=click.FloatRange(min=0, min_open=True), default=30, show_default=True, metavar="DAYS")
@click.option("--most", type=click.IntRange(min=1), default=5_000, show_default=True, help="Decisions, spread by hash.")
@PLOT
@SEED
def evaluate_policy(
    edge: Edge, target: str, log: Path | None, served: bool, estimators: str, feature: str, horizon: float, most: int,
    plot: Path | None, seed: int,
) -> None:  # fmt: skip
    """Estimate what TARGET would have earned per decision on logged decisions; exit code 3 where the log cannot say."""
    from features.build import build_features
    from features.home import Home
    from serving.records import picked_records
    from training.labels import DAY, last_fact
    from training.policies.off_policy import evaluate as estimate
    from training.policies.policy_candidates import FEATURES, recorded
    from training.policies.policy_cases import cases
    from training.policies.policy_value import TARGETS, policy_log

    names = _names(estimators)
    if target not in TARGETS:
        raise InputError(f"--target is one of {', '.join(TARGETS)}, however it is {target!r}")
    if feature not in FEATURES:
        raise InputError(f"--feature is one of {', '.join(FEATURES)}, however it is {feature!r}")
    if log is not None and served:
        raise InputError("--served asks for the home's own ledger, however --log names another folder; leave one out")
    home = edge.home
    if log is not None:
        home = Home(edge.home_folder / "evaluated")
        build_features(log, home, edge.terminal)
    build = home.build()
    with decider_of(edge, home) as decider:
        worth = decider.worth
        window = round(horizon * DAY)
        found = cases(build.bank, last_fact(build.bank), window, worth.margins, worth.costs, most, served)
        ids = [] if log is not None else found.frame["decision_id"].tolist()
        with edge.terminal.step("read the ledger's records"):
            logged = dict(picked_records(edge.settings.ledger_url, edge.home.ledger_path, ids, recorded))
        table = policy_log(build, decider, found, target, seed, edge.terminal, logged, feature)
    told = estimate(table, names, seed)
    result = {"target": target, "unit": worth.unit, "left_out": dict(found.left_out), "whole": len(logged)}
    answer(edge, table, told, result, _assumed(told, feature), plot)


@command(evaluate, "table", "nextbest evaluate table decisions.parquet --by segment --plot weights.png")
@click.argument("file", type=Path)
@click.option("--estimators", help="Separated by commas. Default: all that the table bears.")
@click.option("--feature", metavar="COLUMN", help="For mips: through which alone the reward depends on the candidate.")
@click.option("--by", metavar="COLUMN", help="Estimates for each value of this column too.")
@click.option("--unit", default="reward", show_default=True, help="What the rewards are counted in.")
@PLOT
@SEED
def evaluate_table(
    edge: Edge, file: Path, estimators: str | None, feature: str | None, by: str | None, unit: str, plot: Path | None,
    seed: int,
) -> None:  # fmt: skip
    """Estimate what another policy would have earned, from a table of decisions; exit code 3 where it cannot say.

    FILE has a row per decision (reward, propensity, target_propensity; where known customer_id, predicted and
    predicted_target) or per candidate (decision_id, candidate, taken, logged, target, reward; customer_id, predicted).
    """
    from training.policies.decision_table import read_table
    from training.policies.off_policy import evaluate as estimate
    from training.policies.off_policy import possible
    from training.policies.policy_answer import by_group, document

    table = read_table(file, by, feature)
    names = possible(table.log) if estimators is None else _names(estimators)
    told = estimate(table.log, names, seed)
    result: dict[str, Any] = {"file": str(file), "target": "target", "unit": unit, "left_out": {}}
    notes = _assumed(told, feature)
    if table.groups is not None and by is not None:
        groups = {
            str(name): estimate(table.log.only(table.groups == name), names, seed) for name in sorted(set(table.groups))
        }
        result |= {"by": by, "groups": {name: document(one) for name, one in groups.items()}}
        notes.append(by_group(by, groups))
    answer(edge, table.log, told, result, notes, plot)


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


def answer(
    edge: Edge, log: DecisionLog, found: Evaluation, result: dict[str, Any], notes: Sequence[str | Table],
    plot: Path | None,
) -> None:  # fmt: skip
    """Tell the estimates, or why there are none: exit code 3."""
    from training.policies.policy_answer import document, lines, picture

    if plot is not None:
        picture(log, found, result["target"], result["unit"]).savefig(plot, dpi=150)
        result = {**result, "plot": str(plot)}
    result["assumed"] = [note for note in notes if isinstance(note, str)]
    told = lines(result["target"], result["unit"], found, result["left_out"])
    edge.answer({**result, **document(found)}, *told, *notes)
    if found.overlap.reasons:
        sys.exit(GateRefused.exit_code)


def _assumed(found: Evaluation, feature: str | None) -> list[str | Table]:
    """What an estimate rests on and nobody can see in the log."""
    return [f"mips takes the reward to depend on what is done through its {feature} alone"] * (
        "mips" in found.estimates
    )


def _names(estimators: str) -> list[str]:
    return [name.strip() for name in estimators.split(",") if name.strip()]


@contextmanager
def decider_of(edge: Edge, home: Home) -> Iterator[Decider]:
    """The decider as it would be served from `home`, settings included, over a ledger that is thrown away."""
    from serving.opening import open_serving

    online = edge.settings.online_url if home == edge.home else ""
    settings = replace(edge.settings, home=home.root, ledger_url="", online_url=online)
    with tempfile.TemporaryDirectory() as folder:
        serving = open_serving(settings, Path(folder) / "ledger.db")
        try:
            yield serving.decider
        finally:
            serving.ledger.close()

"""How near do the models come to the best possible ranking, and where is the rest lost?

Everybody ranks the same rows: the test occasions of a run's own split. From the top down, each step takes something
away, so that the steps add up to the whole distance:

the oracle             all that the simulation knows but the draws to come
taught by the truth    LightGBM on the rows' columns, taught with the oracle's shares of each training row instead of
                       what was taken: what the columns can tell, but for the noise of few take-ups
the models             taught by what was taken

Between the first two, the oracle is asked again without one thing that no column tells directly: tastes, fresh life
events, messages under way. Figures are MAP@7 with 95 % intervals by customer; of two, paired.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from oracle import TASTES, Needs, Oracle, Rates, shares

from features.home import Build
from features.progress import SILENT, Progress
from features.schema import Bool, Float64, Int64
from features.simulation.parameters import TRAITS, need_weights
from serving.choice import Scorer
from serving.question import Question
from training import bootstrap, metrics
from training.bootstrap import Interval
from training.contenders import fit_all
from training.dataset import Dataset
from training.evaluate import POPULARITY, baselines
from training.examples import Examples
from training.families import FAMILIES
from training.plan import Order
from training.plots import ACCENT, INK, PALE, figure
from training.prepared import prepare

ORACLE, TAUGHT = "the oracle", "taught by the truth"
MODELS = ("lightgbm", "torch", "ensemble")
BLIND = ("without tastes", "without life events", "without messages")
SEED = 0


@dataclass(frozen=True)
class Ranked:
    """What each ranker made of n test occasions. per_row: ranker → MAP@7 of each row, float64 [n]. shares_sum: the
    oracle's mean probability of what it ranks first, and how often that was taken."""

    rows: Dataset
    per_row: Mapping[str, Float64]
    promised: float
    kept: float

    def mean(self, name: str) -> Interval:
        return self._intervals({name: self.per_row[name]})[name]

    def less(self, one: str, other: str) -> Interval:
        """The mean of `one` minus that of `other`."""
        return self._intervals({"gap": self.per_row[one] - self.per_row[other]})["gap"]

    def of_oracle(self, name: str) -> Interval:
        """Share of the oracle's MAP@7: the ratio of the means, customers drawn together."""
        both = np.stack([self.per_row[name], self.per_row[ORACLE]], axis=1)
        sums = bootstrap.totals(both, self.rows.customer_id, SEED)
        return bootstrap.percentile(sums[:, 0] / sums[:, 1])

    def _intervals(self, values: Mapping[str, Float64]) -> dict[str, Interval]:
        return bootstrap.intervals(values, self.rows.customer_id, SEED)

    def report(self) -> str:
        """One line per ranker, the best first."""
        names = sorted(self.per_row, key=lambda name: -float(np.nanmean(self.per_row[name])))
        lines = [f"{len(self.rows)} take-ups of {len(np.unique(self.rows.customer_id.astype(str)))} customers"]
        lines += [
            f"{name:22s} MAP@7 {self.mean(name).told('.4f')}  minus the oracle {self.less(name, ORACLE).told()}  "
            f"share of it {self.of_oracle(name).told('.3f')}"
            for name in names
        ]
        told = f"first of the oracle: promised {self.promised:.4f}, taken {self.kept:.4f}"
        return "\n".join([*lines, told])


def ranked(directory: Path, build: Build, progress: Progress = SILENT) -> Ranked:
    """Every family, fitted on the run's own training rows, and the oracle, on its test occasions."""
    prepared = prepare(Order("next-best-product", "all", seed=SEED), build, progress)
    parts, question = prepared.parts, prepared.plan.question
    oracle = Oracle(directory, build.bank)
    test = parts["test"].take(parts["test"].judged_for_ranking)
    rates = oracle.at(test.customer_id, test.spine.as_of)
    said = {ORACLE: shares(rates.all, test.available), **blind(directory, oracle, rates, test.available)}
    said[POPULARITY] = baselines(parts["train"], test)[POPULARITY]
    for name, contender in fit_all("all", parts, SEED, progress).items():
        said[name] = contender.model.probabilities(test.rows, test.available)
    said[TAUGHT] = question.probabilities(taught(oracle, question, parts).utilities(test.rows), test.available)
    per_row = {
        name: metrics.ranking(values, test.available, test.taken)[metrics.MAP_AT_7] for name, values in said.items()
    }
    best = said[ORACLE]
    first = np.nan_to_num(best).argmax(axis=1)[:, None]
    promised = float(np.take_along_axis(best, first, axis=1).mean())
    return Ranked(test, per_row, promised, float(np.take_along_axis(test.taken, first, axis=1).mean()))


def blind(directory: Path, oracle: Oracle, rates: Rates, available: Bool) -> dict[str, Float64]:
    """The oracle without one of the things that it knows: tastes count with the mean of e^need over all customers."""
    needs = Needs.of(directory, oracle.truth)
    weights = need_weights()[[TRAITS.index(name) for name in TASTES]]
    tasteless = np.exp((weights**2).sum(axis=0) / 2 - needs.taste[rates.customer])
    settled = np.exp(-needs.events[rates.month, rates.customer])
    without = {
        "without tastes": rates.organic * tasteless + rates.message,
        "without life events": rates.organic * settled + rates.message,
        "without messages": rates.organic,
    }
    return {name: shares(values, available) for name, values in without.items()}


def taught(oracle: Oracle, question: Question, parts: Mapping[str, Dataset]) -> Scorer:
    """LightGBM that learns from the oracle's shares of each occasion instead of what was taken there."""
    examples = {name: soft(oracle, parts[name].take(parts[name].judged_for_ranking)) for name in ("train", "valid")}
    return FAMILIES["lightgbm"].fit(question, examples["train"], examples["valid"], SEED).scorer


def soft(oracle: Oracle, rows: Dataset) -> Examples:
    """The occasions with the oracle's shares as what was chosen; those that it gives nothing to are left out."""
    share = np.nan_to_num(shares(oracle.at(rows.customer_id, rows.spine.as_of).all, rows.available))
    known: Int64 = np.flatnonzero(share.sum(axis=1) > 0)
    examples = rows.examples.take(known)
    chosen = np.concatenate([share[known], np.zeros((len(known), 1))], axis=1).astype(np.float32)
    return replace(examples, chosen=chosen / chosen.sum(axis=1, keepdims=True))


def draw(found: Ranked, path: Path) -> None:
    """Bars of MAP@7 with their intervals, the best first; models in colour."""
    names = sorted(found.per_row, key=lambda name: float(np.nanmean(found.per_row[name])))
    drawn, axes = figure(7.0, 0.42 * len(names) + 1.0)
    for place, name in enumerate(names):
        one = found.mean(name)
        colour = ACCENT if name in MODELS else INK if name == ORACLE else PALE
        axes.barh(place, one.mean, color=colour, height=0.7)
        axes.plot([one.low, one.high], [place, place], color="black", linewidth=1.2)
        axes.text(one.high + 0.008, place, f"{one.mean:.3f}", va="center", fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, 1)
    axes.set_xlabel("MAP@7 on the test occasions, 95 % intervals by customer")
    drawn.savefig(path, dpi=130)

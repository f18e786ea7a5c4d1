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
from serving.choice import ChoiceModel
from serving.question import Question
from training import bootstrap, fit_lightgbm, metrics
from training.bootstrap import Interval
from training.contenders import Contender, fit
from training.dataset import Dataset
from training.evaluate import POPULARITY, PRIOR, baselines
from training.examples import Examples
from training.families import Fitted
from training.plan import Order
from training.prepared import Prepared, prepare

ORACLE, TAUGHT, ENSEMBLE = "the oracle", "taught by the truth", "ensemble"
MODELS = ("lightgbm", "torch")
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


def ranked(directory: Path, build: Build, learn_from: float = 1.0, progress: Progress = SILENT) -> Ranked:
    """Fit the models on a share of the customers of the run's own training rows, and rank its test occasions."""
    prepared = prepare(Order("next-best-product", "all", seed=SEED), build, progress)
    oracle = Oracle(directory, build.bank)
    return judged(directory, oracle, prepared, prepared.parts, progress)


def judged(
    directory: Path, oracle: Oracle, prepared: Prepared, parts: Mapping[str, Dataset], progress: Progress = SILENT
) -> Ranked:
    """Everybody on the test occasions."""
    test = parts["test"].take(parts["test"].judged_for_ranking)
    rates = oracle.at(test.customer_id, test.spine.as_of)
    said = {ORACLE: shares(rates.all, test.available), **blind(directory, oracle, rates, test.available)}
    contenders = {name: fit(name, parts, SEED, progress) for name in (PRIOR, *MODELS)}
    said |= {name: probabilities(contender.model, test) for name, contender in contenders.items()}
    said[ENSEMBLE] = np.mean([said[name] for name in MODELS], axis=0)
    said[POPULARITY] = baselines(parts["train"], test)[POPULARITY]
    said[TAUGHT] = probabilities(taught(oracle, prepared.plan.question, parts, contenders["lightgbm"]), test)
    per_row = {
        name: metrics.ranking(values, test.available, test.taken)[metrics.MAP_AT_7] for name, values in said.items()
    }
    best = said[ORACLE]
    first = np.nan_to_num(best).argmax(axis=1)[:, None]
    promised = float(np.take_along_axis(best, first, axis=1).mean())
    return Ranked(test, per_row, promised, float(np.take_along_axis(test.taken, first, axis=1).mean()))


def probabilities(model: ChoiceModel, rows: Dataset) -> Float64:
    return model.probabilities(rows.rows, rows.available)


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


def taught(oracle: Oracle, question: Question, parts: Mapping[str, Dataset], like: Contender) -> ChoiceModel:
    """LightGBM that learns from the oracle's shares of each occasion instead of what was taken there."""
    examples = {name: soft(oracle, parts[name].take(parts[name].judged_for_ranking)) for name in ("train", "valid")}
    fitted: Fitted = fit_lightgbm.fit(question, examples["train"], examples["valid"], SEED)
    return replace(like.model, scorer=fitted.scorer)


def soft(oracle: Oracle, rows: Dataset) -> Examples:
    """The occasions with the oracle's shares as what was chosen; those that it gives nothing to are left out."""
    share = np.nan_to_num(shares(oracle.at(rows.customer_id, rows.spine.as_of).all, rows.available))
    known: Int64 = np.flatnonzero(share.sum(axis=1) > 0)
    examples = rows.examples.take(known)
    chosen = np.concatenate([share[known], np.zeros((len(known), 1))], axis=1).astype(np.float32)
    return replace(examples, chosen=chosen / chosen.sum(axis=1, keepdims=True))

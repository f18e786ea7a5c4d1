"""`--tune N`: Optuna proposes settings of a family, an inner split by time judges them, hopeless trials are stopped.

Only train is seen: its newest part judges what was learned on the older one, with the embargo of every split by time.
So valid stays honest for choosing among families, and test is never looked at. Trial 0 has the defaults, and where
none beats them they stay: tuning is never worse on the inner split. The study lives in memory, its trials in the run.

Proposals by a tree-structured Parzen estimator (Bergstra et al. 2011, "Algorithms for hyper-parameter optimization",
NIPS), from one seed and one after the other: the same seed gives the same trials. A trial is stopped where its best
log-loss is above the median of the trials before it when they had come as far (Golovin et al. 2017, "Google Vizier",
KDD, the median rule).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from features.errors import InputError
from features.progress import SILENT, Progress
from training.dataset import Dataset, require_take_ups
from training.examples import log_loss
from training.families import FAMILIES
from training.settings import DEFAULTS, Range, Settings
from training.split import newest

if TYPE_CHECKING:
    from training.track import Run, Tracking

STARTUP = 5
"""Trials, the defaults among them, before the sampler learns from them and the pruner stops any."""
FIRST_LOOK = 2
"""Steps of the defaults' tenth that a trial may go before it can be stopped."""


@dataclass(frozen=True)
class Trial:
    """One set of settings, tried. loss: inner log-loss, nats per choice; at best until then where it was stopped.

    rounds: boosting rounds or epochs of the best; 0 where it was stopped.
    """

    number: int
    settings: Settings
    loss: float
    rounds: int
    stopped: bool
    seconds: float


@dataclass(frozen=True)
class Tuned:
    """How a search went. settings: what to fit with; none where the defaults (trial 0) were not beaten."""

    settings: Settings
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial:
        return min((trial for trial in self.trials if not trial.stopped), key=lambda trial: trial.loss)

    def told(self, family: str) -> str:
        """In one line, for people."""
        default, best = self.trials[0].loss, self.best
        found = f"the best of {len(self.trials)} trials of {family} has an inner log-loss of {best.loss:.4f}"
        if not best.number:
            return f"{found}, by the defaults: they stay"
        return f"{found}, {default:.4f} by the defaults: " + ", ".join(f"{k} {v:.3g}" for k, v in best.settings.items())


def inner(train: Dataset) -> tuple[Dataset, Dataset]:
    """The older part of train and its newest, by time with an embargo; InputError where one is too small to tell."""
    older, later = newest(train.spine.as_of, train.spine.closes, train.spine.sort)
    parts = train.take(older), train.take(later)
    for part, what in zip(parts, ("older rows to tune on", "newest rows to judge settings by"), strict=True):
        try:
            require_take_ups(part, what)
        except InputError as error:
            raise InputError(f"--tune splits the rows to learn from once more by time, however {error}") from error
    return parts


def tunable(name: str) -> bool:
    """Whether a family has settings to search."""
    return bool(_space(name))


def tune(name: str, train: Dataset, trials: int, seed: int, progress: Progress = SILENT) -> Tuned:
    """Try `trials` settings of the family `name`, the defaults first, and choose the best on the inner split."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    older, later = (part.examples for part in inner(train))
    space, defaults = _space(name), import_module(FAMILIES[name].module).defaults(older)
    unit = defaults["learning_rate"] * 10  # how far ten rounds or epochs of the defaults come
    kept: list[Trial] = []

    def attempt(trial: Any) -> float:
        settings = {setting: _suggested(trial, setting, where) for setting, where in space.items()}
        started, lowest, last = time.perf_counter(), np.inf, -1

        def watch(far: float, loss: float) -> None:
            nonlocal lowest, last
            lowest = min(lowest, loss)
            if int(far / unit) > last:
                last = int(far / unit)
                trial.report(lowest, last)
                if trial.should_prune():
                    seconds = time.perf_counter() - started
                    kept.append(Trial(trial.number, settings, float(lowest), 0, True, seconds))
                    raise optuna.TrialPruned

        asked = settings if trial.number else DEFAULTS
        fitted = FAMILIES[name].fit(train.question, older, later, seed, settings=asked, watch=watch)
        loss = log_loss(fitted.scorer.utilities(later.rows), later)
        kept.append(Trial(trial.number, settings, loss, fitted.rounds, False, time.perf_counter() - started))
        return loss

    with progress.step(f"tune {name}", trials) as advance:
        study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=FIRST_LOOK),
        )
        study.enqueue_trial({setting: space[setting].clip(value) for setting, value in defaults.items()})
        study.optimize(attempt, n_trials=trials, callbacks=[lambda study, trial: advance(1)])
    best = Tuned(DEFAULTS, tuple(kept)).best
    return Tuned(best.settings if best.number else DEFAULTS, tuple(kept))


def keep_trials(run: Run, tracking: Tracking, experiment: str, tuned: Tuned) -> None:
    """A nested run per trial under the family's: its settings, its inner log-loss, whether it was stopped."""
    for trial in tuned.trials:
        tags = {"nextbest.part": "trial", "nextbest.stopped": str(trial.stopped).lower()}
        with tracking.run(experiment, f"trial {trial.number}", tags, parent=run.id) as child:
            child.params({**trial.settings, "trial": trial.number, "fitted_rounds": trial.rounds})
            child.metrics({"inner/log_loss": trial.loss, "cost/fit_seconds": trial.seconds})


def _space(name: str) -> Mapping[str, Range]:
    found: Mapping[str, Range] = getattr(import_module(FAMILIES[name].module), "SPACE", {})
    return found


def _suggested(trial: Any, name: str, where: Range) -> float:
    if where.whole:
        return int(trial.suggest_int(name, int(where.low), int(where.high), log=where.log))
    return float(trial.suggest_float(name, where.low, where.high, log=where.log))

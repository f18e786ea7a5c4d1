"""The present champion on a challenger's test rows: what a new model has to be as good as.

A comparison is honest only in rows that neither model has learned from. The champion was fitted again on everything up
to its own `until`, so it may answer for rows after it. For rows before, its run keeps what it said of its own test rows
before it was fitted again: those that both runs test on are compared as well, like with like. Elsewhere it says NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from features.assemble import row_schema
from features.errors import ArtefactError, InputError
from features.progress import SILENT, Progress
from features.schema import Bool, Float64
from features.times import micros
from serving.choice import ChoiceModel
from serving.question import Question
from serving.registry import misfit, resolve
from training.dataset import Dataset, rows_at
from training.evaluate import PRIOR, compare
from training.finished import FinishedRun
from training.predictions import CHAMPION, MODEL, Predictions
from training.promotion.gate_relative import other_question
from training.track import PRIOR_FOLDER

if TYPE_CHECKING:
    from features.home import Build
    from training.row_store import RowStore
    from training.track import Tracking

FOREVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Rival:
    """A registered model. until: µs, the newest that it may have learned from. said: what its run kept, if anything."""

    version: str
    run_id: str
    model: ChoiceModel
    until: int
    said: Predictions | None
    said_as: str
    """Under which name `said` has this model: "model", or "prior" where it is the prior of its run."""

    def unfit(self, question: Question, build: Build) -> str | None:
        """Why it cannot answer this question about this build's rows; None where it can."""
        reason = misfit(self.model.row_schema, row_schema(build.bank))
        return reason or other_question(self.model.question, question)

    def answers(
        self, test: Dataset, build: Build, progress: Progress = SILENT, store: RowStore | None = None
    ) -> Float64:
        """Its probabilities on the test rows of another run, float64 [n, m]; NaN rows where it may have learned."""
        answers = np.full(test.available.shape, np.nan)
        later = test.spine.as_of > self.until
        if later.any():
            rows = test.take(later)
            seen = rows_at(build, rows.customer_id, rows.spine.as_of, self.model.row_schema, progress, store)
            answers[later] = self.model.probabilities(seen, rows.available)
        if self.said is not None:
            here, there = Predictions.of(test, {}, {}).shared_with(self.said)
            same = (test.available[here] == self.said.available[there]).all(axis=1) & ~later[here]
            answers[here[same]] = self.said.probabilities[self.said_as][there[same]]
        return answers


def rival(model: str, reference: str, tracking: Tracking) -> Rival:
    """The model that an alias or a version names; ArtefactError where there is none that can be read."""
    loaded = resolve(model, reference, tracking.uri)
    named = tracking.named(model, loaded.version)
    name = PRIOR if named is not None and named[2] == PRIOR_FOLDER else MODEL
    try:
        run = FinishedRun.open(tracking, loaded.run_id)
        until = micros(datetime.fromisoformat(run.params["until"]))
    except (InputError, KeyError, ValueError):
        return Rival(loaded.version, loaded.run_id, loaded.model, FOREVER, None, name)
    try:
        said = run.predictions()
    except ArtefactError:
        said = None
    if said is not None and name not in said.probabilities:
        said = None
    return Rival(loaded.version, loaded.run_id, loaded.model, until, said, name)


def present_champion(model: str, tracking: Tracking) -> Rival | None:
    """What serves now; None where nothing does, or nothing that can be read."""
    try:
        return rival(model, CHAMPION, tracking)
    except ArtefactError:
        return None


@dataclass(frozen=True)
class Asked:
    """What came of asking the champion. said: its answers by name, empty where it was not asked.

    unfit: why it cannot answer, or None. fit: its model, where it can.
    """

    rival: Rival | None
    said: Mapping[str, Float64]
    unfit: str | None = None

    @property
    def fit(self) -> ChoiceModel | None:
        return None if self.rival is None or self.unfit is not None else self.rival.model

    @property
    def honest(self) -> Bool | None:
        """bool [n]: rows of the test that it answers and has not learned from; None where it was not asked."""
        return np.asarray(~np.isnan(self.said[CHAMPION]).all(axis=1)) if self.said else None

    @property
    def params(self) -> dict[str, object]:
        """Which champion it was and in how many rows it was compared."""
        if self.rival is None:
            return {}
        rows = 0 if self.honest is None else int(self.honest.sum())
        return {"champion_version": self.rival.version, "champion_run": self.rival.run_id, "champion_rows": rows}

    @property
    def notes(self) -> tuple[str, ...]:
        """What to tell a person."""
        if self.rival is None:
            return ()
        if self.unfit is not None:
            return (f"not compared with the champion, version {self.rival.version}: {self.unfit}",)
        if self.honest is None or not self.honest.any():
            return (f"not compared with the champion, version {self.rival.version}: it may know all test rows already",)
        return ()

    def differences(self, said: Mapping[str, Float64], test: Dataset, seed: int) -> dict[str, float]:
        """`test/<metric>_minus_champion` with `_low`, `_high`, and the champion's own, on the rows it answers honestly.

        said: of the new model as `model`, float64 [n, m] on all test rows.
        """
        if self.honest is None or not self.honest.any():
            return {}
        both = {MODEL: said[MODEL][self.honest], CHAMPION: self.said[CHAMPION][self.honest]}
        found = compare(MODEL, both, test.take(self.honest), seed, (CHAMPION,)).flat(MODEL, "test")
        return {name: value for name, value in found.items() if CHAMPION in name}


def ask(
    champion: Rival | None, test: Dataset, build: Build, progress: Progress = SILENT, store: RowStore | None = None
) -> Asked:
    """Ask the champion about the test rows of another run. store: see `rows_at`."""
    if champion is None:
        return Asked(None, {})
    unfit = champion.unfit(test.question, build)
    if unfit is not None:
        return Asked(champion, {}, unfit)
    with progress.step(f"ask the champion, version {champion.version}"):
        try:
            return Asked(champion, {CHAMPION: champion.answers(test, build, progress, store)})
        except ArtefactError as error:
            return Asked(champion, {}, str(error))

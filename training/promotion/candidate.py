"""A run as the gate sees it: what it said of its test rows, what it costs, and what it learned from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from features.errors import ArtefactError
from features.schema import RowSchema
from serving.choice import QUESTION_FILE, ROWS_FILE, Question, verify
from training.evaluate import PRIOR
from training.finished import FinishedRun
from training.plan import MODELS
from training.predictions import MODEL, Predictions
from training.promotion.leak import FILE as LEAK_FILE
from training.promotion.leak import Leaks
from training.track import MODEL_FOLDER

COST = "cost/"
POLICY_VALUE, CONSTANT_VALUE = "test/dr_value", "test/dr_value_best_constant"
"""Metrics: what the run's policy is estimated to earn, and what the best constant one would."""


@dataclass(frozen=True)
class Candidate:
    """A run that is, or may become, the champion.

    predictions: of its test rows, before it was fitted again; None for a model that does not choose among candidates.
    costs: what `cost/` holds, without the prefix. metrics: all that the run logged. leaks: what the leak check found,
    with the importance of the columns. schema: of the rows that it reads. name: under which its model stands in the
    predictions, PRIOR where the champion is the prior of its run. version: in the registry, where that is known.
    damage: why its model cannot be served, None where it can.
    """

    run_id: str
    predictions: Predictions | None
    costs: Mapping[str, float] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    leaks: Leaks | None = None
    schema: RowSchema | None = None
    name: str = MODEL
    version: str | None = None
    damage: str | None = None

    @classmethod
    def of(cls, run: FinishedRun) -> Candidate:
        """The candidate that a finished run kept; ArtefactError where it keeps no predictions that can be read."""
        costs = {name.removeprefix(COST): value for name, value in run.metrics.items() if name.startswith(COST)}
        said = run.predictions() if run.params.get("model") in MODELS else None
        return cls(run.id, said, costs, run.params, run.metrics, _leaks(run), _schema(run), damage=_damage(run, said))

    @property
    def policy_value(self) -> str:
        """The metric that tells what its decisions are estimated to earn."""
        return CONSTANT_VALUE if self.params.get("chosen_family") == "constant" else POLICY_VALUE

    @property
    def is_prior(self) -> bool:
        """Whether it says the same of everyone."""
        return PRIOR in (self.name, self.params.get("chosen_family"))


def _leaks(run: FinishedRun) -> Leaks | None:
    try:
        path = run.artefact(LEAK_FILE)
    except ArtefactError:
        return None
    return Leaks.load(path)


def _damage(run: FinishedRun, said: Predictions | None) -> str | None:
    """Whether the files of the model are those of its manifest, and answer the question of the predictions."""
    try:
        folder = run.artefact(MODEL_FOLDER)
        verify(folder)
        if said is None:
            return None
        question = Question.from_json((folder / QUESTION_FILE).read_text(encoding="utf-8"))
    except (ArtefactError, OSError, KeyError, TypeError, ValueError) as error:
        return str(error)
    return None if question == said.question else "the model answers another question than its predictions"


def _schema(run: FinishedRun) -> RowSchema | None:
    try:
        return RowSchema.from_json(run.artefact(f"{MODEL_FOLDER}/{ROWS_FILE}").read_text(encoding="utf-8"))
    except (ArtefactError, OSError, KeyError, TypeError, ValueError):
        return None

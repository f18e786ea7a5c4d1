"""Model families: how each is fitted, and fitted again on more data. Libraries are imported when a family is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module

from features.errors import InputError
from features.progress import SILENT, Progress
from serving.choice import Question, Scorer
from training.examples import Examples
from training.settings import DEFAULTS, Settings, Watch

Plain = bool | int | float | str


@dataclass(frozen=True)
class Fitted:
    """A fitted scorer and how it came about.

    rounds: boosting rounds, epochs or keys that the validation examples chose; 0 for the prior and an ensemble.
    seconds: of fitting. params: plain values, for the run's record.
    importance: share of the gain per column of a pair line, sums to 1; None where a family has none.
    parts: the members of an ensemble; empty for every other family.
    """

    scorer: Scorer
    rounds: int
    seconds: float
    params: dict[str, Plain] = field(default_factory=dict)
    importance: dict[str, float] | None = None
    parts: tuple[Fitted, ...] = ()


@dataclass(frozen=True)
class Family:
    """A model family. The same examples and seed give the same scorer, bit for bit.

    module: its functions `fit` and `refit`; imported with its libraries when the family is used.
    """

    name: str
    module: str

    def fit(
        self,
        question: Question,
        train: Examples,
        valid: Examples,
        seed: int = 0,
        progress: Progress = SILENT,
        settings: Settings = DEFAULTS,
        watch: Watch | None = None,
    ) -> Fitted:
        """Fit on `train`; `valid` (later in time) chooses when to stop. settings, watch: of a family with a SPACE."""
        own = {"settings": settings, "watch": watch} if settings or watch else {}
        fitted: Fitted = import_module(self.module).fit(question, train, valid, seed, progress, **own)
        return fitted

    def refit(self, question: Question, train: Examples, like: Fitted, seed: int = 0) -> Fitted:
        """Fit on `train` with the rounds and choices of `like`; needs no validation examples."""
        fitted: Fitted = import_module(self.module).refit(question, train, like, seed)
        return fitted


def require_examples(question: Question, **sets: Examples) -> None:
    """InputError naming the first of `sets` that has nothing to learn from."""
    width = len(question.candidates) + 1
    for name, examples in sets.items():
        if not len(examples) or examples.weight.sum() <= 0:
            raise InputError(
                f"{question.model} needs at least one {name} example with weight, however there are {len(examples)} "
                "rows; give a longer history or a shorter horizon"
            )
        if examples.available.shape[1] != width:
            raise ValueError(f"{name} has m + 1 = {width} options, however {examples.available.shape[1]}")


FAMILIES: Mapping[str, Family] = {
    name: Family(name, f"training.fit_{name}") for name in ("prior", "counts", "lightgbm", "torch", "ensemble")
}
"""In the order of the ladder, see there."""

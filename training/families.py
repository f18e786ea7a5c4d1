"""Model families: how each is fitted, and fitted again on more data. Libraries are imported when a family is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from features.errors import InputError
from features.progress import SILENT, Progress
from serving.choice import Question, Scorer
from training.examples import Examples

Plain = bool | int | float | str


@dataclass(frozen=True)
class Fitted:
    """A fitted scorer and how it came about.

    rounds: boosting rounds or epochs that the validation examples chose; 0 for the prior.
    seconds: of fitting. params: plain values, for the run's record.
    importance: share of the gain per column of a pair line, sums to 1; None where a family has none.
    """

    scorer: Scorer
    rounds: int
    seconds: float
    params: dict[str, Plain] = field(default_factory=dict)
    importance: dict[str, float] | None = None


class Fit(Protocol):
    def __call__(
        self, question: Question, train: Examples, valid: Examples, seed: int = 0, progress: Progress = SILENT
    ) -> Fitted:
        """Fit on `train`; `valid` (later in time) chooses when to stop."""
        ...


class Refit(Protocol):
    def __call__(self, question: Question, train: Examples, like: Fitted, seed: int = 0) -> Fitted:
        """Fit on `train` with the rounds and choices of `like`; needs no validation examples."""
        ...


@dataclass(frozen=True)
class Family:
    """A model family. The same examples and seed give the same scorer, bit for bit."""

    name: str
    fit: Fit
    refit: Refit


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


def _fit_prior(
    question: Question, train: Examples, valid: Examples, seed: int = 0, progress: Progress = SILENT
) -> Fitted:
    from training import fit_prior

    return fit_prior.fit(question, train, valid, seed, progress)


def _refit_prior(question: Question, train: Examples, like: Fitted, seed: int = 0) -> Fitted:
    from training import fit_prior

    return fit_prior.refit(question, train, like, seed)


def _fit_lightgbm(
    question: Question, train: Examples, valid: Examples, seed: int = 0, progress: Progress = SILENT
) -> Fitted:
    from training import fit_lightgbm

    return fit_lightgbm.fit(question, train, valid, seed, progress)


def _refit_lightgbm(question: Question, train: Examples, like: Fitted, seed: int = 0) -> Fitted:
    from training import fit_lightgbm

    return fit_lightgbm.refit(question, train, like, seed)


def _fit_torch(
    question: Question, train: Examples, valid: Examples, seed: int = 0, progress: Progress = SILENT
) -> Fitted:
    from training import fit_torch

    return fit_torch.fit(question, train, valid, seed, progress)


def _refit_torch(question: Question, train: Examples, like: Fitted, seed: int = 0) -> Fitted:
    from training import fit_torch

    return fit_torch.refit(question, train, like, seed)


FAMILIES: Mapping[str, Family] = {
    "prior": Family("prior", _fit_prior, _refit_prior),
    "lightgbm": Family("lightgbm", _fit_lightgbm, _refit_lightgbm),
    "torch": Family("torch", _fit_torch, _refit_torch),
}

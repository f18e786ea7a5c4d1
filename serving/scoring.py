"""Probabilities for one customer from the best model that answers: champion, then prior, then a static rule.

No model decides alone: a score that is not a finite probability drops its candidate, and a model that raises or gives
nothing usable hands over to the next, with the reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np

from features.schema import Bool, Float64, Int64, Rows, RowSchema

if TYPE_CHECKING:
    from serving.choice import ChoiceModel

STATIC = "static"
"""The version that an answer shows where no model answered."""

log = logging.getLogger(__name__)


class Model(Protocol):
    """What serving needs of a `serving.choice.ChoiceModel`."""

    @property
    def row_schema(self) -> RowSchema: ...

    def probabilities(self, rows: Rows, available: Bool) -> Float64:
        """Float64 [n, m], NaN where not available."""
        ...


@dataclass(frozen=True)
class Source:
    """A model with the name of its place in the chain, its version, and the candidates that it can score.

    note: what each of its answers has to say of it; "" = nothing.
    """

    name: str
    version: str
    candidates: tuple[str, ...]
    model: Model
    note: str = ""


def source_of(name: str, version: str, model: ChoiceModel) -> Source:
    """A choice model in its place; answers say so where its scores are no probabilities."""
    note = model.calibration.note(f"{name} of {model.question.model}")
    return Source(name, version, model.question.candidates, model, note)


@dataclass(frozen=True)
class Scores:
    """probabilities: float64 [m], NaN where a candidate has no usable score; who gave them, and what went wrong."""

    probabilities: Float64
    version: str
    dropped: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True)
class Panel:
    """Everything that can answer one question about `candidates`, best first; `missing` says what is not there."""

    question: str
    candidates: tuple[str, ...]
    outside: bool
    """Whether "none of them" is among the outcomes."""
    sources: tuple[Source, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def schemas(self) -> list[RowSchema]:
        return [source.model.row_schema for source in self.sources]

    def score(self, rows_of: Callable[[RowSchema], Rows], available: Bool) -> Scores:
        """Scores of the single customer behind `rows_of`; available: bool [m] over `candidates`."""
        if not np.count_nonzero(available):
            return Scores(np.full(len(self.candidates), np.nan), STATIC, (), self.missing)
        degraded = list(self.missing)
        for source in self.sources:
            try:
                raw = self._ask(source, rows_of, available)
            except Exception as error:
                # Whatever a model throws, the customer still gets an answer; the log has the trace.
                log.warning("%s %s failed", source.name, self.question, exc_info=True)
                degraded.append(f"{source.name} of {self.question} failed ({type(error).__name__})")
                continue
            dropped = self._lost(raw, available)
            if len(dropped) < np.count_nonzero(available):
                degraded += [source.note] if source.note else []
                return Scores(raw, source.version, dropped, tuple(degraded))
            degraded.append(f"{source.name} of {self.question} gave no usable score")
        degraded.append(f"{self.question} uses the static rule: all candidates alike")
        return Scores(self._static(available), STATIC, (), tuple(degraded))

    def _lost(self, raw: Float64, available: Bool) -> tuple[str, ...]:
        """Make NaN what is no probability, or was not asked for [m]; the available candidates that it was."""
        dropped = []
        # A customer has few candidates: a look at each is less than the calls that look at all of them.
        for place, (score, asked) in enumerate(zip(raw.tolist(), available.tolist(), strict=True)):
            if not (asked and 0.0 <= score <= 1.0):
                raw[place] = np.nan
                dropped += [self.candidates[place]] if asked else []
        return tuple(dropped)

    def _ask(self, source: Source, rows_of: Callable[[RowSchema], Rows], available: Bool) -> Float64:
        """Float64 [m] over this panel's candidates, a copy; NaN for those that the source does not know."""
        known = _positions(source.candidates, self.candidates)  # [source's m], position in ours
        asked = available if known is None else available[known]
        if not np.count_nonzero(asked):
            return np.full(len(self.candidates), np.nan)
        answer = source.model.probabilities(rows_of(source.model.row_schema), asked[None, :])
        if answer.shape != (1, len(asked)):
            raise ValueError(f"{source.name} answered in shape {answer.shape}, expected {(1, len(asked))}")
        if known is None:
            return np.array(answer[0], dtype=np.float64)
        raw = np.full(len(self.candidates), np.nan)
        raw[known] = answer[0]
        return raw

    def _static(self, available: Bool) -> Float64:
        share = 1.0 / (int(available.sum()) + int(self.outside))
        return np.where(available, share, np.nan)


@lru_cache(maxsize=256)
def _positions(names: tuple[str, ...], among: tuple[str, ...]) -> Int64 | None:
    """int64 [m], None where they are the same; models and catalogues are few."""
    if names == among:
        return None
    place = {name: position for position, name in enumerate(among)}
    return np.array([place[name] for name in names], dtype=np.int64)

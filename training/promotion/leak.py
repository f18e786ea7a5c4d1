"""Does a column tell the outcome? Each column of the rows alone, against what was taken.

A leaked column (a result booked under an earlier time, an attribute exported after the fact) separates takers from the
others nearly perfectly by itself, and the model lives on it. Honest columns do one of the two at most. How well one
separates is measured as univariate Gini screens do: its values in bins, missing ones apart, the share of takers per bin
learned from half of the customers, and the AUC of these shares in the other half; so neither a direction nor a shape is
assumed, and many bins win nothing by chance. Occasions (something was taken: which?) and rows in which nothing could
be taken are looked at apart: the hour of day tells the two kinds from each other, which is no leak.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from features.errors import ArtefactError
from features.schema import Bool, Float32, Float64, Int64
from training.stable import hashes

if TYPE_CHECKING:
    from training.dataset import Dataset
    from training.track import Run

FILE = "gate/leak.json"
FOLDER = "gate"
BINS = 20
FEWEST_TAKEN = 20
"""Take-ups of a candidate below which nothing is said of it."""
SMOOTHING = 1.0
"""Rows of the usual share that each bin starts with."""
ANY = "any"
SEPARATES = 0.95
"""AUC from which a column tells who takes a candidate. A column that gives away only some takers, however surely,
is not found: honest ones do so too, as clicks just before a take-up."""
TELLS, CARRIES = 0.2, 0.2
"""Columns that tell this share of all take-ups, and carry this share of the model's gain, are leaks. That a single rare
product is told is no leak: only the young take a junior card (Berka, AUC 0.99, 1 % of the take-ups)."""


@dataclass(frozen=True)
class Separation:
    """How well one column alone tells who took `candidate`, the one it tells best ("any": whether anything was taken).

    auc: 0.5 = not at all, 1 = perfectly. gain: share of what the model gains by reading rows that the column carries;
    None where nobody can tell. taken: take-ups it was measured on. tells: all candidates that it separates.
    """

    column: str
    candidate: str
    auc: float
    gain: float | None
    taken: int
    tells: tuple[str, ...] = ()


@dataclass(frozen=True)
class Leaks:
    """The separation of every column, the best column first.

    take_ups: of each candidate, in all rows. known_before: what a person has vouched for.
    """

    columns: tuple[Separation, ...]
    take_ups: Mapping[str, int]
    known_before: tuple[str, ...] = ()

    def vouched(self, names: Sequence[str]) -> Leaks:
        """Without suspicion of the columns and attributes that a person knows to be known before the outcome."""
        spared = [
            replace(one, tells=()) if any(one.column == name or one.column.startswith(f"{name} = ") for name in names)
            else one
            for one in self.columns
        ]  # fmt: skip
        return Leaks(tuple(spared), self.take_ups, (*self.known_before, *names))

    @property
    def suspects(self) -> tuple[Separation, ...]:
        """Columns that separate somebody's takers as few honest ones do."""
        return tuple(one for one in self.columns if one.tells)

    @property
    def told(self) -> float:
        """Share of all take-ups that the suspects tell together: a text attribute is several columns."""
        tells = {candidate for one in self.suspects for candidate in one.tells}
        if ANY in tells:
            return 1.0
        return sum(self.take_ups[candidate] for candidate in tells) / max(sum(self.take_ups.values()), 1)

    @property
    def carried(self) -> float | None:
        """Share of the gain that the suspects carry together; None where the family does not tell."""
        gains = [one.gain for one in self.suspects]
        return None if None in gains else float(sum(gain for gain in gains if gain is not None))

    @property
    def found(self) -> bool:
        """Whether the model lives on columns that tell the outcome; where none knows on what, to tell is enough."""
        return self.told >= TELLS and (self.carried is None or self.carried >= CARRIES)

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, indent=1)

    @classmethod
    def load(cls, path: Path) -> Leaks:
        """Read what was kept with a run; ArtefactError where it is damaged."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            columns = (Separation(**{**one, "tells": tuple(one["tells"])}) for one in raw["columns"])
            return cls(tuple(columns), dict(raw["take_ups"]), tuple(raw.get("known_before", ())))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"{path} holds no leak check that can be read: {error!r}; train again") from error


def keep(run: Run, data: Dataset, importance: Mapping[str, float] | None) -> Leaks:
    """Look for leaks in the rows of `data` and keep what was found with the run, for the gate.

    importance: share of the gain per column, `Fitted.importance`; None where the family has none.
    """
    found = leaks(data, importance)
    run.text(found.to_json(), FILE)
    return found


def leaks(data: Dataset, importance: Mapping[str, float] | None) -> Leaks:
    """The separation of every column of the rows that a model of this question sees."""
    taken = np.concatenate([data.taken & data.available, data.taken.any(axis=1, keepdims=True)], axis=1)  # [n, m + 1]
    offered = np.concatenate([data.available, np.ones((len(data), 1), np.bool_)], axis=1)
    half = np.asarray(hashes(data.customer_id) % 2 == 0, dtype=np.bool_)
    kinds = [kind for kind in (data.judged_for_probability, data.judged_for_ranking) if kind.any()]
    pairs = [_Pairs.of(offered & kind[:, None], taken, half) for kind in kinds]
    names = (*data.question.candidates, ANY)
    found = []
    for name, values in _columns(data):
        bins = binned(values.ravel()).reshape(values.shape)
        told = [(aucs, of_kind.count) for of_kind in pairs for aucs in [of_kind.aucs(bins)]]
        auc, place, count = max(
            ((float(aucs[one]), one, int(counts[one])) for aucs, counts in told for one in range(len(names))),
            default=(0.5, len(names) - 1, 0),
        )
        gain = None if importance is None else importance.get(name, 0.0)
        tells = tuple(names[one] for one in range(len(names)) if any(aucs[one] >= SEPARATES for aucs, _ in told))
        found.append(Separation(name, names[place], auc, gain, count, tells))
    counts = dict(zip(data.question.candidates, taken[:, :-1].sum(axis=0).tolist(), strict=True))
    return Leaks(tuple(sorted(found, key=lambda one: -one.auc)), counts)


def _columns(data: Dataset) -> Iterator[tuple[str, Float32]]:
    """Name and values of each column, [n] of the customer's, [n, m] of the candidates'."""
    from serving.scorers import Layout

    layout = Layout.of(data.question, data.rows.schema)
    customer, candidates = layout.customer(data.rows), layout.candidates(data.rows)
    yield from ((name, customer[:, place]) for place, name in enumerate(layout.customer_names))
    yield from ((name, candidates[:, :, place]) for place, name in enumerate(layout.candidate_names))


def binned(values: Float32 | Float64) -> Int64:
    """Each value's bin, int64 [k]: few values each have their own, many lie in bins of equal mass; 0 = missing."""
    places = np.zeros(len(values), dtype=np.int64)
    known = ~np.isnan(values)
    inside = values[known]
    borders = np.unique(inside)
    if len(borders) > BINS:
        borders = np.unique(np.quantile(inside, np.linspace(0, 1, BINS + 1)[:-1], method="lower"))
    places[known] = np.searchsorted(borders, inside, side="right")
    return places


@dataclass(frozen=True)
class _Pairs:
    """Rows of one kind with each candidate that was offered, and with "any" as the last: k pairs in c columns.

    row, column: int64 [k]. cell: int64 [k], which of 2 halves x (not taken, taken) x c. count: int64 [c], take-ups;
    said: bool [c], whether there are enough of them to say anything.
    """

    row: Int64
    column: Int64
    cell: Int64
    count: Int64
    said: Bool

    @classmethod
    def of(cls, offered: Bool, taken: Bool, half: Bool) -> _Pairs:
        row, column = (place.astype(np.int64) for place in np.nonzero(offered))
        happened = taken[row, column]
        width = taken.shape[1]
        count = np.bincount(column[happened], minlength=width)
        said = (count >= FEWEST_TAKEN) & (count < offered.sum(axis=0))
        return cls(row, column, (2 * half[row] + happened) * width + column, count, np.asarray(said, np.bool_))

    def aucs(self, bins: Int64) -> Float64:
        """Of each candidate, float64 [c]: see `crossed_auc`; 0.5 where nothing can be said. bins: [n] or [n, c - 1]."""
        width = len(self.count)
        kept = np.ones(len(self.row), np.bool_) if bins.ndim == 1 else self.column < bins.shape[1]
        row = self.row[kept]
        of_pair = bins[row] if bins.ndim == 1 else bins[row, self.column[kept]]
        size = int(bins.max(initial=0)) + 1
        cells = np.bincount(self.cell[kept] * size + of_pair, minlength=4 * width * size).reshape(2, 2, width, size)
        return np.where(self.said, crossed_auc(cells), 0.5)


def crossed_auc(cells: Int64) -> Float64:
    """AUC of the share of takers per bin, learned in one half and judged in the other, the mean of both ways.

    cells: counts by half, (not taken, taken), candidate and bin, [2, 2, c, bins]. Float64 [c], 0.5 where the other half
    has only takers, or none.
    """
    return np.asarray((_auc(cells[0], cells[1]) + _auc(cells[1], cells[0])) / 2)


def _auc(learned: Int64, asked: Int64) -> Float64:
    """learned, asked: counts [2, c, bins]. Probability that a taker's bin has the larger share, ties half; [c]."""
    usual = learned[1].sum(axis=1, keepdims=True) / np.maximum(learned.sum(axis=(0, 2)), 1)[:, None]
    share = (learned[1] + SMOOTHING * usual) / (learned.sum(axis=0) + SMOOTHING)  # [c, bins]
    above = (share[:, :, None] > share[:, None, :]) + 0.5 * (share[:, :, None] == share[:, None, :])
    won = np.einsum("cb,cbd,cd->c", asked[1], above, asked[0])
    both = asked[1].sum(axis=1) * asked[0].sum(axis=1)
    return np.asarray(np.divide(won, both, out=np.full(len(won), 0.5), where=both > 0))

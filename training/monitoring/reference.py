"""What a model's rows and scores looked like when it was judged: small histograms, kept with the run.

    reference/reference.json    per column of the row and per score: at most ten bins and their shares

Served rows are counted into these very bins later (`training.monitoring.drift`).

Beside them lie the shares of the rows that the model learned from. Between those and the rows it was judged on some
columns moved already, such as days since an account was opened where the history is short: the metrics were measured
under that much movement, so as much again is no news.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from features import market
from features.assemble import CALENDAR_NAMES
from features.errors import ArtefactError
from features.schema import Float64, Rows, Texts
from serving.question import Question
from training.monitoring.histogram import Histogram

if TYPE_CHECKING:
    from serving.choice import ChoiceModel
    from training.dataset import Dataset
    from training.track import Run

FOLDER = "reference"
FILE = "reference.json"
FORMAT = 1
MOST_CANDIDATES = 40
"""With more candidates than that, only what describes the customer is kept, and the best score."""
MOST_EARLIER = 5_000
"""Rows of those learned from that are looked at, spread evenly over time."""
BEST_SCORE = "best score"


@dataclass(frozen=True)
class Reference:
    """Histograms of n rows and of what the model said of them.

    columns: of the row, as the model reads it. scores: of every candidate over the rows that could choose it, and
    BEST_SCORE. rows, customers: how many; where the customers are not told, every row counts as one.
    """

    model: str
    candidates: tuple[str, ...]
    rows: int
    customers: int
    columns: tuple[Histogram, ...]
    scores: tuple[Histogram, ...]

    @classmethod
    def of(
        cls,
        rows: Rows,
        probabilities: Float64,
        question: Question,
        customer_id: Texts | None = None,
        earlier: tuple[Rows, Float64] | None = None,
    ) -> Reference:
        """The histograms of these rows and probabilities (float64 [n, m], NaN where not available).

        customer_id: [n]; where given, each customer counts once, however many rows, so that `rows` of a histogram is a
        number of independent observations. earlier: rows that were learned from, and what the model says of them.
        """
        weight = np.ones(len(rows))
        customers = len(rows)
        if customer_id is not None:
            codes, distinct = pd.factorize(customer_id)
            weight = 1.0 / np.bincount(codes)[codes] if len(codes) else weight
            customers = len(distinct)
        columns = [
            Histogram.of(name, values, weight, is_moment(name)) for name, values in columns_of(rows, question).items()
        ]
        scores = [_of_known(name, values, weight) for name, values in scores_of(probabilities, question).items()]
        if earlier is not None and len(earlier[0]):
            learned, said = columns_of(earlier[0], question), scores_of(earlier[1], question)
            columns = [one.learned_from(learned[one.name]) for one in columns]
            scores = [one.learned_from(_known(said[one.name])) for one in scores]
        return cls(question.model, question.candidates, len(rows), customers, tuple(columns), tuple(scores))

    @classmethod
    def of_model(cls, model: ChoiceModel, learned: Dataset, judged: Dataset) -> Reference:
        """Of the rows that a model was judged on, beside those that it learned from.

        Only rows whose probabilities are judged: those of any customer at any moment, as in serving. Rows picked by
        their outcome, the moment before a take-up, are another population.
        """

        def said(part: Dataset) -> tuple[Rows, Float64]:
            return part.rows, model.probabilities(part.rows, part.available)

        asked = judged.take(judged.judged_for_probability)
        before = np.flatnonzero(learned.judged_for_probability)
        before = before[:: len(before) // MOST_EARLIER + 1]
        return cls.of(*said(asked), model.question, asked.customer_id, said(learned.take(before)))

    def save(self, path: Path) -> None:
        """Write one JSON file; its folder is made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {"format": FORMAT, **asdict(self)}
        path.write_text(json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Reference:
        """Read what `save` wrote; ArtefactError where it is missing or damaged."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            if raw.pop("format") != FORMAT:
                raise ValueError("it has another format")
            parts = {part: tuple(_histogram(one) for one in raw[part]) for part in ("columns", "scores")}
            return cls(**{**raw, **parts, "candidates": tuple(raw["candidates"])})
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"{path} holds no reference that can be read: {error!r}; train again") from error


def keep(run: Run, model: ChoiceModel, learned: Dataset, judged: Dataset) -> None:
    """Keep the reference of the model that is registered with its run; nothing where no row could be judged.

    The model that serves has to say it, although it was fitted on these rows too: scores now are its own, and those of
    another fit would look like drift.
    """
    if not judged.judged_for_probability.any():
        return
    with tempfile.TemporaryDirectory() as folder:
        Reference.of_model(model, learned, judged).save(Path(folder) / FILE)
        run.folder(Path(folder), FOLDER)


def columns_of(rows: Rows, question: Question) -> dict[str, Float64]:
    """Column name → float64 [n]: what describes the customer, and each candidate where there are not too many."""
    found = dict(zip(rows.schema.customer_names, rows.customer.T.astype(np.float64), strict=True))
    if len(question.candidates) > MOST_CANDIDATES:
        return found
    product = question.block == "product"
    block, names = (rows.product, rows.schema.product_names) if product else (rows.channel, rows.schema.channel_names)
    known = rows.schema.products if product else rows.schema.channels
    for candidate in question.candidates:
        for place, name in enumerate(names):
            # Some of these stand in the customer block too, under the same name and with the same values.
            values = block[:, known.index(candidate), place].astype(np.float64)
            found.setdefault(f"{candidate}: {name}", values)
    return found


def scores_of(probabilities: Float64, question: Question) -> dict[str, Float64]:
    """Score name → float64 [n], NaN where not available. probabilities: float64 [n, m]."""
    found: dict[str, Float64] = {}
    if question.link == "joint":  # else each is asked about alone, and no best one of them is
        known = np.where(np.isnan(probabilities), -np.inf, probabilities).max(axis=1, initial=-np.inf)
        found[BEST_SCORE] = np.where(np.isfinite(known), known, np.nan)
    if len(question.candidates) <= MOST_CANDIDATES:
        found |= {f"score of {name}": probabilities[:, place] for place, name in enumerate(question.candidates)}
    return found


def is_moment(name: str) -> bool:
    """Whether a column says only when it was asked, the same for all customers: it moves with the calendar."""
    return name in CALENDAR_NAMES or name.rpartition(": ")[2] in market.PRODUCT_NAMES


def _of_known(name: str, values: Float64, weight: Float64) -> Histogram:
    """Over the rows that have a score: who could not choose a candidate says nothing of its score."""
    return Histogram.of(name, _known(values), weight[np.isfinite(values)])


def _known(values: Float64) -> Float64:
    return values[np.isfinite(values)]


def _histogram(raw: Mapping[str, Any]) -> Histogram:
    lists = {
        name: None if raw[name] is None else tuple(raw[name]) for name in ("shares", "values", "borders", "before")
    }
    return Histogram(**{**raw, **lists})

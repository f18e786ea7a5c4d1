"""Tokens as numbers: what each field of a token is called in an embedding table, and time as bins and waves.

Zero means "none" in every field. Amounts fall into bins that hold equally many of the tokens learned from; gaps between
events into bins that double, from a minute to two years, as a habit of hours and one of months both matter. Beside the
bins goes a continuous encoding: the logarithm of the gap, and hour of the day and day of the week as waves (after
Kazemi et al. 2019, "Time2Vec: Learning a vector representation of time", with periods fixed to those people live by).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from features.schema import Float32, Float64, Int64
from training.sequence.tokens import KINDS, Tokens

if TYPE_CHECKING:
    from features.catalog import Catalog

FIELDS = ("kind", "channel", "product", "category", "amount", "gap")
CATEGORIES = 64
"""Words for categories, the most frequent; all others share one."""
AMOUNT_BINS = 24
MINUTE = 60.0
GAP_EDGES = MINUTE * 2.0 ** np.arange(21)
"""Seconds; the last is 728 days."""
GAPS = len(GAP_EDGES) + 2
"""0: there is no earlier event; 1: within a minute; ... GAPS - 1: longer than two years."""
WAVES = 5
"""Columns of the continuous encoding."""
LONGEST = float(np.log1p(GAP_EDGES[-1]))
HOUR, DAY, WEEK = 3600.0, 86_400.0, 604_800.0


@dataclass(frozen=True)
class Encoded:
    """n tokens. fields: int64 [n, FIELDS]. waves: float32 [n, WAVES]. seconds: float64 [n], when they became known."""

    fields: Int64
    waves: Float32
    seconds: Float64


@dataclass(frozen=True)
class Vocabulary:
    """The words of a model. amount_edges: ascending, between bins of signed amounts."""

    products: tuple[str, ...]
    channels: tuple[str, ...]
    categories: tuple[str, ...]
    amount_edges: tuple[float, ...]
    time_zone: str

    @classmethod
    def learn(cls, tokens: Tokens, among: Sequence[int] | Int64, catalog: Catalog) -> Vocabulary:
        """From the tokens at the positions `among`: those that the model may learn from."""
        seen = pd.Series(tokens.category[among]).dropna()
        counts = seen.value_counts()
        frequent = sorted(counts.index, key=lambda name: (-counts[name], name))[:CATEGORIES]
        amounts = tokens.amount[among]
        amounts = amounts[np.isfinite(amounts)]
        levels = np.linspace(0, 1, AMOUNT_BINS + 1)[1:-1]
        edges = np.unique(np.quantile(amounts, levels)) if len(amounts) else np.array([])
        return cls(
            catalog.product_ids,
            catalog.channel_ids,
            tuple(str(name) for name in frequent),
            tuple(float(edge) for edge in edges),
            catalog.time_zone,
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Words per field, in the order of FIELDS."""
        categories, amounts = len(self.categories) + 2, len(self.amount_edges) + 2
        return (len(KINDS) + 1, len(self.channels) + 1, len(self.products) + 1, categories, amounts, GAPS)

    def encode(self, tokens: Tokens) -> Encoded:
        """The tokens as numbers; each gap is that to the customer's token before it."""
        named = pd.Index(self.categories, dtype=object).get_indexer(pd.Index(tokens.category)) + 2
        category = np.where(pd.isna(tokens.category), 0, named)  # 1: a category that is not in the vocabulary
        known = np.isfinite(tokens.amount)
        amount = np.where(known, np.searchsorted(self.amount_edges, np.where(known, tokens.amount, 0.0)) + 1, 0)
        gap = np.full(len(tokens), np.nan)
        same = tokens.owner[1:] == tokens.owner[:-1]
        gap[1:][same] = np.diff(tokens.known)[same] / 1e6
        kinds = (tokens.kind + 1, tokens.channel + 1, tokens.product + 1)
        fields = np.stack([*kinds, category, amount, gap_bins(gap)], axis=1).astype(np.int64)
        return Encoded(fields, waves(gap, tokens.known, self.time_zone), tokens.known / 1e6)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Vocabulary:
        words = {name: tuple(value) for name, value in raw.items() if name != "time_zone"}
        return cls(time_zone=raw["time_zone"], **words)


def gap_bins(seconds: Float64) -> Int64:
    """The bin of each gap, int64 [n]; NaN (no event before) is 0."""
    found = np.searchsorted(GAP_EDGES, np.nan_to_num(seconds), side="right") + 1
    return np.where(np.isnan(seconds), 0, found).astype(np.int64)


def waves(gap: Float64, at: Int64, time_zone: str) -> Float32:
    """The continuous encoding, float32 [n, WAVES], of gaps (seconds, NaN none) and moments (µs) on local clocks."""
    local = pd.to_datetime(at, unit="us", utc=True).tz_convert(time_zone).tz_localize(None)
    clock = np.asarray(local.astype("datetime64[us]").astype("int64"), dtype=np.float64) / 1e6
    length = np.log1p(np.nan_to_num(gap)) / LONGEST
    day, week = 2 * np.pi * (clock % DAY) / DAY, 2 * np.pi * (clock % WEEK) / WEEK
    return np.stack([length, np.sin(day), np.cos(day), np.sin(week), np.cos(week)], axis=1).astype(np.float32)

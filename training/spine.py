"""The spine of next-best-product: which customer at which moment is a row, and what was taken up after it.

A row may know every fact up to and including `as_of`; its label are the take-ups after `as_of`, until `closes`.
Four sorts of rows:

entity     a row somebody asked for: all take-ups within the horizon.
decision   an offer of the log: the offered product or nothing, judged when the response window has closed. Of the
           bank's own log where it is all there is to learn from; of the ledger of served decisions always.
occasion   the moment before a take-up: something was taken, the question is what. Nothing is not an option.
snapshot   every customer every horizon, counted back from the end of what the bank tells: mostly nothing. Teaches how
           likely a take-up is. They stay where they are until the end has moved by a twelfth of the horizon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from features.columns import AS_OF, CUSTOMER_ID, ELIGIBLE, Event
from features.schema import Bool, Int64, Texts
from training.attribution import CLOSES
from training.labels import AT, DAY, WHAT, Events, ModelNotPossible, first_known, take_ups, told_until
from training.outcomes import OPEN, Outcomes, offers, outcomes
from training.stable import under_cap

if TYPE_CHECKING:
    from features.importing import Bank

ProductSource = Literal["entities", "decisions", "occasions"]
JUST_BEFORE = 1
"""Microsecond: the features of an event's row end here before it."""
CAP = 40_000
"""Rows of one sort, at most."""
NEARLY_ALL = 0.99
STEPS = 12
"""In which the snapshots move, in a horizon: so much of the newest labels, at most, is not learned from."""


@dataclass(frozen=True)
class Spine:
    """n rows over m candidates.

    as_of, closes: int64 [n], µs. sort: object [n], see above. offered: bool [n, m], could be chosen as far as the
    tables say (holdings come later, from the row). outside: bool [n], choosing nothing was possible. taken: bool
    [n, m]. previous: int64 [n], the candidate used last before (channels only), -1 unknown. left_out: reason → rows.
    """

    customer_id: Texts
    as_of: Int64
    closes: Int64
    sort: Texts
    offered: Bool
    outside: Bool
    taken: Bool
    previous: Int64
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.as_of)

    def take(self, index: Int64 | Bool, left_out: Mapping[str, int] | None = None) -> Spine:
        """The rows at `index`; `left_out` adds to the reasons."""
        return Spine(
            self.customer_id[index],
            self.as_of[index],
            self.closes[index],
            self.sort[index],
            self.offered[index],
            self.outside[index],
            self.taken[index],
            self.previous[index],
            {**self.left_out, **(left_out or {})},
        )

    def capped(self, cap: int) -> Spine:
        return self.take(under_cap(self.customer_id, self.as_of, cap))

    def sorted(self) -> Spine:
        """In order of time, then customer; rows of one customer and moment keep their order."""
        order = np.lexsort((pd.factorize(self.customer_id, sort=True)[0], self.as_of))
        return self.take(order.astype(np.int64))


def rows_of(
    sort: str, customer_id: Texts, as_of: Int64, closes: Int64, taken: Bool, outside: bool, offered: Bool | None = None
) -> Spine:
    """A spine of one sort; everything was on offer unless `offered` says otherwise."""
    n = len(as_of)
    return Spine(
        customer_id,
        as_of,
        closes,
        np.full(n, sort, dtype=object),
        np.ones_like(taken) if offered is None else offered,
        np.full(n, outside),
        taken,
        np.full(n, -1, dtype=np.int64),
    )


def joined(spines: Sequence[Spine]) -> Spine:
    """One spine of several."""
    left_out = {reason: count for spine in spines for reason, count in spine.left_out.items()}
    return Spine(
        np.concatenate([spine.customer_id for spine in spines]),
        np.concatenate([spine.as_of for spine in spines]),
        np.concatenate([spine.closes for spine in spines]),
        np.concatenate([spine.sort for spine in spines]),
        np.concatenate([spine.offered for spine in spines]),
        np.concatenate([spine.outside for spine in spines]),
        np.concatenate([spine.taken for spine in spines]),
        np.concatenate([spine.previous for spine in spines]),
        left_out,
    )


def product_source(bank: Bank, entities: pd.DataFrame | None) -> ProductSource:
    """Which rows these tables (cut at the end of learning) are learned from; raises ModelNotPossible."""
    if not bank.catalog.products:
        raise ModelNotPossible("next-best-product needs products, however catalog.toml declares none")
    taken = take_ups(bank)
    if taken.empty:
        raise ModelNotPossible(
            "next-best-product learns from take-ups, however there is none: no `converted` event names a product and "
            "no holding is `opened` (by then); add them, or move --until"
        )
    if entities is not None:
        return "entities"
    return "decisions" if taken[Event.DECISION_ID].notna().all() and len(offers(bank)) else "occasions"


def product_spine(
    bank: Bank,
    source: ProductSource,
    end: int,
    horizon: int,
    entities: pd.DataFrame | None = None,
    since: int = 0,
    cap: int = CAP,
    decided: Outcomes | None = None,
) -> Spine:
    """Rows with since <= as_of whose window closed by `end`. All times µs; the bank holds nothing later than `end`.

    decided: what became of the offers by `end`; None: found here.
    """
    taken = take_ups(bank)
    if source == "entities" and entities is not None:
        return entity_rows(bank, taken, end, horizon, entities, since)
    if source == "decisions":
        found = decided or outcomes(bank, end, horizon)
        return decision_rows(bank, found, since).capped(2 * cap).sorted()
    occasions = occasion_rows(bank, taken, since).capped(cap)
    parts = [occasions, snapshot_rows(bank, taken, told_until(bank, end), horizon, since).capped(cap)]
    if bank.served.known.num_rows:
        found = (decided or outcomes(bank, end, horizon)).of_ledger
        parts.append(decision_rows(bank, found, since).capped(cap))
    return joined(parts).sorted()


def entity_rows(
    bank: Bank, taken: pd.DataFrame, end: int, horizon: int, entities: pd.DataFrame, since: int = 0
) -> Spine:
    """One row per entity, duplicates too, in their order; those whose window is still open at `end` are left out."""
    as_of = moments(entities)
    usable = (as_of + horizon <= end) & (as_of >= since)
    customer_id = entities[CUSTOMER_ID].to_numpy(dtype=object)[usable]
    as_of = as_of[usable]
    offered = None
    if ELIGIBLE in entities:
        lists = entities[ELIGIBLE].to_numpy(dtype=object)[usable]
        offered = np.ones((len(as_of), len(bank.catalog.products)), dtype=np.bool_)
        for position, eligible in enumerate(lists):
            if eligible is not None:
                offered[position] = [product in eligible for product in bank.catalog.product_ids]
    label = taken_within(bank, taken, customer_id, as_of, as_of + horizon)
    spine = rows_of("entity", customer_id, as_of, as_of + horizon, label, outside=True, offered=offered)
    return replace(spine, left_out={"the window was still open": int((~usable).sum())})


def decision_rows(bank: Bank, found: Outcomes, since: int = 0) -> Spine:
    """One row per offer that is a row: the product of the decision, or nothing."""
    asked = found.offers[found.offers[AT] - JUST_BEFORE >= since]
    rows = asked[asked["left_out"].isna()]
    product = rows[WHAT].to_numpy(np.int64)
    place = np.arange(len(rows))
    label = np.zeros((len(rows), len(bank.catalog.products)), dtype=np.bool_)
    offered = label.copy()
    label[place, product] = rows["label"].to_numpy(np.bool_)
    offered[place, product] = True
    as_of, closes = rows[AT].to_numpy(np.int64) - JUST_BEFORE, rows[CLOSES].to_numpy(np.int64)
    customer_id = rows[CUSTOMER_ID].to_numpy(dtype=object)
    spine = rows_of("decision", customer_id, as_of, closes, label, outside=True, offered=offered)
    return replace(spine, left_out={OPEN: int((asked["left_out"] == OPEN).sum())})


def occasion_rows(bank: Bank, taken: pd.DataFrame, since: int = 0) -> Spine:
    """One row per customer and moment of take-up, 1 µs before it; everything taken at that moment is its label."""
    groups = taken.groupby([AT, CUSTOMER_ID], sort=True)
    row = groups.ngroup().to_numpy(np.int64)
    keys = taken.groupby(row)[[AT, CUSTOMER_ID]].first()
    label = np.zeros((len(keys), len(bank.catalog.products)), dtype=np.bool_)
    label[row, taken[WHAT].to_numpy(np.int64)] = True
    at = keys[AT].to_numpy(np.int64)
    customer_id = keys[CUSTOMER_ID].to_numpy(dtype=object)
    spine = rows_of("occasion", customer_id, at - JUST_BEFORE, at, label, outside=False)
    return spine.take(spine.as_of >= since)


def snapshot_times(begin: int, end: int, horizon: int) -> Int64:
    """Moments at which to learn: every horizon, counted back from the end, newest first; all move at once.

    The end moves in steps of horizon / STEPS from `begin` on, so that most days use the rows of the day before again.
    """
    step = max(horizon // STEPS, 1)
    return counted_back(begin, begin + (end - begin) // step * step, horizon)


def counted_back(begin: int, end: int, horizon: int) -> Int64:
    """Moments end - horizon, end - 2 horizon, ... that are not before `begin`; newest first."""
    count = max(0, (end - begin) // horizon)
    return end - horizon * np.arange(1, count + 1, dtype=np.int64)


def snapshot_rows(bank: Bank, taken: pd.DataFrame, end: int, horizon: int, since: int = 0) -> Spine:
    """Every customer known at the time, at each snapshot; since: rows to judge on, counted back from `end`."""
    known = first_known(bank)
    times = (counted_back if since else snapshot_times)(int(known.min()), end, horizon)
    ids, begin = known.index.to_numpy(dtype=object), known.to_numpy(np.int64)
    present = [begin <= time for time in times if time >= since]
    customer_id = np.concatenate([ids[mask] for mask in present]) if present else np.array([], dtype=object)
    as_of = np.repeat(times[times >= since], [int(mask.sum()) for mask in present])
    label = taken_within(bank, taken, customer_id, as_of, as_of + horizon)
    return rows_of("snapshot", customer_id, as_of, as_of + horizon, label, outside=True)


def taken_within(bank: Bank, taken: pd.DataFrame, customer_id: Texts, after: Int64, upto: Int64) -> Bool:
    """bool [n, P]: the products that the row's customer took up with after < time <= upto."""
    events = Events.of(pd.Index(np.unique(taken[CUSTOMER_ID].to_numpy(dtype=object))), taken)
    row, event = events.within(customer_id, after, upto)
    label = np.zeros((len(after), len(bank.catalog.products)), dtype=np.bool_)
    label[row, events.what[event]] = True
    return label


def moments(entities: pd.DataFrame) -> Int64:
    """The µs of each entity's `as_of`."""
    return np.asarray(entities[AS_OF].astype("datetime64[us, UTC]").astype("int64"), dtype=np.int64)


def default_horizon(bank: Bank, source: ProductSource, end: int) -> int:
    """µs: 90 days, or the longest of 30, 7 and 1 that fits four times (learn, choose, test, label) into the data.

    In a campaign's log, where the window costs an embargo of its length and answers come soon: 7 or 30 days where
    nearly all the answers came within.
    """
    span = end - int(first_known(bank).min())
    fits = [days for days in (90, 30, 7) if 4 * days * DAY <= span] or [1]
    if source == "decisions":
        return next((days for days in (7, 30) if days in fits and _answered_within(bank, days * DAY)), fits[0]) * DAY
    return fits[0] * DAY


def _answered_within(bank: Bank, window: int) -> bool:
    """Whether nearly all take-ups of the log came within `window` (µs) of their decision."""
    asked = offers(bank).groupby(Event.DECISION_ID)[AT].min().rename("asked")
    pairs = take_ups(bank).join(asked, on=Event.DECISION_ID).dropna(subset=["asked"])
    return bool(len(pairs)) and float((pairs[AT] - pairs["asked"] <= window).mean()) >= NEARLY_ALL

"""The decisions of a randomised log to learn contents from: which content or none, how likely, and what it earned.

Every arm is measured alike, no contact too: what counts for a decision is what its customer took up within the window,
where the take-up names this decision, or names none and this was the customer's latest. Whether a message arrived is
part of what it earned: a failed one stays, or only the reachable would be compared with everybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from features.columns import CUSTOMER_ID, Event, Kind, Table
from features.schema import Bool, Float64, Int64, Texts
from training.attribution import CLOSES
from training.content.take_up_worth import TAKE_UPS, taken_up, worths
from training.labels import AT, DAY, NO_OFFERS, ModelNotPossible, positions, read
from training.outcomes import NEVER_SENT, SERVED, Receipts
from training.spine import moments
from training.stable import under_cap

if TYPE_CHECKING:
    from features.importing import Bank

MOST_DAYS = 30.0
"""Days in which a take-up counts, where the log is long enough."""
OPEN_SHARE = 0.3
"""Share of the decisions whose window may still be open: a shorter log gets a shorter window."""
FEWEST_TAKEN = 20
FEWEST_ARM = 30
"""Decisions without contact, and with one."""
CERTAIN = 1.0 - 1e-9
"""A propensity above it: there was nothing to choose."""


@dataclass(frozen=True)
class ContentLog:
    """n decisions in order of time, among K contents and no contact.

    at: int64 [n], µs. arm: int64 [n] in 0..K, K = no contact. channel: int64 [n], -1 for no contact. propensity:
    float64 [n] in (0, 1), of exactly the logged action, channel and content together. took: bool [n]. gained, spent:
    float64 [n], in `unit`. left_out: reason → decisions. named: share of the take-ups that name their decision.
    """

    contents: tuple[str, ...]
    channels: tuple[str, ...]
    customer_id: Texts
    at: Int64
    arm: Int64
    channel: Int64
    propensity: Float64
    took: Bool
    gained: Float64
    spent: Float64
    unit: str
    horizon: int
    named: float
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.at)

    @property
    def reward(self) -> Float64:
        return np.asarray(self.gained - self.spent)

    @property
    def silent(self) -> Bool:
        """bool [n]: no contact."""
        return np.asarray(self.arm == len(self.contents))

    def take(self, index: Int64 | Bool) -> ContentLog:
        names = ("customer_id", "at", "arm", "channel", "propensity", "took", "gained", "spent")
        return ContentLog(**{**vars(self), **{name: getattr(self, name)[index] for name in names}})


def content_log(
    bank: Bank, end: int, horizon: int | None, most: int, entities: pd.DataFrame | None = None
) -> ContentLog:
    """At most `most` decisions whose window closed by `end`; all times µs, horizon None: up to MOST_DAYS.

    entities: of each, the customer's next decision at or after its as_of, and no others. Raises ModelNotPossible where
    the log is not one to learn contents from, and says what is missing.
    """
    contents = tuple(content.id for content in bank.catalog.contents)
    if not contents:
        raise ModelNotPossible("contents are learned from a catalogue's, however it has none; add `[[contents]]`")
    made = _decisions(bank, contents)
    _require(made, len(contents))
    window = _window(made[AT].to_numpy(np.int64), end) if horizon is None else horizon
    made[CLOSES] = made[AT] + window
    made["spent"] = _spent(bank, made)
    made["gained"], made["took"], unit, named = _gained(bank, made, window)
    if unit == TAKE_UPS:
        made["spent"] = 0.0  # money is not taken off from a count
    found, left_out = _usable(made, end, entities)
    kept = under_cap(found[CUSTOMER_ID].to_numpy(dtype=object), found[AT].to_numpy(np.int64), most)
    left_out[f"a sample of {most:,} decisions is enough"] = int((~kept).sum())
    log = _as_log(found[kept], contents, bank.catalog.channel_ids, unit, window, named, left_out)
    _check(log)
    return log


def _decisions(bank: Bank, contents: Sequence[str]) -> pd.DataFrame:
    """Marketing decisions, each once: customer_id, at, decision_id, propensity, channel, arm (-1: none of the arms)."""
    columns = [CUSTOMER_ID, Event.EVENT_ID, Event.PURPOSE, Event.DECISION_ID, Event.PROPENSITY]
    log = read(bank, Table.TIMELINE, [*columns, Event.CHANNEL, Event.CONTENT_ID], {Kind.DECIDED})
    log = log[~log[Event.PURPOSE].isin(NO_OFFERS)]
    log = log[log[Event.DECISION_ID].isna() | ~log[Event.DECISION_ID].duplicated()].reset_index(drop=True)
    log["arm"] = positions(log[Event.CONTENT_ID], contents)
    log["way"] = positions(log[Event.CHANNEL], bank.catalog.channel_ids)
    silent = log[Event.CHANNEL].isna() & log[Event.CONTENT_ID].isna()
    log.loc[silent, "arm"] = len(contents)
    log[SERVED] = bank.served.among(pa.chunked_array([pa.array(log[Event.EVENT_ID], pa.string())]))
    return log.sort_values(AT, kind="stable").reset_index(drop=True)


def _require(made: pd.DataFrame, silent: int) -> None:
    """ModelNotPossible unless there are decisions by lot, with contents and without."""
    by_lot = made[made[Event.PROPENSITY].notna() & (made[Event.PROPENSITY] <= CERTAIN)]
    for found, what in (
        (len(by_lot), "marketing decisions with a propensity below 1; log `propensity`"),
        (int((by_lot["arm"] == silent).sum()), "decisions not to contact among them, with channel and content empty"),
        (int(((by_lot["arm"] >= 0) & (by_lot["arm"] < silent)).sum()), "decisions with a content of the catalogue"),
    ):
        if found < FEWEST_ARM:
            raise ModelNotPossible(
                f"contents are learned from a randomised log with a no-contact arm, however it has {found} {what}"
            )


def _window(at: Int64, end: int) -> int:
    """µs: MOST_DAYS, or so few that no more than OPEN_SHARE of the decisions are still open."""
    return int(min(MOST_DAYS * DAY, np.quantile(end - at, OPEN_SHARE, method="lower")))


def _spent(bank: Bank, made: pd.DataFrame) -> Float64:
    """float64 [n]: what the message of each decision cost; 0 where none left."""
    cost = np.array([*(channel.cost for channel in bank.catalog.channels), 0.0])  # -1 is the last: none
    _, why = Receipts.of(bank).reached(made)
    return np.where(made[Event.CHANNEL].isna() | (why == NEVER_SENT), 0.0, cost[made["way"].to_numpy(np.int64)])


def _gained(bank: Bank, made: pd.DataFrame, window: int) -> tuple[Float64, Bool, str, float]:
    """Worth and presence of take-ups per decision, their unit, and the share that names its decision."""
    taken = taken_up(bank)
    worth, unit = worths(bank, taken)
    by_name = pd.Series(made.index, index=made[Event.DECISION_ID]).loc[lambda one: one.index.notna()]
    owner = taken[Event.DECISION_ID].map(by_name)
    named = taken[Event.DECISION_ID].notna()
    free = taken[~named]
    latest = pd.merge_asof(
        free.reset_index().sort_values(AT, kind="stable"),
        made[[CUSTOMER_ID, AT]].rename_axis("decision").reset_index(),
        on=AT,
        by=CUSTOMER_ID,
    ).set_index("index")["decision"]
    owner = owner.where(named, latest)
    at = made[AT].reindex(owner).to_numpy(np.float64)
    moment = taken[AT].to_numpy(np.float64)
    counts = (moment >= at) & (moment <= at + window)  # NaN: of no decision
    rows = owner[counts].to_numpy(np.int64)
    gained = np.bincount(rows, weights=worth[counts], minlength=len(made)).astype(np.float64)
    took = np.bincount(rows, minlength=len(made)) > 0
    return gained, took, unit, float(named[counts].mean()) if counts.any() else 0.0


def _usable(made: pd.DataFrame, end: int, entities: pd.DataFrame | None) -> tuple[pd.DataFrame, dict[str, int]]:
    left_out: dict[str, int] = {}
    keep = np.ones(len(made), np.bool_)
    for reason, wrong in (
        ("it was not asked for", ~pd.Series(_asked_for(made, entities))),
        ("no propensity was logged", made[Event.PROPENSITY].isna()),
        ("nothing was left to chance: the propensity is 1", made[Event.PROPENSITY] > CERTAIN),
        ("no content of the catalogue was named", made["arm"] < 0),
        ("the window was still open", made[CLOSES] > end),
    ):
        left_out[reason] = int((keep & wrong.to_numpy()).sum())
        keep &= ~wrong.to_numpy()
    return made[keep], left_out


def _asked_for(made: pd.DataFrame, entities: pd.DataFrame | None) -> Bool:
    """bool [n]: the next decision at or after the moment of an entity; True for all without entities."""
    if entities is None:
        return np.ones(len(made), np.bool_)
    asked = pd.DataFrame({CUSTOMER_ID: entities[CUSTOMER_ID], AT: moments(entities)}).sort_values(AT, kind="stable")
    following = pd.merge_asof(
        asked, made[[CUSTOMER_ID, AT]].rename_axis("row").reset_index(), on=AT, by=CUSTOMER_ID, direction="forward"
    )["row"].dropna()
    return np.isin(np.arange(len(made)), following.to_numpy(np.int64))


def _as_log(
    found: pd.DataFrame,
    contents: tuple[str, ...],
    channels: tuple[str, ...],
    unit: str,
    horizon: int,
    named: float,
    left_out: Mapping[str, int],
) -> ContentLog:
    return ContentLog(
        contents,
        channels,
        customer_id=found[CUSTOMER_ID].to_numpy(dtype=object),
        at=found[AT].to_numpy(np.int64),
        arm=found["arm"].to_numpy(np.int64),
        channel=found["way"].to_numpy(np.int64),
        propensity=found[Event.PROPENSITY].to_numpy(np.float64),
        took=found["took"].to_numpy(np.bool_),
        gained=found["gained"].to_numpy(np.float64),
        spent=found["spent"].to_numpy(np.float64),
        unit=unit,
        horizon=horizon,
        named=named,
        left_out=left_out,
    )


def _check(log: ContentLog) -> None:
    arms = np.bincount(log.arm, minlength=len(log.contents) + 1)
    for found, least, what in (
        (int(arms[-1]), FEWEST_ARM, "decisions not to contact with a closed window"),
        (int(arms[:-1].sum()), FEWEST_ARM, "decisions with a content with a closed window"),
        (int(log.took.sum()), FEWEST_TAKEN, "decisions after which something was taken up"),
    ):
        if found < least:
            raise ModelNotPossible(f"contents are learned from at least {least} {what}, however there are {found}")

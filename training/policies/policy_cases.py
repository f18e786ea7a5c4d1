"""The decisions of a log whose propensity is known, with what each of them earned: what a policy is evaluated on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd

from features.arrow import column_of
from features.columns import CUSTOMER_ID, Event, Kind, Table
from features.errors import InputError
from features.schema import Float64
from training.labels import AT, NO_OFFERS, read
from training.outcomes import NEVER_SENT, outcomes
from training.stable import under_cap

if TYPE_CHECKING:
    from features.importing import Bank

Key: TypeAlias = tuple[str | None, str | None, str | None]
"""Product, channel and content of an action; channel None: no contact."""
NO_CONTACT: Key = (None, None, None)
_COLUMNS = (Event.PRODUCT_ID, Event.CHANNEL, Event.CONTENT_ID)


@dataclass(frozen=True)
class Cases:
    """n decisions in order of time. frame: customer_id, at (µs), decision_id, propensity, reward (catalogue currency).

    taken: [n] actions. left_out: reason → decisions.
    """

    frame: pd.DataFrame
    taken: Sequence[Key]
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.frame)


def cases(
    bank: Bank, end: int, horizon: int, margins: Float64, costs: Float64, most: int, served: bool = False
) -> Cases:
    """At most `most` marketing decisions with a propensity whose window closed by `end`; all times µs.

    served: only those of the home's own ledger, which knows the propensity of every candidate.

    A decision to contact earned the margin of its product where it was taken up in the window, less what the message
    cost where it left; one that failed earned nothing. No contact earned 0. margins: [P], costs: [H]. Raises InputError
    where there is no decision of that kind.
    """
    columns = [Event.EVENT_ID, CUSTOMER_ID, Event.DECISION_ID, Event.PURPOSE, Event.PROPENSITY, *_COLUMNS]
    log = read(bank, Table.TIMELINE, columns, {Kind.DECIDED})
    every = log[~log[Event.PURPOSE].isin(NO_OFFERS)]
    log = every[bank.served.among(column_of(every[Event.EVENT_ID].to_numpy(dtype=object)))] if served else every
    known = log[log[Event.PROPENSITY].notna() & log[Event.DECISION_ID].notna()]
    known = known.drop_duplicates(Event.DECISION_ID)
    silent = known[Event.CHANNEL].isna()
    contact = known[~silent].merge(_earned(bank, end, horizon, margins, costs), on=Event.DECISION_ID, how="left")
    judged = contact[contact["reward"].notna()]
    quiet = known[silent & (known[AT] + horizon <= end)].assign(reward=0.0)
    found = pd.concat([judged, quiet]).sort_values([AT, Event.DECISION_ID], kind="stable").reset_index(drop=True)
    left_out = {
        "no propensity was logged": len(log) - len(known),
        "the window was still open, or no product was named": len(known) - len(found),
    }
    if served:
        left_out["it is not of the home's own ledger"] = len(every) - len(log)
    if found.empty:
        next_step = "`nextbest features build` takes in what was served" if served else "log `propensity`"
        raise InputError(
            "a policy is evaluated on marketing decisions with their propensity, however this log has none that is "
            f"usable ({'; '.join(f'{reason}: {count}' for reason, count in left_out.items())}); {next_step}"
        )
    kept = under_cap(found[CUSTOMER_ID].to_numpy(dtype=object), found[AT].to_numpy(np.int64), most)
    found = found.iloc[kept].reset_index(drop=True)
    taken = [_key(*values) for values in zip(*(found[name] for name in _COLUMNS), strict=True)]
    return Cases(found[[CUSTOMER_ID, AT, Event.DECISION_ID, Event.PROPENSITY, "reward"]], taken, left_out)


def _earned(bank: Bank, end: int, horizon: int, margins: Float64, costs: Float64) -> pd.DataFrame:
    """decision_id and reward of the offers whose window closed by `end`."""
    offers = outcomes(bank, end, horizon).offers
    offers = offers[(offers["closes"] <= end) & offers[Event.DECISION_ID].notna()]
    cost = dict(zip(bank.catalog.channel_ids, costs.tolist(), strict=True))
    spent = offers[Event.CHANNEL].map(cost).fillna(0.0).where(offers["left_out"] != NEVER_SENT, 0.0)
    gained = np.where(offers["label"], margins[offers["what"].to_numpy(np.int64)], 0.0)
    earned = pd.DataFrame({Event.DECISION_ID: offers[Event.DECISION_ID], "reward": gained - spent})
    return earned.drop_duplicates(Event.DECISION_ID)


def _key(product: object, channel: object, content: object) -> Key:
    def text(value: object) -> str | None:
        return value if isinstance(value, str) else None

    return NO_CONTACT if text(channel) is None else (text(product), text(channel), text(content))

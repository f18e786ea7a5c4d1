"""What became of each decision to offer a product: reached or not, answered or not, known since when.

A decision is a row to learn from when its response window has closed: taken up in it, or not. A decision that never
reached its customer was not answered "no": one that failed, was suppressed (decided, never sent) or not delivered is
left out. Where the log keeps no such receipts, it is taken at its word. What arrives late changes the answer, and the
table says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from features.columns import CREATED_TIMESTAMP, CUSTOMER_ID, Event, Kind, Table
from features.schema import Bool, Int64
from training.attribution import CLOSES, LAST_TOUCH, REACHED, Attributed, attribute
from training.labels import AT, DAY, FOREVER, NO_OFFERS, WHAT, positions, read, take_ups

if TYPE_CHECKING:
    from features.importing import Bank

FAILED = "it failed, or was not delivered"
NEVER_SENT = "it was decided and never sent"
OPEN = "the response window was still open"
SERVED = "served"
_ANSWERS = frozenset({Kind.OPENED, Kind.CLICKED, Kind.REPLIED, Kind.CONVERTED})
"""What only somebody does whom the message reached."""


@dataclass(frozen=True)
class Outcomes:
    """Every offer of the log with what became of it, and how take-ups were attributed.

    offers: customer_id, at (decided), what (product), decision_id, channel, propensity, served (the ledger's own),
    reached (NaN: never), closes, left_out (why it is no row; None: it is one), label (bool), evidence (event_id of the
    take-up, None where a holding tells it), taken_at (NaN: not), credit, known_since, corrected (bool: it had been a
    "no" from closes until known_since). Times are µs. attributed: of all take-ups.
    """

    rule: str
    offers: pd.DataFrame
    attributed: Attributed

    @property
    def of_ledger(self) -> Outcomes:
        """Only the offers that were served."""
        return replace(self, offers=self.offers[self.offers[SERVED]])


def windows(bank: Bank, horizon: int) -> Int64:
    """int64 [P]: µs in which an offer of each product may be answered: what the catalogue says, else the horizon."""
    days = [product.response_days for product in bank.catalog.products]
    return np.array([horizon if one is None else round(one * DAY) for one in days], dtype=np.int64)


def offers(bank: Bank) -> pd.DataFrame:
    """Decisions to offer a product: customer_id, at, what, decision_id, channel, propensity, served.

    Service and mandatory contacts are no offers.
    """
    columns = [CUSTOMER_ID, Event.PURPOSE, Event.PRODUCT_ID, Event.DECISION_ID, Event.CHANNEL, Event.PROPENSITY]
    log = read(bank, Table.TIMELINE, [*columns, Event.EVENT_ID], {Kind.DECIDED})
    log[WHAT] = positions(log[Event.PRODUCT_ID], bank.catalog.product_ids)
    log[SERVED] = _served(bank, log)
    found = log[(log[WHAT] >= 0) & ~log[Event.PURPOSE].isin(NO_OFFERS)]
    kept = [CUSTOMER_ID, AT, WHAT, Event.DECISION_ID, Event.CHANNEL, Event.PROPENSITY, SERVED]
    return found[kept].reset_index(drop=True)


def outcomes(bank: Bank, end: int, horizon: int, rule: str = LAST_TOUCH) -> Outcomes:
    """What became of each offer by `end` (µs); `horizon` (µs) for products without a window of their own."""
    found = offers(bank)
    found[CLOSES] = found[AT] + windows(bank, horizon)[found[WHAT].to_numpy(np.int64)]
    receipts = Receipts.of(bank)
    found[REACHED], found["left_out"] = receipts.reached(found)
    taken = take_ups(bank)
    taken[Event.DECISION_ID] = receipts.named(taken)
    attributed = attribute(rule, taken, found)
    found = found.join(_first_answer(bank, taken, attributed, found))
    found["label"] = found["taken_at"].notna()
    found["known_since"] = found["answer_known"].fillna(found[CLOSES]).astype("int64")
    found["corrected"] = found["known_since"] > found[CLOSES]
    found.loc[found["left_out"].isna() & (found[CLOSES] > end), "left_out"] = OPEN
    return Outcomes(rule, found, attributed)


def credited(bank: Bank, horizon: int, rule: str) -> dict[str, str]:
    """event_id → decision_id of the take-ups that name no decision and were attributed to a served one."""
    if not bank.served.known.num_rows:
        return {}
    taken = take_ups(bank)
    found = outcomes(bank, FOREVER, horizon, rule)
    by_rule = (found.attributed.offer >= 0) & ~found.attributed.named
    offer = found.offers.iloc[found.attributed.offer[by_rule]]
    event = taken.loc[by_rule, Event.EVENT_ID].to_numpy(dtype=object)
    ids = offer[Event.DECISION_ID].to_numpy(dtype=object)
    ours = offer[SERVED].to_numpy(np.bool_)
    return {one: decision for one, decision, own in zip(event, ids, ours, strict=True) if own and one is not None}


def _first_answer(bank: Bank, taken: pd.DataFrame, attributed: Attributed, found: pd.DataFrame) -> pd.DataFrame:
    """Per offer with a take-up in its window, the first: taken_at, evidence, credit, answer_known (µs)."""
    answers = taken.assign(offer=attributed.offer, credit=attributed.credit)
    answers = answers[answers["offer"] >= 0].rename(columns={AT: "taken_at", Event.EVENT_ID: "evidence"})
    offer = answers["offer"].to_numpy(np.int64)
    at = answers["taken_at"].to_numpy(np.int64)
    asked, closes = found[AT].to_numpy(np.int64)[offer], found[CLOSES].to_numpy(np.int64)[offer]
    answers = answers[(at >= asked) & (at <= closes)].drop_duplicates("offer")  # they come in order of time
    late = _known(bank).reindex(answers["evidence"]).to_numpy(np.float64)
    answers["answer_known"] = np.fmax(late, answers["taken_at"].to_numpy(np.float64))
    first: pd.DataFrame = answers.set_index("offer")[["taken_at", "evidence", "credit", "answer_known"]]
    return first


def _known(bank: Bank) -> pd.Series[Any]:
    """Event id of the ledger → µs since when it is known."""
    known = bank.served.known
    at = known[CREATED_TIMESTAMP].cast(pa.int64()).to_numpy()
    return pd.Series(at, index=pd.Index(known[Event.EVENT_ID].to_pylist(), dtype=object))


def _served(bank: Bank, log: pd.DataFrame) -> Bool:
    return bank.served.among(pa.chunked_array([pa.array(log[Event.EVENT_ID], pa.string())]))


@dataclass(frozen=True)
class Receipts:
    """Events that tell what happened to the messages of decisions: decision_id, kind, channel, at, served."""

    log: pd.DataFrame
    decision_of: pd.Series[Any]
    """message_id → decision_id, where one event names both."""

    @classmethod
    def of(cls, bank: Bank) -> Receipts:
        kinds = {Kind.SENT, Kind.DELIVERED, Kind.FAILED, *_ANSWERS}
        columns = [Event.EVENT_ID, Event.KIND, Event.CHANNEL, Event.DECISION_ID, Event.MESSAGE_ID]
        log = read(bank, Table.TIMELINE, columns, kinds)
        log[SERVED] = _served(bank, log)
        both = log.dropna(subset=[Event.DECISION_ID, Event.MESSAGE_ID]).drop_duplicates(Event.MESSAGE_ID)
        decision_of = both.set_index(Event.MESSAGE_ID)[Event.DECISION_ID]
        return cls(log.assign(**{Event.DECISION_ID: _named(log, decision_of)}), decision_of)

    def named(self, taken: pd.DataFrame) -> pd.Series[Any]:
        """The decision that each take-up names, itself or by its message; None: neither."""
        return _named(taken, self.decision_of)

    def reached(self, found: pd.DataFrame) -> tuple[pd.Series[Any], pd.Series[Any]]:
        """Per offer, the µs at which it reached the customer (NaN: it did not), and why it is left out (None: not).

        A channel tells of sending, or of delivery, if by the end of the offer's window it told so of any; bank and
        ledger each for themselves, for one may keep receipts that the other does not. Where it does not tell, sent
        counts as delivered, decided as sent.
        """
        ids = found[Event.DECISION_ID]
        arrived = self._told({Kind.DELIVERED, *_ANSWERS}, ids, "first")[AT].astype("float64")
        last_sent, last_failed = (self._told({kind}, ids, "last") for kind in (Kind.SENT, Kind.FAILED))
        sent = last_sent[AT].astype("float64")
        failed = last_failed[AT].notna() & arrived.isna() & ~(sent > last_failed[AT])
        channel = last_sent[Event.CHANNEL].fillna(found[Event.CHANNEL])
        tells_delivery = self._tells({Kind.DELIVERED, Kind.FAILED}, channel, found)
        tells_sending = self._tells({Kind.SENT}, found[Event.CHANNEL], found)
        lost = failed | (sent.notna() & tells_delivery & arrived.isna())
        unsent = sent.isna() & arrived.isna() & tells_sending & ~lost
        why = pd.Series(None, index=found.index, dtype=object)
        why[lost], why[unsent] = FAILED, NEVER_SENT
        return arrived.fillna(sent).fillna(found[AT]).where(why.isna()).astype("float64"), why

    def _told(self, kinds: set[Kind], ids: pd.Series[Any], which: Literal["first", "last"]) -> pd.DataFrame:
        """Per decision id, time and channel of its first or last event of these kinds; missing where there is none."""
        told = self.log[self.log[Event.KIND].isin(kinds)].dropna(subset=[Event.DECISION_ID])
        one = told.sort_values(AT, kind="stable").drop_duplicates(Event.DECISION_ID, keep=which)
        return ids.to_frame().join(one.set_index(Event.DECISION_ID)[[AT, Event.CHANNEL]], on=Event.DECISION_ID)

    def _tells(self, kinds: set[Kind], channel: pd.Series[Any], found: pd.DataFrame) -> pd.Series[Any]:
        """bool [n]: whether the channel told of such events by the end of each offer's window."""
        told = self.log[self.log[Event.KIND].isin(kinds)]
        since = told.groupby([Event.CHANNEL, SERVED])[AT].min().rename("since")
        asked = pd.DataFrame({Event.CHANNEL: channel, SERVED: found[SERVED]})
        return asked.join(since, on=[Event.CHANNEL, SERVED])["since"] <= found[CLOSES]


def _named(events: pd.DataFrame, decision_of: pd.Series[Any]) -> pd.Series[Any]:
    by_message = events[Event.MESSAGE_ID].map(decision_of).astype(object)
    return events[Event.DECISION_ID].astype(object).where(events[Event.DECISION_ID].notna(), by_message)

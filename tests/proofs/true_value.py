"""What actions are truly worth in a simulated bank, with the very amounts that the decision uses.

True value of an action = margin × (P(take-up with it) − P(take-up without)) − channel cost − P(opts out) × reachability
+ the customer's side; no contact is worth 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import t as student

from features.columns import CUSTOMER_ID, EVENT_TIMESTAMP, Event, Kind, Purpose
from features.schema import Bool, Float64, Int64
from features.simulation.calendar import from_epoch
from features.simulation.truth import Truth, decayed_contacts
from serving.value import Worth

HORIZON_DAYS = 30.0


@dataclass(frozen=True)
class Numbers:
    """n actions as positions in the truth: product, channel, content int64 [n]."""

    product: Int64
    channel: Int64
    content: Int64

    @classmethod
    def of(cls, truth: Truth, actions: Sequence[tuple[str, str, str]]) -> Numbers:
        """From (product, channel, content) ids."""
        places = [{name: at for at, name in enumerate(ids)} for ids in (
            truth.product_ids, truth.channel_ids, truth.content_ids)]  # fmt: skip
        found = np.array([[place[name] for place, name in zip(places, one, strict=True)] for one in actions], np.int64)
        return cls(*found.reshape(-1, 3).T)


def true_values(
    truth: Truth, worth: Worth, customer: Int64, actions: Numbers, when: Float64, tired: Float64, held: Bool
) -> Float64:
    """Float64 [n]: what n actions are truly worth, each to one customer at one moment.

    when: seconds of the simulated calendar. tired: decayed marketing messages before it. held: bool [n, P].
    """
    product, channel, content = actions.product, actions.channel, actions.content

    def take_up(via: Int64) -> Float64:
        return truth.take_up_within(customer, product, via, content, when, tired, held, HORIZON_DAYS)

    gained = take_up(channel) - take_up(np.full(len(channel), -1))
    outcome = truth.outcome(customer, product, channel, content, when, tired, held)
    pairs = list(zip(product.tolist(), channel.tolist(), strict=True))
    amounts = worth.factors(np.ones(len(worth.margins)), np.ones(len(worth.costs)), pairs)
    reachability = amounts.fatigue / worth.opt_out[channel]
    bank = gained * amounts.value - amounts.cost - outcome.reach * outcome.opt_out * reachability
    return np.asarray(bank + gained * amounts.benefit - amounts.disturbance)


@dataclass(frozen=True)
class Messages:
    """k marketing messages that left: to whom, when (seconds of the simulated calendar), on which channel.

    failed: bool [k], those that are known not to have arrived, or will be.
    """

    customer: Int64
    at: Float64
    channel: Int64
    failed: Bool

    @classmethod
    def of(cls, timeline: pa.Table, truth: Truth) -> Messages:
        """Those of a timeline."""
        of_kind = pc.equal(timeline[Event.KIND], Kind.SENT)
        sent = timeline.filter(pc.and_(of_kind, pc.equal(timeline[Event.PURPOSE], Purpose.MARKETING)))
        at = from_epoch(sent[EVENT_TIMESTAMP].cast("int64").to_numpy() / 1e6)
        channel = [truth.channel_ids.index(name) for name in sent[Event.CHANNEL].to_pylist()]
        gone = timeline.filter(pc.equal(timeline[Event.KIND], Kind.FAILED))[Event.MESSAGE_ID].combine_chunks()
        failed = pc.is_in(sent[Event.MESSAGE_ID], gone).to_numpy()
        return cls(truth.rows_of(sent[CUSTOMER_ID].to_pylist()), at, np.array(channel, dtype=np.int64), failed)

    def with_more(self, other: Messages) -> Messages:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Messages(*(np.concatenate(pair) for pair in pairs))

    def tired(self, truth: Truth, customer: Int64, when: Float64) -> Float64:
        """Float64 [n]: how many each customer had before `when` [n], older ones counting less."""
        return decayed_contacts(self.customer, self.at, customer, when, truth.parameters.fatigue_half_life)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval over seeds (Student's t)."""
    numbers = np.array(values)
    half = student.ppf(0.975, len(numbers) - 1) * numbers.std(ddof=1) / np.sqrt(len(numbers))
    return float(numbers.mean()), float(numbers.mean() - half), float(numbers.mean() + half)

"""Attribution: which decision a take-up belongs to. Every take-up counts once, whatever channels it was offered by.

A take-up that names a decision of the log, or a message of one, belongs to it. The others go to one of the messages
that offered the product, reached the customer before, and whose response window was open; which one, says a versioned
rule:

last-touch-1   the last of them.
shapley-1      the last on the channel with the largest Shapley share of the take-up (Shapley 1953; for channels of
               marketing see Zhao, Mahboobi and Bagheri 2018, "Shapley value methods for attribution modeling in online
               advertising"). Players are the channels that reached the customer, and a set of channels is worth the
               take-up rate of the journeys in the log that had exactly those, smoothed towards the rate of all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import pandas as pd

from features.columns import CUSTOMER_ID, Event
from features.errors import InputError
from features.schema import Bool, Float64, Int64
from training.labels import AT, WHAT

LAST_TOUCH = "last-touch-1"
SHAPLEY = "shapley-1"
RULES = (LAST_TOUCH, SHAPLEY)
REACHED = "reached"
CLOSES = "closes"
EVIDENCE = 20.0
"""Journeys that the rate of all counts for, in the rate of one set of channels."""
Channels = frozenset[str]
_JOURNEY = [CUSTOMER_ID, WHAT]


@dataclass(frozen=True)
class Attributed:
    """n take-ups, each with the offer it belongs to.

    offer: int64 [n], position among the offers, -1 none. credit: float64 [n], its channel's share of the take-up: 1
    where it was named or the rule knows no shares, NaN where there is no offer. named: bool [n], it named its offer.
    evidence: what the rule estimated from the log, to be kept with the run.
    """

    offer: Int64
    credit: Float64
    named: Bool
    evidence: Mapping[str, Any] = field(default_factory=dict)


def attribute(rule: str, taken: pd.DataFrame, offers: pd.DataFrame) -> Attributed:
    """Give every take-up its offer.

    taken: customer_id, at, what, decision_id, in order of time; its index is 0…n-1. offers: customer_id, at, what,
    decision_id, channel, reached (µs, NaN where it never was) and closes (µs); its index is 0…k-1. Raises InputError
    for a rule that does not exist.
    """
    check_rule(rule)
    offer, credit = np.full(len(taken), -1, dtype=np.int64), np.full(len(taken), np.nan)
    ours = taken[Event.DECISION_ID].isin(set(offers[Event.DECISION_ID].dropna())).to_numpy(np.bool_)
    first = offers.dropna(subset=[Event.DECISION_ID]).drop_duplicates([Event.DECISION_ID, WHAT])
    place = first.reset_index(names="offer")[[Event.DECISION_ID, WHAT, "offer"]]
    asked = taken.join(place.set_index([Event.DECISION_ID, WHAT]), on=[Event.DECISION_ID, WHAT])["offer"]
    named = ours & asked.notna().to_numpy(np.bool_)
    offer[named] = asked[named].to_numpy(np.int64)
    credit[named] = 1.0

    pairs = touches(taken[~ours], offers)
    chosen, share, evidence = _RULES[rule](pairs, taken, offers)
    row = chosen["row"].to_numpy(np.int64)
    offer[row], credit[row] = chosen["offer"].to_numpy(np.int64), share
    return Attributed(offer, credit, named, evidence)


def check_rule(rule: str) -> None:
    """InputError for a rule that does not exist."""
    if rule not in RULES:
        raise InputError(f"rules of attribution are {', '.join(RULES)}, however {rule!r} was asked for")


def touches(taken: pd.DataFrame, offers: pd.DataFrame) -> pd.DataFrame:
    """Pairs (row, offer) of take-ups and the offers that may have led to them, from the first touch to the last."""
    asked = taken[[*_JOURNEY, AT]].rename(columns={AT: "taken_at"}).reset_index(names="row")
    known = offers.dropna(subset=[REACHED]).reset_index(names="offer")
    known = known[[*_JOURNEY, AT, REACHED, CLOSES, Event.CHANNEL, "offer"]]
    pairs = asked.merge(known, on=_JOURNEY)
    in_time = (pairs[REACHED] <= pairs["taken_at"]) & (pairs[AT] <= pairs["taken_at"])
    pairs = pairs[in_time & (pairs["taken_at"] <= pairs[CLOSES])]
    return pairs.sort_values(["row", REACHED, AT, "offer"], kind="stable")


_Choice = tuple[pd.DataFrame, Float64, dict[str, Any]]
"""One pair per take-up that has any, its credit, and what was estimated."""


def _last_touch(pairs: pd.DataFrame, taken: pd.DataFrame, offers: pd.DataFrame) -> _Choice:
    last = pairs.drop_duplicates("row", keep="last")
    return last, np.ones(len(last)), {}


def _shapley(pairs: pd.DataFrame, taken: pd.DataFrame, offers: pd.DataFrame) -> _Choice:
    named = pairs.assign(**{Event.CHANNEL: pairs[Event.CHANNEL].fillna("")})
    counts = journeys(taken, offers)
    shares: dict[Channels, dict[str, float]] = {}
    by_row = named.groupby("row")[Event.CHANNEL].agg(frozenset)
    for channels in by_row.unique():
        shares[channels] = shapley(channels, counts)
    credit = np.array(
        [shares[by_row[row]][channel] for row, channel in zip(named["row"], named[Event.CHANNEL], strict=True)]
    )
    named = named.assign(credit=credit).sort_values(["row", "credit", REACHED, AT, "offer"], kind="stable")
    best = named.drop_duplicates("row", keep="last")
    told = {
        " + ".join(sorted(channels)): {"journeys": shown, "taken": taken_up, "shares": shares.get(channels, {})}
        for channels, (shown, taken_up) in sorted(counts.items(), key=lambda item: sorted(item[0]))
    }
    return best, best["credit"].to_numpy(np.float64), {"channels": told}


_RULES: Mapping[str, Callable[[pd.DataFrame, pd.DataFrame, pd.DataFrame], _Choice]] = {
    LAST_TOUCH: _last_touch,
    SHAPLEY: _shapley,
}


def journeys(taken: pd.DataFrame, offers: pd.DataFrame) -> dict[Channels, tuple[int, int]]:
    """Set of channels → (journeys, journeys that ended with a take-up), over the offers that reached customers.

    A journey is a customer's run of offers of one product, each made while the window of one before was open; a
    take-up ends it, and what came by then are its channels.
    """
    known = offers.dropna(subset=[REACHED])
    shown = known[[*_JOURNEY, REACHED, CLOSES]].assign(channel=known[Event.CHANNEL].fillna(""), ends=False)
    ends = taken[_JOURNEY].assign(channel="", ends=True)
    ends[REACHED] = ends[CLOSES] = taken[AT]
    steps = pd.concat([shown, ends]).sort_values([*_JOURNEY, REACHED, "ends"], kind="stable")
    counts: dict[Channels, tuple[int, int]] = {}
    channels: set[str] = set()

    def end(taken_up: bool) -> None:
        if channels:
            before, converted = counts.get(frozenset(channels), (0, 0))
            counts[frozenset(channels)] = before + 1, converted + taken_up
            channels.clear()

    until, last = -np.inf, -1
    whose = steps.groupby(_JOURNEY, sort=False).ngroup()
    columns = (whose, steps[REACHED], steps[CLOSES], steps["channel"], steps["ends"])
    for owner, at, closes, channel, ended in zip(*columns, strict=True):
        if owner != last or at > until:  # the windows of all before are closed: nobody took it
            end(False)
            until, last = -np.inf, owner
        if ended:
            end(True)
            until = -np.inf
        else:
            channels.add(channel)
            until = max(until, closes)
    end(False)
    return counts


def shapley(channels: Channels, counts: Mapping[Channels, tuple[int, int]]) -> dict[str, float]:
    """Each channel's share of a take-up that these channels led to; they sum to 1.

    phi_c = sum over sets S without c of |S|! (n - |S| - 1)! / n! (v(S + c) - v(S)), v the smoothed take-up rate of
    journeys with exactly these channels and 0 for none. A channel that takes away more than it gives has no share.
    """
    shown, converted = (sum(count[place] for count in counts.values()) for place in (0, 1))
    rate = (converted + 0.5) / (shown + 1.0)

    def worth(group: Channels) -> float:
        if not group:
            return 0.0
        seen, taken_up = counts.get(group, (0, 0))
        return (taken_up + EVIDENCE * rate) / (seen + EVIDENCE)

    size = len(channels)
    gains = {}
    for channel in sorted(channels):
        others = sorted(channels - {channel})
        gains[channel] = sum(
            factorial(count) * factorial(size - count - 1) / factorial(size)
            * (worth(frozenset(group) | {channel}) - worth(frozenset(group)))
            for count in range(size)
            for group in combinations(others, count)
        )  # fmt: skip
    kept = {channel: max(gain, 0.0) for channel, gain in gains.items()}
    total = sum(kept.values())  # at least worth(channels), the sum of all gains, which is above 0
    return {channel: gain / total for channel, gain in kept.items()}

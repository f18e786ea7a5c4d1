"""When the chosen action is sent, and what follows if it does not get through: a chain of channels, one at a time.

The propensity is that of the action; its time and the chain follow from it without a draw. A hop that failed, or that
has not arrived by its deadline, gives way to the next; one that arrived ends the chain, noticed or not, as it is the
one contact that the limits allowed: never two at once, never a broadcast. The deadline is when nine in ten of those who
ever notice have done so: by then there is little left to wait for.

send_at = argmax of  P(delivered) · P(noticed) · P(answered) · ½^(wait / half-life)

over the first moment that the rules allow and the hours that begin within the horizon, each put off to where they
allow it; of equal ones the earliest. Hours at which the channel has hardly ever been tried are not looked for: nothing
is known of them but what is known of the others. Without a model it is as soon as the rules allow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo

import numpy as np

from features import habits
from features.catalog import Catalog
from features.columns import Purpose
from features.schema import States
from serving.decision import Decision, Hop
from serving.prospects import Prospects
from serving.quiet_hours import Quiet, next_allowed
from serving.registry import TIMING_MODEL
from serving.timing import Outlook, TimingModel

PATIENCE = timedelta(days=7)
"""A chain takes up no further channel later than this after its start."""
MOST_HOPS = 3
"""Channels in a chain, the action's own included."""
UNKNOWN_DELAY = timedelta(hours=48)
"""The time that a hop is given where no model says how soon messages are noticed."""


@dataclass(frozen=True)
class Deferring:
    """Puts a moment in a channel's quiet hours off to their end. quiet: channel → its quiet hours, None without."""

    zone: ZoneInfo
    quiet: Mapping[str, Quiet | None]

    def __call__(self, channel: str, moment: datetime) -> datetime:
        """The first moment from there on at which the rules allow the channel; UTC."""
        return next_allowed(moment, self.zone, self.quiet[channel])


@dataclass(frozen=True)
class Scheduler:
    """Turns a choice into times. version: of the model; missing: why there is none."""

    model: TimingModel | None = None
    version: str = ""
    missing: tuple[str, ...] = ()

    @property
    def versions(self) -> dict[str, str]:
        """The timing model and its version; empty without one."""
        return {} if self.model is None else {TIMING_MODEL: self.version}

    def timed(self, decision: Decision, catalog: Catalog, states: States, zone: ZoneInfo) -> Decision:
        """The same choice with its time and chain, which follow from it: nothing is drawn, no propensity changes.

        states: all views of this one customer. zone: the customer's own.
        """
        if decision.action is None:
            return decision
        ask, channel = decision.ask, decision.action.channel
        moment = np.array([ask.as_of.timestamp()])
        mine = None
        if self.model:
            mine = self.model.outlook(habits.habits(states, moment, len(catalog.channels)))
        others = self.order(decision.fallback_channels, ask.as_of, mine, zone)
        defer = deferring(catalog, zone, ask.purpose)
        chain = self.chain(ask.as_of, (channel, *others), mine, zone, defer, at_once(catalog, channel, ask.purpose))
        versions = decision.versions.beside(self.versions)
        return decision.but(fallback_channels=others, chain=chain, versions=versions)

    def chain(
        self,
        start: datetime,
        channels: Sequence[str],
        customer: Outlook | None,
        zone: ZoneInfo,
        defer: Deferring,
        soonest: bool,
    ) -> tuple[Hop, ...]:
        """The hops over `channels` in their order, from `start`; each begins at the deadline of the one before.

        customer: what the model says of this one. soonest: do not look for a better hour.
        """
        hops: list[Hop] = []
        since = start
        for channel in channels[:MOST_HOPS]:
            send_at = self.best(channel, since, customer, zone, defer, soonest)
            if hops and send_at - hops[0].send_at > PATIENCE:
                break
            hops.append(Hop(channel, send_at, send_at + self.delay(channel)))
            since = hops[-1].deadline
        return tuple(hops)

    def best(
        self, channel: str, since: datetime, customer: Outlook | None, zone: ZoneInfo, defer: Deferring, soonest: bool
    ) -> datetime:
        """The best allowed moment to send from `since` on."""
        if self.model is None or customer is None or soonest:
            return defer(channel, since)
        prospect = self._prospects.since(self.model.places[channel], since, zone, defer.quiet[channel])
        values = customer.reached(prospect.hours) * prospect.weights
        return prospect.moments[int(values.argmax())]  # the first of equal ones

    def order(
        self, channels: Sequence[str], start: datetime, customer: Outlook | None, zone: ZoneInfo
    ) -> tuple[str, ...]:
        """`channels` by the value of their best hour within the horizon; equal ones, and all without a model, stay."""
        if self.model is None or customer is None or not channels:
            return tuple(channels)
        there, known = self._prospects.unweighted(start, zone)
        best = (customer.reached(there) * known).max(axis=1).tolist()  # [H]
        places = self.model.places
        return tuple(sorted(channels, key=lambda channel: -best[places[channel]]))

    def delay(self, channel: str) -> timedelta:
        """How long a hop on this channel is waited for."""
        if self.model is None:
            return UNKNOWN_DELAY
        return self.model.patience[channel]

    @cached_property
    def _prospects(self) -> Prospects:
        assert self.model, "without one no hour is looked for"
        return Prospects(self.model)


ALL_ALIKE = Scheduler()
"""Without a model."""


def at_once(catalog: Catalog, channel: str, purpose: str) -> bool:
    """Whether no better hour is looked for: a duty does not wait, and on an inbound channel the customer is there."""
    return purpose == Purpose.MANDATORY or channel in catalog.inbound


def deferring(catalog: Catalog, zone: ZoneInfo, purpose: str) -> Deferring:
    """Puts moments off for the catalogue's channels; a duty ignores quiet hours."""
    quiet = catalog.quiet_hours
    return Deferring(zone, dict.fromkeys(quiet) if purpose == Purpose.MANDATORY else quiet)

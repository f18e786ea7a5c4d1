"""What follows messages to simulated customers: whether each arrives, what the customer does, and when.

Everything is drawn from the truth: the probabilities are those of `truth.Outcome`, the same generator always draws the
same. Take-ups are only announced here (`responds_at`): whether one still happens depends on what the customer holds by
then, which `ownership` keeps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from features.columns import Kind
from features.schema import Bool, Float64
from features.simulation.calendar import DAY, LOCAL_OFFSET, Ints, at_local
from features.simulation.catalog import CHANNELS
from features.simulation.truth import Outcome, Truth

_INDEX = {channel.id: index for index, channel in enumerate(CHANNELS)}
IN_APP, VOICE, BRANCH = _INDEX["in_app"], _INDEX["voice"], _INDEX["branch"]
_ARRIVES = np.array([5.0, 0.0, 10.0, 60.0, 4.0, 15.0, 0.0])  # [H] median seconds from sent to delivered
_OPENS = np.array([600.0, 4.0, 900.0, 14_400.0, 1_800.0, 20.0, 60.0])  # [H] median seconds from delivered to opened
_SHOWS_OPEN = np.array([channel.id not in ("sms", "voice", "branch") for channel in CHANNELS])
_SPEAKS = np.array([channel.id in ("voice", "branch") for channel in CHANNELS])
WAIT_DAYS = 4
"""In-app and branch messages wait so long for the customer, then fail. Together with the at most six hours until an
opt-out this stays below the shortest gap between two decisions: no decision is taken before the last one settled."""
OPT_OUT_HOURS = 6.0
GLOBAL_OPT_OUT = 0.1
"""Share of opt-outs that end marketing on all channels at once."""
LATEST_DAYS = 14.0
"""A take-up through a message comes within so many days of the click."""


@dataclass(frozen=True)
class Happening:
    """One kind of event over n messages. rows: bool [n], those that it happens to; at: float64 [n].

    of_message: it names the message and what it was about; else only the customer and channel. everywhere: bool [n],
    it concerns all channels.
    """

    kind: Kind
    at: Float64
    rows: Bool
    of_message: bool = True
    everywhere: Bool | None = None


@dataclass(frozen=True)
class Reactions:
    """What follows n messages; times in seconds of the simulated calendar, of what would have happened then."""

    channel: Ints
    sent_at: Float64
    arrived_at: Float64
    opened_at: Float64
    clicked_at: Float64
    opt_out_at: Float64
    responds_at: Float64
    reached: Bool
    opened: Bool
    clicked: Bool
    responded: Bool
    opt_out: Bool
    opt_out_all: Bool
    complained: Bool

    def happenings(self) -> Iterator[Happening]:
        """The events as a bank's systems log them, causes before effects; take-ups are not among them."""
        channel, speaks = self.channel, _SPEAKS[self.channel]
        waits = self.reached & ((channel == IN_APP) | (channel == BRANCH))
        yield Happening(Kind.SENT, self.sent_at, np.ones(len(channel), dtype=np.bool_))
        yield Happening(Kind.VISITED, self.arrived_at - 2.0, waits, of_message=False)
        yield Happening(Kind.DELIVERED, self.arrived_at, self.reached)
        yield Happening(Kind.FAILED, self.arrived_at, ~self.reached)
        yield Happening(Kind.OPENED, self.opened_at, self.opened & _SHOWS_OPEN[channel])
        yield Happening(Kind.CLICKED, self.clicked_at, self.clicked & ~speaks)
        yield Happening(Kind.REPLIED, self.clicked_at, self.clicked & speaks)
        yield Happening(Kind.OPTED_OUT, self.opt_out_at, self.opt_out, everywhere=self.opt_out_all)
        yield Happening(Kind.COMPLAINED, self.opt_out_at + 600.0, self.complained)


def react(
    random: np.random.Generator, truth: Truth, customer: Ints, channel: Ints, outcome: Outcome, decided_at: Float64
) -> Reactions:
    """What follows n messages that leave within half a minute of `decided_at`; outcome: their true probabilities."""
    n = len(customer)
    draw = random.random((6, n))
    reached = draw[0] < outcome.reach
    opened = reached & (draw[1] < outcome.open)
    responded = opened & (draw[2] < outcome.respond)
    clicked = responded | (opened & (draw[3] < outcome.click))
    opt_out = reached & (draw[4] < outcome.opt_out)
    complained = reached & (draw[5] < outcome.complain)

    sent_at = decided_at + 1.0 + 20.0 * random.random(n)
    arrived_at = _arrivals(random, truth, customer, channel, sent_at, reached)
    opened_at = arrived_at + np.minimum(_OPENS[channel] * np.exp(random.normal(0.0, 1.0, n)) + 1.0, 3.0 * DAY)
    clicked_at = opened_at + 3.0 + random.exponential(30.0, n)
    opt_out_at = arrived_at + 30.0 + random.random(n) * (OPT_OUT_HOURS * 3600.0 - 60.0)
    responds_at = clicked_at + np.minimum(np.exp(random.normal(10.0, 1.2, n)), LATEST_DAYS * DAY)
    everywhere = random.random(n) < GLOBAL_OPT_OUT
    return Reactions(
        channel, sent_at, arrived_at, opened_at, clicked_at, opt_out_at, responds_at,
        reached, opened, clicked, responded, opt_out, opt_out & everywhere, complained,
    )  # fmt: skip


def visit_hour(random: np.random.Generator, truth: Truth, customer: Ints) -> Float64:
    """Local hours at which customers open the app: around their own peaks."""
    p = truth.parameters
    total = np.cumsum(truth.latents.rhythm[customer], axis=1)
    peak = np.minimum((total < random.random(len(customer))[:, None]).sum(axis=1), len(p.rhythm_peaks) - 1)
    return np.asarray((p.rhythm_peaks[peak] + random.normal(0.0, 0.8 * p.rhythm_width, len(customer))) % 24.0)


def _arrivals(
    random: np.random.Generator,
    truth: Truth,
    customer: Ints,
    channel: Ints,
    sent_at: Float64,
    reached: Bool,
) -> Float64:
    """When a message is delivered or fails: at once, or at the next visit to the app or the branch."""
    n = len(customer)
    quick = sent_at + _ARRIVES[channel] * np.exp(random.normal(0.0, 0.5, n)) + 1.0
    day = np.floor((sent_at + LOCAL_OFFSET) / DAY) + np.floor(random.random(n) * WAIT_DAYS)
    app = at_local(day, visit_hour(random, truth, customer))
    branch = at_local(day, 9.2 + 8.5 * random.random(n))
    visit = np.where(channel == IN_APP, app, branch)
    visit = np.where(visit < sent_at + 60.0, visit + DAY, visit)
    waits = (channel == IN_APP) | (channel == BRANCH)
    return np.where(waits, np.where(reached, visit, sent_at + WAIT_DAYS * DAY), quick)

"""The truth of the simulated bank: the probability of every reaction, as known functions one can ask later.

A message is *reached*, then *opened*, then *responded* to (take-up); p_take_up is the product of the three.
Beside it everybody takes up products by themselves, with an organic intensity. All functions are vectorised over
n questions, (customer, ...) given as integer indices in the order of the catalogue and of `Truth.customer_ids`;
`when` is float64 seconds since the simulated calendar's start (`calendar.from_epoch` converts).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.schema import Bool, Float32, Float64
from features.simulation.calendar import DAY, Ints, is_weekend, local_hour, month_of
from features.simulation.parameters import Parameters

MONTH_DAYS = 30.0
"""Organic intensities are per 30 days, whatever the calendar month."""


@dataclass(frozen=True)
class Latents:
    """What nobody sees of each of N customers, except in what they do."""

    preference: Float64  # [N, H] how much the customer likes each channel (logit)
    rhythm: Float64  # [N, 3] weights of the morning, noon and evening peaks, summing to 1
    weekend: Float64  # [N] extra activity on weekends (logit of an open)
    persuadable: Float64  # [N] how much a message can move (logit of a response)
    fatigue_sensitivity: Float64  # [N] about 1
    price_sensitivity: Float64  # [N]


@dataclass(frozen=True)
class Outcome:
    """True probabilities of what follows an action, float64 [n] each; open and respond are conditional."""

    reach: Float64
    open: Float64
    respond: Float64
    click: Float64
    opt_out: Float64
    complain: Float64

    @property
    def take_up(self) -> Float64:
        """Probability that the message leads to a take-up: reach x open x respond."""
        return self.reach * self.open * self.respond


@dataclass(frozen=True)
class Truth:
    """The response functions of one simulated bank with N customers over M months."""

    parameters: Parameters
    customer_ids: tuple[str, ...]
    product_ids: tuple[str, ...]
    channel_ids: tuple[str, ...]
    content_ids: tuple[str, ...]
    latents: Latents
    month_starts: Float64  # [M + 1]
    need: Float32  # [M, N, P] by profile and taste, as of the start of each month; without complements
    address: Bool  # [M, N, H] the bank can address the customer on the channel

    def activity(self, customer: Ints, when: Float64) -> Float64:
        """How awake to messages the customer is at that local hour: about 0 to 1."""
        p = self.parameters
        distance = np.abs(local_hour(when)[:, None] - p.rhythm_peaks)
        distance = np.minimum(distance, 24.0 - distance)
        bumps = np.exp(-0.5 * (distance / p.rhythm_width) ** 2)  # [n, 3]
        return np.asarray((self.latents.rhythm[customer] * bumps).sum(axis=1) - p.rhythm_centre)

    def app_visits(self, customer: Ints) -> Float64:
        """App visits per day of a customer who has the app."""
        p = self.parameters
        liking = self.latents.preference[customer, self.channel_ids.index("in_app")]
        return np.asarray(p.app_visits * np.exp(p.app_visits_preference * liking))

    def reach(self, customer: Ints, channel: Ints, when: Float64) -> Float64:
        """P(delivered | sent). 0 without an address; in-app messages wait for the next visit."""
        p = self.parameters
        logit = (
            p.reach_base[channel]
            + p.reach_preference[channel] * self.latents.preference[customer, channel]
            + p.reach_activity[channel] * self.activity(customer, when)
        )
        visit = -np.expm1(-p.in_app_days * self.app_visits(customer))
        reached = np.where(channel == self.channel_ids.index("in_app"), visit, sigmoid(logit))
        known = self.address[month_of(when, self.month_starts), customer, channel]
        return np.where(known, reached, 0.0)

    def open(self, customer: Ints, channel: Ints, content: Ints, when: Float64, fatigue: Float64) -> Float64:
        """P(opened | delivered): liking of the channel, hour and weekday, the content, and how tired one is."""
        p = self.parameters
        return sigmoid(
            p.open_base[channel]
            + p.open_preference * self.latents.preference[customer, channel]
            + p.open_activity * self.activity(customer, when)
            + self.latents.weekend[customer] * is_weekend(when)
            + p.content_quality[content]
            - p.open_fatigue * self.latents.fatigue_sensitivity[customer] * fatigue
        )

    def full_need(self, customer: Ints, when: Float64, held: Bool) -> Float64:
        """Needs of all products with what `held` [n, P] adds or takes away: float64 [n, P]."""
        base = self.need[month_of(when, self.month_starts), customer].astype(np.float64)
        return base + held.astype(np.float64) @ self.parameters.complement

    def respond(
        self, customer: Ints, product: Ints, channel: Ints, content: Ints, need: Float64, held: Bool
    ) -> Float64:
        """P(take-up through the message | opened). need [n]: of that product; held [n]: 0 where it is held."""
        p = self.parameters
        logit = (
            p.respond_base[product]
            + p.respond_need * need
            + self.latents.persuadable[customer]
            + p.respond_preference * self.latents.preference[customer, channel]
            + p.respond_fit[channel, product]
            + p.content_quality[content]
            + p.content_style[content] * self.latents.price_sensitivity[customer]
        )
        return np.where(held, 0.0, sigmoid(logit))

    def opt_out(self, customer: Ints, channel: Ints, fatigue: Float64) -> Float64:
        """P(opts out | delivered)."""
        p = self.parameters
        return sigmoid(
            p.opt_out_base[channel]
            + p.opt_out_fatigue * self.latents.fatigue_sensitivity[customer] * fatigue
            + p.opt_out_preference * self.latents.preference[customer, channel]
        )

    def outcome(
        self,
        customer: Ints,
        product: Ints,
        channel: Ints,
        content: Ints,
        when: Float64,
        fatigue: Float64,
        held: Bool,
    ) -> Outcome:
        """Everything that may follow n actions. fatigue [n]: `decayed_contacts` before it; held: bool [n, P]."""
        p = self.parameters
        row = np.arange(len(customer))
        need = self.full_need(customer, when, held)[row, product]
        tired = self.latents.fatigue_sensitivity[customer] * fatigue
        return Outcome(
            reach=self.reach(customer, channel, when),
            open=self.open(customer, channel, content, when, fatigue),
            respond=self.respond(customer, product, channel, content, need, held[row, product]),
            click=sigmoid(p.click_base[channel] + p.click_need * need),
            opt_out=self.opt_out(customer, channel, fatigue),
            complain=sigmoid(p.complain_base[channel] + p.complain_fatigue * tired),
        )

    def organic(self, customer: Ints, when: Float64, held: Bool) -> Float64:
        """Intensity of organic take-ups of every product per 30 days, 0 where held: float64 [n, P]."""
        intensity = self.parameters.intensity * np.exp(self.full_need(customer, when, held))
        return np.where(held, 0.0, intensity)

    def organic_within(self, customer: Ints, when: Float64, held: Bool, days: float) -> Float64:
        """P(organic take-up within `days`), the intensities staying as they are: the no-contact arm, [n, P]."""
        return np.asarray(-np.expm1(-self.organic(customer, when, held) * days / MONTH_DAYS))

    def take_up_within(
        self,
        customer: Ints,
        product: Ints,
        channel: Ints,
        content: Ints,
        when: Float64,
        fatigue: Float64,
        held: Bool,
        days: float,
    ) -> Float64:
        """P(takes `product` up within `days` of the action at `when`), by the message or by themselves: float64 [n].

        channel -1 = no contact: then it is the organic probability alone. `days` should be at least 18, by which
        time every message has had its effect. The difference to no contact, times the margin, is what an action is
        worth.
        """
        contact = channel >= 0
        sent, text = np.maximum(channel, 0), np.maximum(content, 0)
        by_message = self.outcome(customer, product, sent, text, when, fatigue, held).take_up * contact
        alone = self.organic_within(customer, when, held, days)[np.arange(len(customer)), product]
        return np.asarray(1.0 - (1.0 - by_message) * (1.0 - alone))

    def rows_of(self, customer_ids: Sequence[str]) -> Ints:
        """Indices of customers by their ids; KeyError for an id that this bank does not have."""
        position = {name: index for index, name in enumerate(self.customer_ids)}
        return np.array([position[name] for name in customer_ids], dtype=np.int64)


def decayed_contacts(
    contact_customer: Ints, contact_at: Float64, customer: Ints, when: Float64, half_life_days: float
) -> Float64:
    """Fatigue: marketing messages sent to each customer before `when`, each halved every `half_life_days`.

    contact_customer, contact_at [k]: the messages, in any order. customer, when [n]. Returns float64 [n].
    """
    result = np.zeros(len(customer))
    order = np.lexsort((contact_at, contact_customer))
    owner, at = contact_customer[order], contact_at[order]
    first = np.searchsorted(owner, customer, side="left")
    last = np.searchsorted(owner, customer, side="right")
    for offset in range(int((last - first).max(initial=0))):
        here = first + offset
        index = np.minimum(here, max(len(at) - 1, 0))
        age = (when - at[index]) / DAY
        result += np.where((here < last) & (age > 0), 0.5 ** (np.maximum(age, 0.0) / half_life_days), 0.0)
    return result


def sigmoid(logit: npt.NDArray[np.float64]) -> Float64:
    """The logistic function."""
    return np.asarray(1.0 / (1.0 + np.exp(-logit)))

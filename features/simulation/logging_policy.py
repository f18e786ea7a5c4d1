"""How the simulated bank decided: a mixture of a uniformly random arm and business as usual, both known.

An action is product x channel x content, or no contact. Feasible are: products that the customer does not hold, on
channels that the bank can address, that are not opted out of and whose caps leave room, with any content in the
customer's language that fits the channel; and always no contact. Both arms factor into no contact, product,
channel and content, so the probability of a whole action is exact without listing all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.schema import Bool, Float64
from features.simulation.calendar import Ints
from features.simulation.catalog import CAPS, CHANNELS, PRODUCTS, content_index, content_slots
from features.simulation.truth import sigmoid

RANDOM_SHARE = 0.3
"""Probability that a decision is taken by the random arm."""
ARMS = ("random", "business_as_usual")

_SLOTS = [content_slots(channel) for channel in CHANNELS]
SLOT_COUNT = np.array([len(slots) for slots in _SLOTS])  # [H]
_WIDTH = int(SLOT_COUNT.max())
TEMPLATE_OF_SLOT = np.array([[*slots, *[0] * (_WIDTH - len(slots))] for slots in _SLOTS])  # [H, W]
_UNIFORM = np.array([[1 / len(s)] * len(s) + [0.0] * (_WIDTH - len(s)) for s in _SLOTS])  # [H, W]
_BUSINESS_CONTENT = np.array([[0.6, 0.4, 0.0] if len(s) == 2 else [0.3, 0.2, 0.5] for s in _SLOTS])  # [H, W]

_BUSINESS_PRODUCT: dict[
    str, tuple[float, float, float, float, float]
] = {  # log weight by segment, see population.SEGMENTS
    "salary_account": (1.5, 1.0, 0.0, -1.0, -1.0),
    "savings_account": (0.8, 1.0, 0.5, 0.0, 0.5),
    "credit_card": (1.5, 1.2, 0.8, 0.0, -0.5),
    "gold_card": (-1.5, -0.5, 1.5, 1.5, -1.0),
    "term_deposit": (-1.0, 0.0, 0.5, 0.8, 1.8),
    "personal_loan": (0.6, 0.8, 0.0, -1.0, -1.5),
    "car_loan": (-0.5, 0.3, 0.5, 0.0, -1.5),
    "mortgage": (-0.5, 0.0, 0.8, 0.5, -2.0),
    "life_insurance": (-0.5, 0.4, 0.6, 0.8, 0.0),
    "travel_insurance": (0.2, 0.0, 0.2, 0.3, 0.4),
    "fund_plan": (-0.2, 0.0, 1.0, 1.5, 0.0),
    "pension_plan": (-1.5, 0.2, 0.6, 0.8, 0.3),
}
_BUSINESS_CHANNEL: dict[str, tuple[float, float, float, float]] = {  # log weight by age band
    "app_push": (1.5, 1.2, 0.6, 0.0),
    "in_app": (1.0, 0.8, 0.3, -0.3),
    "sms": (1.0, 1.2, 1.4, 1.4),
    "email": (0.3, 0.6, 0.5, 0.0),
    "wechat": (0.8, 0.8, 0.5, 0.0),
    "voice": (-1.5, -1.0, -0.3, 0.2),
    "branch": (-2.5, -2.0, -1.2, -0.5),
}
_PRODUCT_WEIGHT = np.exp([_BUSINESS_PRODUCT[product.id] for product in PRODUCTS]).T  # [segment, P]
_CHANNEL_WEIGHT = np.exp([_BUSINESS_CHANNEL[channel.id] for channel in CHANNELS]).T  # [age band, H]


@dataclass(frozen=True)
class Choice:
    """n decisions. product, channel, content: -1 = no contact."""

    product: Ints
    channel: Ints
    content: Ints
    propensity: Float64  # probability of exactly this action under the mixture
    arm: Ints  # index into ARMS
    feasible: Ints  # number of feasible actions, no contact included
    business: Float64  # probability of exactly this action under business as usual

    @property
    def contact(self) -> Bool:
        return np.asarray(self.product >= 0)


def under_caps(sent_at: Float64, sent_channel: Ints, now: Float64) -> Bool:
    """bool [n, H]: channels on which one more message at `now` [n] keeps every cap of the catalogue.

    sent_at, sent_channel [k, n]: the last k marketing messages of each customer (-inf, -1 = none).
    """
    allowed = np.ones((len(now), len(CHANNELS)), dtype=np.bool_)
    for policy in CAPS:
        recent = sent_at > now - policy["days"] * 86_400.0
        if "channel" in policy:
            index = [channel.id for channel in CHANNELS].index(policy["channel"])
            allowed[:, index] &= (recent & (sent_channel == index)).sum(axis=0) < policy["limit"]
        else:
            allowed &= (recent.sum(axis=0) < policy["limit"])[:, None]
    return allowed


def business_no_contact(fatigue: Float64) -> Float64:
    """Probability that business as usual leaves a customer alone."""
    return sigmoid(-1.1 + 0.5 * fatigue)


def decide(
    random: np.random.Generator,
    products: Bool,
    channels: Bool,
    language: Ints,
    segment: Ints,
    age_band: Ints,
    fatigue: Float64,
) -> Choice:
    """Decide for n customers. products [n, P] and channels [n, H]: what is feasible.

    The propensity is RANDOM_SHARE / (number of feasible actions) + (1 - RANDOM_SHARE) x business as usual's
    probability, of the action taken, whichever arm took it.
    """
    n = len(products)
    slots = channels * SLOT_COUNT
    feasible = 1 + products.sum(axis=1) * slots.sum(axis=1)
    some = feasible > 1
    alone = np.where(some, business_no_contact(fatigue), 1.0)
    product_weight = products * _PRODUCT_WEIGHT[segment]
    channel_weight = channels * _CHANNEL_WEIGHT[age_band]

    by_chance = random.random(n) < RANDOM_SHARE
    draw = random.random((4, n))
    contact = draw[0] >= np.where(by_chance, 1.0 / feasible, alone)
    product = _pick(np.where(by_chance[:, None], products, product_weight), draw[1])
    channel = _pick(np.where(by_chance[:, None], slots, channel_weight), draw[2])
    slot = _pick(np.where(by_chance[:, None], _UNIFORM[channel], _BUSINESS_CONTENT[channel]), draw[3])

    row = np.arange(n)
    with np.errstate(invalid="ignore"):
        chain = (
            (1.0 - alone)
            * (product_weight[row, product] / product_weight.sum(axis=1))
            * (channel_weight[row, channel] / channel_weight.sum(axis=1))
            * _BUSINESS_CONTENT[channel, slot]
        )
    business = np.where(contact, chain, alone)
    content = content_index(product, TEMPLATE_OF_SLOT[channel, slot], language)
    return Choice(
        product=np.where(contact, product, -1),
        channel=np.where(contact, channel, -1),
        content=np.where(contact, content, -1),
        propensity=RANDOM_SHARE / feasible + (1.0 - RANDOM_SHARE) * business,
        arm=np.where(by_chance, 0, 1),
        feasible=feasible,
        business=business,
    )


def _pick(weight: Float64, draw: Float64) -> Ints:
    """Per row, an index with probability proportional to its weight, by inverting the distribution at `draw`."""
    total = np.cumsum(weight, axis=1)
    # Strictly greater: an index of weight 0 is never picked. A draw so near 1 that the product rounds up to the
    # total would find nothing, hence the minimum.
    return np.asarray(np.argmax(total > (np.minimum(draw, 1.0 - 1e-12) * total[:, -1])[:, None], axis=1))

"""Evidence against opinion: what the log says of responses and of new products, each weighed by how much it saw.

*Response.* P(product) is learned from all take-ups, P(channel works) from all reactions, so their product has neither
the level nor the fit of "this message leads to that take-up": a mortgage is not bought from a short text. The log of
messages has both. Per product p and channel c it saw n messages and k take-ups through them, where the priors alone
expect E = n · P(p) · P(c). The factor on P(p) · P(c) is the mean of a gamma posterior (Gamma–Poisson shrinkage, Efron &
Morris 1975), (s + k) / (s / m + E): the prior mean m of a pair comes from its product and its channel, theirs from the
whole log, and that of the whole log is 1. Without evidence the factor is 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from features.evidence import Evidence
from features.schema import Bool, Float64, Rows, RowSchema
from serving.choice import ChoiceModel
from serving.scoring import STATIC, Panel, Source

OPT_OUT_MESSAGES = 1_000.0
"""The declared P(opt-out) counts as so many messages against what the log shows."""


@dataclass(frozen=True)
class Rates:
    """What the priors say of everybody: products float64 [P], channels float64 [H]; NaN where a prior is silent."""

    products: Float64
    channels: Float64


def usual_rates(products: Panel, channels: Panel, prior: str, rows_of: Callable[[RowSchema], Rows]) -> Rates:
    """What the sources called `prior`, or of that family, say.

    They look at no customer, so the single one behind `rows_of` is anybody.
    """
    return Rates(_usual(products, prior, rows_of), _usual(channels, prior, rows_of))


def _usual(panel: Panel, prior: str, rows_of: Callable[[RowSchema], Rows]) -> Float64:
    """Float64 [m], NaN where no prior answers."""
    everything = np.ones(len(panel.candidates), dtype=np.bool_)
    named = [source for source in panel.sources if source.name == prior]
    # where the champion is itself the prior, one version stands in the champion's place and the prior's is empty
    found = named or [source for source in panel.sources if _family(source) == prior]
    alone = replace(panel, sources=tuple(found))
    scores = alone.score(rows_of, everything)
    return np.full(len(everything), np.nan) if scores.version == STATIC else scores.probabilities


def _family(source: Source) -> str | None:
    return source.model.scorer.family if isinstance(source.model, ChoiceModel) else None


def responses(evidence: Evidence, usual: Rates | None, strength: float) -> Float64:
    """Float64 [P, H], > 0: take-ups through messages per take-up that P(product) · P(channel) expects.

    strength: s, take-ups that the prior mean counts for; with 0 and no evidence the factor stays 1.
    """
    shape = evidence.contacts.shape
    if usual is None:
        return np.ones(shape)
    expected = evidence.contacts * np.nan_to_num(usual.products)[:, None] * np.nan_to_num(usual.channels)[None, :]
    seen = np.where(expected > 0, evidence.converted, 0.0)  # what no prior expects cannot be compared
    whole = _shrunk(seen.sum(), expected.sum(), np.asarray(1.0), strength)
    by_product = _shrunk(seen.sum(axis=1), expected.sum(axis=1), np.full(shape[0], whole), strength)  # [P]
    given_product = expected * by_product[:, None]
    by_channel = _shrunk(seen.sum(axis=0), given_product.sum(axis=0), np.ones(shape[1]), strength)  # [H]
    return _shrunk(seen, expected, by_product[:, None] * by_channel[None, :], strength)


def opt_out_rates(evidence: Evidence, declared: float) -> Float64:
    """Float64 [H]: P(opts out | contact), the declared one moved by the log's counts."""
    return np.asarray((OPT_OUT_MESSAGES * declared + evidence.opted_out) / (OPT_OUT_MESSAGES + evidence.sent))


@dataclass(frozen=True)
class Smoothing:
    """(SE·SP + ME·P) / (SE + ME) for one customer after the other.

    take_ups: float64 [P], ME. start: SE. propensity: SP; None: the mean over this customer's products that have
    evidence of at least SE, and P itself where there are none.
    """

    take_ups: Float64
    start: float
    propensity: float | None

    @cached_property
    def _trusted(self) -> Bool:
        return np.asarray((self.take_ups >= self.start) & (self.take_ups > 0))

    @cached_property
    def _weighed(self) -> tuple[Float64, Bool | None]:
        """What to divide by, and where there is anything to divide by; None: everywhere."""
        weight = self.start + self.take_ups
        some: Bool = weight > 0
        return np.where(some, weight, 1.0), None if some.all() else some

    def __call__(self, products: Float64) -> Float64:
        """Float64 [P], NaN where P is. products: [P], P, of one customer."""
        propensity = self.propensity
        if propensity is None:
            seen = products[self._trusted & np.isfinite(products)]
            if not len(seen):
                return products
            propensity = float(np.add.reduce(seen) / len(seen))
        weight, some = self._weighed
        mixed: Float64 = (self.start * propensity + self.take_ups * products) / weight
        return mixed if some is None else np.where(some, mixed, products)


def smoothed(products: Float64, take_ups: Float64, start: float, propensity: float | None) -> Float64:
    """`Smoothing` of one customer's products, float64 [P]."""
    return Smoothing(take_ups, start, propensity)(products)


def _shrunk(seen: Float64, expected: Float64, mean: Float64, strength: float) -> Float64:
    """(s + seen) / (s / mean + expected), elementwise; `mean` where there is neither strength nor evidence."""
    below = strength / np.maximum(mean, 1e-9) + expected
    return np.asarray(np.where(below > 0, (strength + seen) / np.where(below > 0, below, 1.0), mean))

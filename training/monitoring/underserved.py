"""Under-served customers: whom the rules leave nothing, or nothing they are likely to want, and which layer does it.

The layers are asked in this order, each on what the one before left of the catalogue:

    likelihood      no product has more than a tiny chance, before any rule
    eligibility     held, declared audiences, holdings, reach and periods, the request's own list
    consent         opted out of every channel, or consent not known
    suitability     affordability, complaints
    contact policy  caps and suppressions
    content         no text for product and channel, or no usable score
    experiment      a product's control group, a new product not let out yet
    value           actions are left, yet none is worth more than leaving the customer alone

A customer is under-served by the first layer after which there is no action (none), or only products whose propensity
lies in the bottom tail (tiny). "Tiny" is below the 5 % quantile of the best scores when the model was judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from features.catalog import Catalog
from features.schema import Bool, Float64, Rows
from training.monitoring.served_log import Decided
from training.slices import slices

if TYPE_CHECKING:
    from training.monitoring.histogram import Histogram

LIKELIHOOD, ELIGIBILITY, CONSENT, SUITABILITY = "likelihood", "eligibility", "consent", "suitability"
CONTACT_POLICY, CONTENT, EXPERIMENT, VALUE = "contact policy", "content", "experiment", "value"
LAYERS = (LIKELIHOOD, ELIGIBILITY, CONSENT, SUITABILITY, CONTACT_POLICY, CONTENT, EXPERIMENT, VALUE)
TAIL = 0.05
FEWEST_IN_GROUP = 30
_OF_KIND = {
    "holding": ELIGIBILITY,
    "audience": ELIGIBILITY,
    "reach": ELIGIBILITY,
    "period": ELIGIBILITY,
    "affordability": SUITABILITY,
    "complaint": SUITABILITY,
    "cap": CONTACT_POLICY,
    "suppression": CONTACT_POLICY,
}
_OF_RULE = {
    "no_consent": CONSENT,
    "consent_not_known": CONSENT,
    "unknown_customer": CONSENT,
    "no_content": CONTENT,
    "content_failed": CONTENT,
    "no_score": CONTENT,
    "product_holdout": EXPERIMENT,
    "maturing": EXPERIMENT,
}
"""Rules that the catalogue does not declare; any other is one of who may have what."""


@dataclass(frozen=True)
class Underserved:
    """customers: all that were looked at. none, tiny: layer → customers whom it leaves nothing, or nothing likely.

    threshold: what counts as tiny. rules: rule → customers whom it takes something from. groups: slice, group,
    customers, and the share of them that is under-served; worst first.
    """

    customers: int
    none: Mapping[str, int]
    tiny: Mapping[str, int]
    threshold: float
    rules: Mapping[str, int]
    groups: tuple[tuple[str, str, int, float], ...]

    @property
    def total(self) -> int:
        return sum(self.none.values()) + sum(self.tiny.values())


def layer_of(rule: str, catalog: Catalog) -> str:
    """The layer that a rule of a record belongs to."""
    kinds = {str(policy["id"]): str(policy["kind"]) for policy in catalog.policies}
    return _OF_KIND.get(kinds.get(rule, ""), _OF_RULE.get(rule, ELIGIBILITY))


def underserved(
    found: Sequence[Decided], scores: Float64, rows: Rows, catalog: Catalog, threshold: float
) -> Underserved:
    """One decision per customer; scores: float64 [n, P], the model's, NaN where held; rows: [n], for the groups."""
    layers = {policy["id"]: layer_of(str(policy["id"]), catalog) for policy in catalog.policies}
    none, tiny = dict.fromkeys(LAYERS, 0), dict.fromkeys(LAYERS, 0)
    rules: dict[str, int] = {}
    missed = np.zeros(len(found), dtype=np.bool_)
    for place, one in enumerate(found):
        layer, nothing = first_layer(one, scores[place], catalog, threshold, layers)
        if layer is not None:
            missed[place] = True
            (none if nothing else tiny)[layer] += 1
        for rule in {rule for _, _, rule in one.removed}:
            rules[rule] = rules.get(rule, 0) + 1
    ordered = dict(sorted(rules.items(), key=lambda item: -item[1]))
    return Underserved(len(found), none, tiny, threshold, ordered, groups(rows, missed))


def first_layer(
    one: Decided, scores: Float64, catalog: Catalog, threshold: float, layers: Mapping[str, str]
) -> tuple[str | None, bool]:
    """The first layer that leaves the customer under-served and whether it leaves nothing; None: they are served.

    scores: float64 [P]. layers: rule → layer, of the declared rules.
    """
    best = float(np.nanmax(scores, initial=-np.inf))
    if np.isfinite(best) and best < threshold:
        return LIKELIHOOD, False
    gone: dict[str, set[tuple[str, str]]] = {layer: set() for layer in LAYERS}
    for subject, name, rule in one.removed:
        gone[layers.get(rule, _OF_RULE.get(rule, ELIGIBILITY))].add((subject, name))
    blocked = {_OF_RULE[rule] for rule in one.reasons if rule in ("unknown_customer", "consent_not_known")}
    products = {name: score for name, score in zip(catalog.product_ids, scores, strict=True) if np.isfinite(score)}
    channels = {channel.id for channel in catalog.channels if channel.outbound}
    pairs = {(product, channel) for product in products for channel in channels}
    for layer in LAYERS[1:-1]:
        pairs = set() if layer in blocked else {pair for pair in pairs if not _gone(pair, gone[layer])}
        if not pairs:
            return layer, True
        if max(products[product] for product, _ in pairs) < threshold:
            return layer, False
    if not one.offered:  # every text of every pair that was left could not be rendered
        return CONTENT, True
    return (VALUE, True) if one.worth <= 0 else (None, False)


def _gone(pair: tuple[str, str], removed: set[tuple[str, str]]) -> bool:
    product, channel = pair
    return not removed.isdisjoint({("product", product), ("channel", channel), ("action", f"{product}/{channel}")})


def tail_of(best: Histogram) -> float:
    """The TAIL quantile of a histogram with borders, as if values lay evenly in a bin; 0 where it has none."""
    if best.borders is None or best.least is None or best.most is None or not best.borders:
        return 0.0
    below = np.concatenate([[0.0], np.cumsum(best.shares[:-1])])
    return float(np.interp(TAIL, below, [best.least, *best.borders, best.most]))


def groups(rows: Rows, missed: Bool) -> tuple[tuple[str, str, int, float], ...]:
    """Slice, group, customers and under-served share of every group of enough customers; worst first."""
    if not len(rows):
        return ()
    found = []
    for name, members in slices(rows).items():
        for group in dict.fromkeys(members.tolist()):
            inside = members == group
            if inside.sum() >= FEWEST_IN_GROUP:
                found.append((name, str(group), int(inside.sum()), float(missed[inside].mean())))
    return tuple(sorted(found, key=lambda one: -one[3]))

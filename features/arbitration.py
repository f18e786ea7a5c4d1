"""What the catalogue's `[[policies]]` declare about weighing actions and about experiments, read with every problem.

    kind = "arbitration"  at most one: the costs of contact and the customer's side, see `Arbitration`
    kind = "lever"        weight of a product, group or channel: what the bank wants pushed (> 1) or held back (< 1)
    kind = "context"      the same, only for customers whose `attribute` is `equals`
    kind = "maturity"     at most one: how fast a new product is let out, see `Maturity`
    kind = "arms"         at most one: shares of customers that an experiment decides for, see `Arms`

Other kinds belong to other readers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from features.catalog import Catalog
from features.errors import InputError

KINDS = frozenset({"arbitration", "lever", "context", "maturity", "arms"})
MANY = frozenset({"lever", "context"})
"""Kinds of which a catalogue may have several."""
FACTORS = ("propensity", "channel", "response", "value", "context", "lever", "cost", "fatigue", "customer")
"""What makes up the worth of an action, each of which can be switched off; see `serving.value`."""
ARMS = ("agent", "random", "business_as_usual", "holdout")


@dataclass(frozen=True)
class Arbitration:
    """The numbers behind an action's worth that no model gives. Amounts in catalogue currency; None: see `default`."""

    opt_out: float = 0.002
    """P(opts out | contact) before the log says otherwise; the order of published unsubscribe rates."""
    opt_out_growth: float = 0.5
    """Each message of the last month adds this share to P(opt-out)."""
    reachability: float | None = None
    """What it is worth that a customer can be reached; default: 5 % of the mean margin."""
    benefit_share: float = 0.1
    """What a take-up is worth to the customer, as a share of the margin: the joint surplus of a voluntary purchase."""
    disturbance: float | None = None
    """What one contact costs the customer; default: 0.01 % of the mean margin."""
    start_evidence: float = 20.0
    """SE: a product starts as if so many take-ups had shown its start propensity; also the weight of "no difference"
    against what the log says of responses."""
    start_propensity: float | None = None
    """SP; default: the customer's mean over products that have evidence."""
    off: tuple[str, ...] = ()
    """Factors that are switched off."""


@dataclass(frozen=True)
class Weight:
    """A lever, or a context where `attribute` is set. A None of product, group and channel fits all."""

    id: str
    weight: float
    product: str | None = None
    group: str | None = None
    channel: str | None = None
    attribute: str | None = None
    equals: str | float | bool | None = None


@dataclass(frozen=True)
class Maturity:
    """A product may be offered to `least_share` of the customers at first, to all from `mature_at` take-ups on."""

    least_share: float = 0.02
    mature_at: float = 200.0


@dataclass(frozen=True)
class Arms:
    """Who decides for a customer, for a whole period. Shares sum to 1; `salt` names the experiment."""

    shares: Mapping[str, float] = field(default_factory=lambda: {"agent": 1.0})
    salt: str = ""
    period_days: float = 30.0
    products: Mapping[str, float] = field(default_factory=dict)
    """Per product, the share of customers that are not offered it in a period: its own control group."""


@dataclass(frozen=True)
class Declared:
    """Everything of this kind that a catalogue declares."""

    arbitration: Arbitration = Arbitration()
    weights: tuple[Weight, ...] = ()
    maturity: Maturity | None = None
    arms: Arms = field(default_factory=Arms)


def read_declared(catalog: Catalog) -> Declared:
    """The declarations of `catalog.policies`; InputError names every problem."""
    problems = declared_problems(catalog.policies, catalog)
    if problems:
        raise InputError("policies cannot be used: " + "; ".join(problems))
    mine: dict[str, list[Mapping[str, Any]]] = {kind: [] for kind in KINDS}
    for policy in catalog.policies:
        if policy.get("kind") in KINDS:
            mine[policy["kind"]].append(policy)

    def first(kind: str) -> dict[str, Any]:
        return {key: value for entry in mine[kind] for key, value in entry.items() if key not in ("id", "kind")}

    weighing = first("arbitration")
    if "off" in weighing:
        weighing["off"] = tuple(weighing["off"])
    weights = tuple(
        Weight(**{key: value for key, value in entry.items() if key != "kind"})
        for kind in ("lever", "context")
        for entry in mine[kind]
    )
    arms = first("arms")
    return Declared(
        Arbitration(**weighing),
        weights,
        Maturity(**first("maturity")) if mine["maturity"] else None,
        Arms(**arms) if arms else Arms(),
    )


def declared_problems(policies: Sequence[Mapping[str, Any]], catalog: Catalog) -> list[str]:
    """What is wrong with the policies of these kinds, one sentence each, the policy's id first."""
    problems: list[str] = []
    for kind in sorted(KINDS - MANY):
        ids = [str(policy["id"]) for policy in policies if policy.get("kind") == kind]
        if len(ids) > 1:
            problems.append(f"{', '.join(ids)}: one policy of kind {kind} is allowed, however there are {len(ids)}")
    for policy in policies:
        if policy.get("kind") in KINDS:
            found = _of_kind(str(policy["kind"]), policy, catalog)
            problems += [f"{policy['id']}: {problem}" for problem in found]
    return problems


def _of_kind(kind: str, policy: Mapping[str, Any], catalog: Catalog) -> list[str]:
    given = {key: value for key, value in policy.items() if key not in ("id", "kind")}
    if kind in ("lever", "context"):
        return _of_weight(kind, given, catalog)
    shape = {"arbitration": Arbitration, "maturity": Maturity, "arms": Arms}[kind]
    problems = _unknown(given, [item.name for item in fields(shape)])
    if kind == "arms":
        return problems + _of_arms(given, catalog)
    shares = {"opt_out", "least_share", "start_propensity"}
    for key in (item.name for item in fields(shape) if item.name in given and item.name != "off"):
        most = 1.0 if key in shares else math.inf
        problems += _number(key, given[key], most)
    off = given.get("off", [])
    if not isinstance(off, list) or not all(factor in FACTORS for factor in off):
        problems.append(f"off must be a list out of {', '.join(FACTORS)}, however it is {off!r}")
    if kind == "maturity" and given.get("mature_at") == 0:
        problems.append("mature_at must be above 0, however it is 0")
    return problems


def _of_weight(kind: str, given: Mapping[str, Any], catalog: Catalog) -> list[str]:
    condition = ["attribute", "equals"] if kind == "context" else []
    problems = _unknown(given, ["weight", "product", "group", "channel", *condition])
    problems += [f"{key} is missing" for key in ["weight", *condition] if key not in given]
    if "weight" in given:
        problems += _number("weight", given["weight"], math.inf)
    if "attribute" in given and not isinstance(given["attribute"], str):
        problems.append(f"attribute must be a name, however it is {given['attribute']!r}")
    known = {
        "product": set(catalog.product_ids),
        "group": {product.group for product in catalog.products if product.group},
        "channel": set(catalog.channel_ids),
    }
    problems += [
        f"{key} must be one of the catalogue, however it is {given[key]!r}"
        for key, names in known.items()
        if key in given and given[key] not in names
    ]
    return problems


def _of_arms(given: Mapping[str, Any], catalog: Catalog) -> list[str]:
    problems = []
    shares = given.get("shares", {"agent": 1.0})
    if not isinstance(shares, Mapping) or not set(shares) <= set(ARMS):
        problems.append(f"shares must name arms out of {', '.join(ARMS)}, however they are {shares!r}")
    else:
        wrong = [problem for arm, share in shares.items() for problem in _number(f"share of {arm}", share, 1.0)]
        problems += wrong
        if not wrong and not math.isclose(sum(shares.values()), 1.0, abs_tol=1e-9):
            problems.append(f"shares must sum to 1, however they sum to {sum(shares.values()):g}")
    if "salt" not in given or not isinstance(given["salt"], str) or not given["salt"]:
        problems.append("salt must be a text that names the experiment; without one two experiments share their arms")
    if "period_days" in given and (_number("period_days", given["period_days"], math.inf) or not given["period_days"]):
        problems.append(f"period_days must be a number above 0, however it is {given['period_days']!r}")
    products = given.get("products", {})
    if not isinstance(products, Mapping) or not set(products) <= set(catalog.product_ids):
        problems.append(f"products must name products of the catalogue, however they are {products!r}")
    else:
        problems += [text for name, share in products.items() for text in _number(f"share of {name}", share, 1.0)]
    return problems


def _unknown(given: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    return [f"{key} is not a key of this kind; the keys are {', '.join(keys)}" for key in given if key not in keys]


def _number(key: str, value: object, most: float) -> list[str]:
    """A problem unless 0 <= value <= most and finite."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most and math.isfinite(value):
        return []
    span = "of at least 0" if most == math.inf else f"from 0 to {most:g}"
    return [f"{key} must be a number {span}, however it is {value!r}"]

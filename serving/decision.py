"""The vocabulary of serving: what is asked, what may be done, what was done and why.

An *action* is product × channel × content; *no contact* is the action `None`. The *propensity* of a decision is the
probability with which exactly its action was drawn among all feasible ones, no contact included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

Subject = Literal["customer", "product", "channel", "content", "action"]


@dataclass(frozen=True)
class Ask:
    """One question about one customer. None means: not restricted."""

    customer_id: str
    as_of: datetime
    eligible: tuple[str, ...] | None = None
    """Only these products may be chosen."""
    channels: tuple[str, ...] | None = None
    """Only these channels may be used."""
    purpose: str = "marketing"
    language: str | None = None


@dataclass(frozen=True)
class Action:
    """Offer a product through a channel with a content; `content_id` None: the catalogue has no contents at all."""

    product_id: str
    channel: str
    content_id: str | None
    text: str | None


@dataclass(frozen=True)
class Candidate:
    """An action that passed every rule, with its expected value; `action` None is no contact, worth 0."""

    action: Action | None
    value: float
    """Catalogue currency, or take-ups where the catalogue declares no margins."""


@dataclass(frozen=True)
class Removed:
    """Something that was not possible: what it was, and the rule that said so."""

    subject: Subject
    id: str
    rule: str
    reason: str


@dataclass(frozen=True)
class Reason:
    """Why the decision is what it is: a rule id for machines, a sentence for people."""

    rule: str
    reason: str


@dataclass(frozen=True)
class Versions:
    """Everything that would have to be put back to decide the same again."""

    models: Mapping[str, str]
    policy: str
    features: str
    catalog: str


@dataclass(frozen=True)
class Decision:
    """What was decided, with the candidates it was drawn from."""

    decision_id: str
    ask: Ask
    action: Action | None
    propensity: float
    value: float
    candidates: tuple[Candidate, ...]
    propensities: tuple[float, ...]
    """One per candidate, in order; they sum to 1."""
    removed: tuple[Removed, ...]
    reasons: tuple[Reason, ...]
    degraded: tuple[str, ...]
    """Why this decision rests on less than it should; empty: it does not."""
    dropped: int
    """Scores that were not finite probabilities."""
    fallback_channels: tuple[str, ...]
    versions: Versions

    def answer(self) -> dict[str, Any]:
        """The document that a caller gets."""
        return {
            "decision_id": self.decision_id,
            "customer_id": self.ask.customer_id,
            "as_of": rfc3339(self.ask.as_of),
            "purpose": self.ask.purpose,
            "action": None if self.action is None else asdict(self.action),
            "propensity": self.propensity,
            "value": self.value,
            "reasons": [asdict(reason) for reason in self.reasons],
            "removed": summary(self.removed),
            "degraded": bool(self.degraded),
            "degraded_because": list(self.degraded),
            "fallback_channels": list(self.fallback_channels),
            "versions": asdict(self.versions),
        }

    def record(self) -> dict[str, Any]:
        """The document that the ledger keeps: the answer, the question, and every candidate with its propensity."""
        candidates = [
            {
                "product_id": candidate.action and candidate.action.product_id,
                "channel": candidate.action and candidate.action.channel,
                "content_id": candidate.action and candidate.action.content_id,
                "value": candidate.value,
                "propensity": propensity,
            }
            for candidate, propensity in zip(self.candidates, self.propensities, strict=True)
        ]
        return {
            **self.answer(),
            "asked": {
                "eligible": None if self.ask.eligible is None else list(self.ask.eligible),
                "channels": None if self.ask.channels is None else list(self.ask.channels),
                "language": self.ask.language,
            },
            "candidates": candidates,
            "dropped_scores": self.dropped,
            "removed": [asdict(removed) for removed in self.removed],
        }


@dataclass(frozen=True)
class Ranked:
    """A product and the calibrated probability that the customer takes it up; rank 1 is the best."""

    product_id: str
    probability: float
    rank: int


@dataclass(frozen=True)
class Ranking:
    """Products in order of probability, to show where the customer came by themselves; nobody is contacted."""

    ask: Ask
    products: tuple[Ranked, ...]
    removed: tuple[Removed, ...]
    reasons: tuple[Reason, ...]
    degraded: tuple[str, ...]
    dropped: int
    versions: Versions

    def answer(self) -> dict[str, Any]:
        """The document that a caller gets."""
        return {
            "customer_id": self.ask.customer_id,
            "as_of": rfc3339(self.ask.as_of),
            "products": [asdict(product) for product in self.products],
            "reasons": [asdict(reason) for reason in self.reasons],
            "removed": summary(self.removed),
            "degraded": bool(self.degraded),
            "degraded_because": list(self.degraded),
            "versions": asdict(self.versions),
        }


SHOWN = 20
"""Ids shown per rule in an answer; the ledger has all of them."""


def summary(removed: Sequence[Removed]) -> list[dict[str, Any]]:
    """One entry per subject and rule: how many fell to it, and the first ids; in the order they fell."""
    counts = Counter((item.subject, item.rule) for item in removed)
    entries: dict[tuple[str, str], dict[str, Any]] = {}
    for item in removed:
        key = (item.subject, item.rule)
        entry = entries.setdefault(
            key, {"subject": item.subject, "rule": item.rule, "reason": item.reason, "count": counts[key], "ids": []}
        )
        if len(entry["ids"]) < SHOWN:
            entry["ids"].append(item.id)
    return list(entries.values())


def rfc3339(time: datetime) -> str:
    """UTC with a Z, microseconds only where there are any."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")

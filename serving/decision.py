"""The vocabulary of serving: what is asked, what may be done, what was done and why.

An *action* is product × channel × content; *no contact* is the action `None`. The *propensity* of a decision is the
probability with which exactly its action was drawn among all feasible ones, no contact included.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from features.schema import States
from serving.caps import Cap, Contact
from serving.history import Past
from serving.recorded import pack
from serving.removals import Removed as Removed
from serving.removals import Subject as Subject
from serving.removals import summary


@dataclass(frozen=True)
class Message:
    """A message that is given and only has to find its way: about a product, or one content of the catalogue."""

    product_id: str | None = None
    content_id: str | None = None
    worth: float | None = None
    """What it is worth to reach the customer, catalogue currency; None: the channel that works best, at any cost."""


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
    message: Message | None = None
    """What is to be sent (`POST /v1/route`); None: that is the question."""


@dataclass(frozen=True)
class Action:
    """Offer a product through a channel with a content; `content_id` None: the catalogue has no contents at all.

    Only a given message may be about no product.
    """

    product_id: str | None
    channel: str
    content_id: str | None
    text: str | None


@dataclass(frozen=True)
class Candidate:
    """An action that passed every rule, with its expected value; `action` None is no contact, worth 0."""

    action: Action | None
    value: float
    """Catalogue currency, or take-ups where the catalogue declares no margins."""
    factors: Mapping[str, float] | None = None
    """What the value is made of (`serving.value.Factors`)."""

    def document(self, propensity: float) -> dict[str, Any]:
        """As a record has it."""
        action = self.action
        return {
            "product_id": action and action.product_id,
            "channel": action and action.channel,
            "content_id": action and action.content_id,
            "value": self.value,
            "factors": None if self.factors is None else dict(self.factors),
            "propensity": propensity,
        }


NO_CONTACT = Candidate(None, 0.0)


class Columns(Sequence[Candidate]):
    """Candidates that are kept column by column, one of them drawn (`serving.slate`)."""

    @abstractmethod
    def says(self, channel: str) -> Action | None:
        """The best action on a channel for the product that was drawn; None: there is none."""

    @abstractmethod
    def documents(self, propensities: Sequence[float]) -> list[dict[str, Any]]:
        """`Candidate.document` of each."""


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
    rules: str = ""
    """Hash of the declared policies; see `features.policies.version`."""

    def beside(self, models: Mapping[str, str]) -> Versions:
        """The same with further models."""
        return Versions({**self.models, **models}, self.policy, self.features, self.catalog, self.rules)

    def document(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {**vars(self), "models": dict(self.models)}


@dataclass(frozen=True)
class Hop:
    """One channel of a chain: sent at `send_at`; where it failed, or has not arrived by `deadline`, the next follows.

    A message that arrived ends the chain, noticed or not: it is the one contact that the limits allowed.
    """

    channel: str
    send_at: datetime
    deadline: datetime


@dataclass(frozen=True)
class Decision:
    """What was decided, with the candidates it was drawn from."""

    decision_id: str
    ask: Ask
    action: Action | None
    propensity: float
    """Of exactly this action under the whole policy, the lottery of arms included: what the timeline logs."""
    value: float
    candidates: Sequence[Candidate]
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
    arm: str = "agent"
    """Who decided: see `serving.arms`."""
    arm_propensity: float | None = None
    """Of exactly this action given the arm; None: the same as `propensity`."""
    chain: tuple[Hop, ...] = ()
    """The action's channel first; never two at once. Empty for no contact."""
    features: States | None = None
    """What was known of the customer, all views; kept with the record, so that it can be replayed."""
    contact: Contact | None = None
    """What the ledger reserves with this decision; None: the customer is not contacted."""
    caps: tuple[Cap, ...] = ()
    """What that contact has to leave room under."""
    past: Past = field(default_factory=Past)
    """The contacts and responses that the rules looked at; kept with the record, so that it can be replayed."""

    forced: bool = False
    """No contact because what was drawn found no room under a cap, again and again: nothing was drawn."""

    @property
    def consent_version(self) -> int | None:
        """Of the consent that this was decided on; the ledger makes no contact on an older one. None: do not ask."""
        return self.past.consent_version

    @property
    def send_at(self) -> datetime | None:
        """When the action is to be sent; None for no contact."""
        return self.chain[0].send_at if self.chain else None

    def but(self, **changes: Any) -> Decision:
        """`dataclasses.replace`, which asks two dozen fields for their names, in a tenth of the time."""
        changed = object.__new__(Decision)
        changed.__dict__.update(self.__dict__, **changes)
        return changed

    def without_contact(self, decision_id: str, reason: Reason) -> Decision:
        """The decision not to contact after all, for a reason that left no choice."""
        return replace(
            self,
            decision_id=decision_id,
            action=None,
            propensity=1.0,
            value=0.0,
            candidates=(NO_CONTACT,),
            propensities=(1.0,),
            reasons=(reason,),
            fallback_channels=(),
            chain=(),
            contact=None,
            caps=(),
            forced=True,
        )

    def answer(self) -> dict[str, Any]:
        """The document that a caller gets."""
        return dict(self._answer)

    @cached_property
    def _answer(self) -> dict[str, Any]:
        """Made once: the caller gets it, and the record begins with it."""
        return {
            "decision_id": self.decision_id,
            "customer_id": self.ask.customer_id,
            "as_of": rfc3339(self.ask.as_of),
            "purpose": self.ask.purpose,
            "action": None if self.action is None else dict(vars(self.action)),
            "propensity": self.propensity,
            "arm": self.arm,
            "arm_propensity": self.propensity if self.arm_propensity is None else self.arm_propensity,
            "value": self.value,
            "reasons": [dict(vars(reason)) for reason in self.reasons],
            "removed": summary(self.removed),
            "degraded": bool(self.degraded),
            "degraded_because": list(self.degraded),
            "fallback_channels": list(self.fallback_channels),
            "send_at": None if self.send_at is None else rfc3339(self.send_at),
            "chain": [self._hop(hop) for hop in self.chain],
            "versions": self.versions.document(),
        }

    def _hop(self, hop: Hop) -> dict[str, Any]:
        """A hop with what it says: the action's own text, on another channel the best one for the same product."""
        says = self._says(hop.channel)
        return {
            "channel": hop.channel,
            "send_at": rfc3339(hop.send_at),
            "deadline": rfc3339(hop.deadline),
            "content_id": says and says.content_id,
            "text": says and says.text,
        }

    def _says(self, channel: str) -> Action | None:
        chosen = self.action
        if chosen is None or chosen.channel == channel:
            return chosen
        if isinstance(self.candidates, Columns):
            return self.candidates.says(channel)
        same = [
            (candidate.value, candidate.action)
            for candidate in self.candidates
            if candidate.action
            and (candidate.action.product_id, candidate.action.channel) == (chosen.product_id, channel)
        ]
        return max(same, key=lambda one: one[0])[1] if same else None

    def record(self, instead: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The document that the ledger keeps: the answer, the question, and every candidate with its propensity.

        instead: what stands for "features", "candidates" and "removed", all of them or none, for who keeps these in
        another form (`serving.packed_record`).
        """
        ask = self.ask
        document = {
            **self._answer,
            "asked": {
                "eligible": None if ask.eligible is None else list(ask.eligible),
                "channels": None if ask.channels is None else list(ask.channels),
                "language": ask.language,
                "message": None if ask.message is None else asdict(ask.message),
            },
            "features": None,
            "past": self.past.document(),
            "candidates": None,
            "dropped_scores": self.dropped,
            "forced": self.forced,
        }
        if instead is None:
            document["features"] = None if self.features is None else pack(self.features)
            document["candidates"] = self._candidates()
            document["removed"] = [dict(vars(removed)) for removed in self.removed]
        else:
            document |= instead
        return document

    def _candidates(self) -> list[dict[str, Any]]:
        if isinstance(self.candidates, Columns):
            return self.candidates.documents(self.propensities)
        both = zip(self.candidates, self.propensities, strict=True)
        return [candidate.document(propensity) for candidate, propensity in both]


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
            "products": [dict(vars(product)) for product in self.products],
            "reasons": [dict(vars(reason)) for reason in self.reasons],
            "removed": summary(self.removed),
            "degraded": bool(self.degraded),
            "degraded_because": list(self.degraded),
            "versions": self.versions.document(),
        }


def rfc3339(time: datetime) -> str:
    """UTC with a Z, microseconds only where there are any."""
    return time.astimezone(UTC).isoformat()[: -len("+00:00")] + "Z"

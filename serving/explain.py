"""Why: the reasons that go with a decision, each a rule id for machines and a sentence for people."""

from __future__ import annotations

from collections.abc import Sequence
from zoneinfo import ZoneInfo

from features import consent
from features.schema import Bool
from serving.candidates import Offers
from serving.decision import Candidate, Reason, Removed, Subject
from serving.quiet_hours import zone_of
from serving.scoring import Scores
from serving.situation import Value
from serving.slate import Slate


def blocked(known: bool, later: frozenset[str]) -> Reason | None:
    """Why this customer cannot be contacted at all, whatever there is to offer."""
    if not known:
        return Reason("unknown_customer", "nothing is known of this customer at as_of, so neither is consent")
    if consent.NAME in later:
        return Reason(
            "consent_not_known", "the newest consent record is later than as_of; what it was then is not kept"
        )
    return None


def nothing_left(products: Bool, channels: Bool, found: Offers) -> tuple[Reason, ...]:
    """Why there is no offer, the first cause first; empty where there is one."""
    if len(found):
        return ()
    reasons = []
    if not channels.any():
        reasons.append(Reason("no_channel", "no outbound channel is allowed, consented to and in the catalogue"))
    if not products.any():
        reasons.append(Reason("no_product", "every product is held, not eligible or not in the catalogue"))
    return tuple(reasons) or (Reason("no_content", "no content could be rendered, or no score was usable"),)


def all_kept_back(kept_back: Sequence[Removed]) -> tuple[Reason, ...]:
    """Why there is no offer although there were some before control groups and new products were taken out."""
    if not kept_back:
        return ()
    return (Reason("kept_back", "every product left is in a control group or not yet let out to this customer"),)


def why_chosen(slate: Slate, unit: str) -> tuple[Reason, ...]:
    """Whether the best was taken, or another one to learn from."""
    value, top = slate.values[slate.drawn], slate.top
    worth = f"expected value {value:.6g} {unit}"
    if value < top:
        return (Reason("explored", f"{worth}; the best action has {top:.6g}"),)
    if slate.action is None:
        return (Reason("nothing_worth_it", "no action is expected to be worth more than its cost"),)
    return (Reason("highest_value", f"{worth}, the highest of {len(slate) - 1} actions"),)


def fallbacks(candidates: Sequence[Candidate], chosen: Candidate) -> tuple[str, ...]:
    """Other channels for the chosen product, by their best content's value."""
    if chosen.action is None:
        return ()
    best: dict[str, float] = {}
    for candidate in candidates:
        action = candidate.action
        if action and action.product_id == chosen.action.product_id and action.channel != chosen.action.channel:
            best[action.channel] = max(candidate.value, best.get(action.channel, candidate.value))
    return tuple(sorted(best, key=lambda channel: -best[channel]))


def unscored(subject: Subject, scores: Scores) -> tuple[Removed, ...]:
    """The candidates whose scores were dropped."""
    return tuple(Removed(subject, name, "no_score", "its score is not a finite probability") for name in scores.dropped)


def unknown_views(later: frozenset[str]) -> tuple[str, ...]:
    """What a degraded answer says of views whose newest state is later than the moment asked about."""
    return (f"newer than as_of, so unknown: {', '.join(sorted(later))}",) if later else ()


def unknown_zone(named: Value | None, used: ZoneInfo) -> tuple[str, ...]:
    """What a degraded answer says of a customer whose `time_zone` names none."""
    if named is None or zone_of(named) is not None:
        return ()
    return (f"the customer's time_zone is not one of the tz database, {used.key} is used",)


def ruled_out(removed: Sequence[Removed]) -> tuple[Reason, ...]:
    """One reason per declared rule that took something away."""
    first = {gone.rule: gone.reason for gone in reversed(removed)}
    return tuple(Reason(rule, first[rule]) for rule in dict.fromkeys(gone.rule for gone in removed))

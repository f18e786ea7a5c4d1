"""A decision's account as the page shows it: what was done, how likely that was, what else was possible, what was not.

The account (`serving.account`) says it for machines; here it gets the bank's names, its clock and a reader's language.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from serving.console.formats import age, amount, fact, moment, odds, percent
from serving.console.names import Names
from serving.console.sentences import translated

SHOWN = 8
"""Candidates shown at once; the others unfold. The best ones, the chosen one and no contact are always among them."""
CHANGES = 4
"""Changes shown, the smallest first within each kind."""


@dataclass(frozen=True)
class Sentence:
    """What a decision says. foreign: it is English, and the reader's language is another one."""

    text: str
    foreign: bool


@dataclass(frozen=True)
class Why:
    """A reason: the rule's id, and its sentence."""

    rule: str
    sentence: Sentence


@dataclass(frozen=True)
class Choice:
    """A candidate. share: its probability in percent, for a bar."""

    name: str
    content: str | None
    value: str
    probability: str
    share: float
    chosen: bool
    best: bool


@dataclass(frozen=True)
class Gone:
    """What one rule removed."""

    subject: str
    why: Why
    names: tuple[str, ...]


@dataclass(frozen=True)
class Known:
    """A view of the features: its age and its values by name."""

    view: str
    age: str
    values: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class DecisionView:
    decision_id: str
    title: str
    contact: bool
    at: datetime
    when: tuple[str, ...]
    purpose: str
    channel: str | None
    content: str | None
    text: str | None
    chain: tuple[tuple[str, str], ...]
    """What comes next where the one before has not arrived: (until when, channel)."""
    reasons: tuple[Why, ...]
    degraded: tuple[Sentence, ...]
    probability: str
    share: float
    likely: tuple[str, ...]
    arm: str
    choices: tuple[Choice, ...]
    others: tuple[Choice, ...]
    removed: tuple[Gone, ...]
    changes: tuple[str, ...]
    known: tuple[Known, ...]
    counted: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    replay: tuple[bool, str] | None
    """Whether deciding again gave the same, and the sentence that says so; None: it was not asked for."""


def decision_view(account: Mapping[str, Any], names: Names, unit: str, zone: ZoneInfo) -> DecisionView:
    """The page's view of an account; unit: of its values. Times in `zone`."""
    words, action = names.words, account["action"]
    at = datetime.fromisoformat(account["as_of"]).astimezone(zone)
    when = [words("decided_at", time=moment(at, words))]
    if account["send_at"]:
        when.append(words("to_send", time=_clock(account["send_at"], names, zone)))
    shown, others = _choices(account, names, unit)
    return DecisionView(
        decision_id=account["decision_id"],
        title=names.action(action),
        contact=action is not None,
        at=at,
        when=tuple(when),
        purpose=words(f"purpose_{account['purpose']}"),
        channel=names.channel(action["channel"]) if action else None,
        content=action["content_id"] if action else None,
        text=names.message(action),
        chain=tuple(
            (words("then", time=_clock(before["deadline"], names, zone)), names.channel(hop["channel"]))
            for before, hop in zip(account["chain"], account["chain"][1:], strict=False)
        ),
        reasons=tuple(_why(reason, names) for reason in account["reasons"]),
        degraded=tuple(_said(reason, names) for reason in account["degraded_because"]),
        probability=percent(account["propensity"]),
        share=100 * account["propensity"],
        likely=_likely(account, names, unit),
        arm=words(f"arm_{account['arm']}"),
        choices=shown,
        others=others,
        removed=_removed(account["removed"], names),
        changes=_changes(account["would_change"], names, unit),
        known=_known(account["features"] or (), names),
        counted=tuple((words(name), str(len(account["past"][name]))) for name in ("contacts", "responses")),
        versions=_versions(account["versions"], names),
        replay=_replay(account.get("replay"), names),
    )


def _clock(time: str, names: Names, zone: ZoneInfo) -> str:
    return moment(datetime.fromisoformat(time).astimezone(zone), names.words)


def _why(reason: Mapping[str, Any], names: Names) -> Why:
    return Why(reason["rule"], _said(reason["reason"], names))


def _said(english: str, names: Names) -> Sentence:
    sentence = translated(english, names.words.language)
    return Sentence(sentence or english, sentence is None)


def _likely(account: Mapping[str, Any], names: Names, unit: str) -> tuple[str, ...]:
    """What the probability means: how often, why not always, and what it is kept for."""
    words, propensity = names.words, account["propensity"]
    said = [odds(propensity, words)]
    drawn_against = next((one for one in account["would_change"] if one["change"] == "exploration"), None)
    if account["arm"] == "agent" and drawn_against:
        best, more = names.action(drawn_against["instead"]), amount(drawn_against["by"], unit, words)
        said.append(words("likely_explored", best=best, amount=more))
    elif account["arm"] == "agent" and propensity < 1:
        said.append(words("likely_best"))
    in_arm = percent(account["arm_propensity"])
    if in_arm != percent(propensity):
        said.append(words("likely_in_arm", percent=in_arm))
    if propensity < 1:
        said.append(words("likely_logged"))
    return tuple(said)


def _choices(account: Mapping[str, Any], names: Names, unit: str) -> tuple[tuple[Choice, ...], tuple[Choice, ...]]:
    """The candidates by value: those shown at once, and the others."""
    candidates: list[dict[str, Any]] = sorted(account["candidates"], key=lambda one: -one["value"])
    chosen = account["action"] or {"product_id": None, "channel": None, "content_id": None}
    shown: list[Choice] = []
    others: list[Choice] = []
    for place, one in enumerate(candidates):
        is_chosen = all(one[name] == chosen[name] for name in ("product_id", "channel", "content_id"))
        choice = Choice(
            name=names.action(one),
            content=one["content_id"],
            value=amount(one["value"], unit, names.words),
            probability=percent(one["propensity"]),
            share=100 * one["propensity"],
            chosen=is_chosen,
            best=len(candidates) > 1 and one["value"] == candidates[0]["value"],
        )
        always = is_chosen or one["channel"] is None
        (shown if place < SHOWN or always else others).append(choice)
    return tuple(shown), tuple(others)


def _removed(removed: Sequence[Mapping[str, Any]], names: Names) -> tuple[Gone, ...]:
    """One entry per subject, rule and sentence, in the order in which they fell."""
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for gone in removed:
        place = (gone["subject"], gone["rule"], gone["reason"])
        grouped.setdefault(place, []).append(names.subject(gone["subject"], gone["id"]))
    return tuple(
        Gone(names.words(f"subject_{subject}"), _why({"rule": rule, "reason": reason}, names), tuple(ids))
        for (subject, rule, reason), ids in grouped.items()
    )


def _changes(changes: Sequence[Mapping[str, Any]], names: Names, unit: str) -> tuple[str, ...]:
    """Rules and chance before values: they are what a bank can change."""
    order = {"exploration": 0, "rule": 1, "value": 2}
    return tuple(
        names.words(
            f"change_{one['change']}",
            action=names.action(one["instead"]),
            amount=amount(one["by"], unit, names.words),
            rule=one.get("rule", ""),
        )
        for one in sorted(changes, key=lambda one: (order[one["change"]], one["by"]))[:CHANGES]
    )


def _known(features: Sequence[Mapping[str, Any]], names: Names) -> tuple[Known, ...]:
    return tuple(
        Known(
            entry["view"],
            age(entry, names.words),
            tuple((name, fact(value, names.words)) for name, value in (entry["values"] or {}).items()),
        )
        for entry in features
    )


def _versions(versions: Mapping[str, Any], names: Names) -> tuple[tuple[str, str], ...]:
    models = tuple(versions["models"].items())
    rest = ((names.words(f"version_{part}"), versions[part]) for part in ("policy", "features", "catalog", "rules"))
    return (*models, *((name, value) for name, value in rest if value))


def _replay(replay: Mapping[str, Any] | None, names: Names) -> tuple[bool, str] | None:
    if replay is None:
        return None
    if not replay["replayed"]:
        return False, names.words("replay_impossible", reason=replay["reason"])
    if replay["equal"]:
        return True, names.words("replay_equal")
    return False, names.words("replay_differs", names=", ".join(replay["different"]))

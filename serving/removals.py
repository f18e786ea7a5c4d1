"""What was removed from a choice, with what answers and records say of it made once for all who lack the same things.

Most of what is removed is removed from everybody: a pair of product and channel that the catalogue has no content for,
say. Such things are the same objects in every decision, so a run of them is known again by who is in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal, NamedTuple

import orjson

from serving.same import Same

Subject = Literal["customer", "product", "channel", "content", "action"]
SHOWN = 20
"""Ids shown per rule in an answer; the ledger has all of them."""
_KEPT = 256
"""Runs that are kept."""


@dataclass(frozen=True)
class Removed:
    """Something that was not possible: what it was, and the rule that said so."""

    subject: Subject
    id: str
    rule: str
    reason: str


class _Entry(NamedTuple):
    """What fell to a rule: the first reason, how many did, the first ids."""

    reason: str
    many: int
    ids: tuple[str, ...]


class Run(tuple[Removed, ...]):
    """Things that were removed one after the other."""

    @cached_property
    def entries(self) -> dict[tuple[str, str], _Entry]:
        """By subject and rule, in the order they fell."""
        fallen: dict[tuple[str, str], list[Removed]] = {}
        for item in self:
            fallen.setdefault((item.subject, item.rule), []).append(item)
        return {
            key: _Entry(items[0].reason, len(items), tuple(item.id for item in items[:SHOWN]))
            for key, items in fallen.items()
        }

    @cached_property
    def json(self) -> bytes:
        """As a record lists them, without the brackets."""
        return orjson.dumps([vars(item) for item in self])[1:-1]


class Removals(tuple[Removed, ...]):
    """All that was removed from a choice, run by run."""

    runs: tuple[Run, ...]

    def __new__(cls, *runs: Iterable[Removed]) -> Removals:
        held = tuple(run if isinstance(run, Run) else Run(run) for run in runs)
        made = super().__new__(cls, [item for run in held for item in run])
        made.runs = held
        return made

    @property
    def json(self) -> bytes:
        """As a record lists them."""
        return b"[" + b",".join(run.json for run in self.runs if run) + b"]"


def known_again(removed: Sequence[Removed]) -> Run:
    """The run of these objects: the one that was made of the very same before, where there was one lately."""
    return removed if isinstance(removed, Run) else _kept(Same(removed))


@lru_cache(maxsize=_KEPT)
def _kept(same: Same[Sequence[Removed]]) -> Run:
    return Run(same.run)


def counts(removed: Sequence[Removed]) -> Iterator[tuple[tuple[str, str], int]]:
    """How many fell to a rule, by subject and rule; a rule may come several times, once per run."""
    return ((key, entry.many) for run in _runs(removed) for key, entry in run.entries.items())


def summary(removed: Sequence[Removed]) -> list[dict[str, Any]]:
    """One entry per subject and rule: how many fell to it, and the first ids; in the order they fell."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for run in _runs(removed):
        for key, (reason, many, ids) in run.entries.items():
            entry = found.get(key)
            if entry is None:
                subject, rule = key
                found[key] = {"subject": subject, "rule": rule, "reason": reason, "count": many, "ids": list(ids)}
            else:
                entry["count"] += many
                entry["ids"] = [*entry["ids"], *ids][:SHOWN]
    return list(found.values())


def _runs(removed: Sequence[Removed]) -> tuple[Run, ...]:
    return removed.runs if isinstance(removed, Removals) else (Run(removed),)

"""What was removed, run by run: the same as if every thing were looked at by itself."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import orjson
import pytest

from serving.removals import SHOWN, Removals, Removed, Run, known_again, summary
from serving.same import Same


def gone(number: int, rule: str = "held") -> Removed:
    return Removed("product", f"p{number}", rule, f"because of {rule}")


MANY = [gone(number) for number in range(SHOWN + 5)]
RUNS: tuple[list[Removed], ...] = (
    [gone(900, "cap")],
    MANY,
    [],
    [gone(901), gone(902, "cap"), Removed("channel", "sms", "cap", "another subject")],
)


def one_by_one(removed: list[Removed]) -> list[dict[str, object]]:
    """Per subject and rule how many fell to it, and the first ids."""
    keys = dict.fromkeys((item.subject, item.rule) for item in removed)
    entries: list[dict[str, object]] = []
    for key in keys:
        found = [item for item in removed if (item.subject, item.rule) == key]
        ids = [item.id for item in found][:SHOWN]
        entries.append({"subject": key[0], "rule": key[1], "reason": found[0].reason, "count": len(found), "ids": ids})
    return entries


def test_runs_are_one_sequence_with_one_summary_and_one_list() -> None:
    flat = list(chain.from_iterable(RUNS))
    removed = Removals(*RUNS)
    assert removed == tuple(flat)
    assert summary(removed) == summary(flat) == one_by_one(flat)
    assert orjson.loads(removed.json) == [vars(item) for item in flat]
    assert Removals().json == b"[]"
    assert summary(Removals()) == []


def test_a_summary_may_be_changed_without_changing_the_next() -> None:
    run = known_again(MANY)
    for _ in range(2):
        (entry,) = summary(Removals(run))
        assert len(entry["ids"]) == SHOWN
        entry["ids"].clear()


def test_the_same_objects_are_the_same_run_and_equal_ones_are_not() -> None:
    assert known_again(MANY) is known_again(list(MANY))
    assert known_again(known_again(MANY)) is known_again(MANY)
    assert known_again([replace(item) for item in MANY]) is not known_again(MANY)
    assert known_again(MANY[:-1]) == tuple(MANY[:-1])
    assert known_again(MANY[::-1]) == tuple(MANY[::-1])


def test_a_key_holds_its_objects_so_that_none_of_others_can_stand_where_they_stood() -> None:
    places = set()
    for number in range(200):
        key = Same([gone(number)])
        places.add(id(key.run[0]))
        known_again(key.run)
    assert len(places) == 200


@pytest.mark.parametrize("other", [Same([MANY[1]]), Same([MANY[0], MANY[1]]), MANY[0], None])
def test_a_key_is_equal_to_one_of_the_same_objects_only(other: object) -> None:
    assert Same([MANY[0]]) == Same([MANY[0]])
    assert Same([MANY[0]]) != other


def test_a_run_is_summed_up_once() -> None:
    run = Run(MANY)
    assert run.entries is run.entries
    assert run.json is run.json

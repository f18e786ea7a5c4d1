"""Rules for many customers at once agree with the reasons for one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from features import holdings
from features.live import Live, LiveEvent
from features.schema import States
from features.times import micros
from serving.eligibility import BOOKED_WITHIN, just_taken_up, rankable, removed_products
from serving.history import Past, RecordedPast

if TYPE_CHECKING:
    from conftest import World
else:
    World = Any

CUSTOMERS = ["anna", "held", "refuser", "stranger"]
NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
"""The moment of `World.ask`."""


def test_a_held_product_is_not_rankable_unless_it_may_be_held_twice(world: World) -> None:
    decider = world.decider
    moments = np.full(4, world.ask().as_of.timestamp())
    rows = decider.assemble(decider.customers.read(CUSTOMERS), moments, world.schema)
    eligible = [None, None, frozenset({"loan"}), frozenset[str]()]
    assert rankable(rows, decider.catalog, eligible).tolist() == [
        [True, True],
        [False, True],
        [False, True],
        [False, False],
    ]
    for place, wanted in enumerate(eligible):
        one = rows.take([place])
        gone = {item.id for item in removed_products(one, decider.catalog, wanted)}
        shown = rankable(one, decider.catalog, [wanted])[0]
        assert gone == {name for name, show in zip(decider.catalog.product_ids, shown, strict=True) if not show}


def test_one_eligible_set_per_row_is_needed(world: World) -> None:
    decider = world.decider
    rows = decider.assemble(decider.customers.read(CUSTOMERS), np.zeros(4), world.schema)
    with pytest.raises(ValueError, match="one eligible set"):
        rankable(rows, decider.catalog, [None])


def anna(world: World, told: list[LiveEvent]) -> tuple[States, Past]:
    """Anna's states once these events are live, and the past that brings them to a decision."""
    live = Live(world.decider.catalog)
    blob = live.add(None, told)
    return live.merged(world.decider.customers.read(["anna"]), [blob]), Past(live=blob)


def converted(product: str, ago: timedelta = timedelta(hours=1)) -> LiveEvent:
    return LiveEvent("e", micros(NOW - ago), "converted", None, None, product)


def test_what_was_taken_up_a_moment_ago_is_not_offered_although_no_holding_tells_of_it(world: World) -> None:
    states, past = anna(world, [converted("card"), converted("loan")])
    decider = world.with_models(history=RecordedPast(past), merge=Live(world.decider.catalog).merged)
    decision = decider.decide(world.ask(), "d")
    assert {item.id: item.rule for item in decision.removed if item.subject == "product"} == {"card": "just_taken_up"}
    offered = {candidate.action.product_id for candidate in decision.candidates if candidate.action}
    assert offered == {"loan"}, "a loan may be had twice"
    look = decider.look_up(world.ask())
    assert look.situation.held == frozenset({"card"}), "it counts as held for the declared rules too"
    assert states["purchases"].at[0] == look.states["purchases"].at[0]


@pytest.mark.parametrize(
    ("told", "ago", "taken"),
    [
        (None, timedelta(0), True),
        (None, BOOKED_WITHIN, True),
        (None, BOOKED_WITHIN + timedelta(seconds=1), False),
        (None, -timedelta(seconds=1), False),
        (timedelta(hours=2), timedelta(hours=1), True),
        (timedelta(hours=1), timedelta(hours=1), False),
        (timedelta(hours=1), timedelta(hours=2), False),
    ],
)
@pytest.mark.parametrize("part", ["opened_at", "closed_at"])
def test_a_take_up_counts_until_the_holdings_tell_of_the_product_or_should_have(
    world: World, told: timedelta | None, ago: timedelta, taken: bool, part: str
) -> None:
    states, _ = anna(world, [converted("card", ago)])
    if told is not None:
        place = holdings.view(world.decider.catalog).numbers.index(f"card__{part}")
        states[holdings.NAME].numbers[0, place] = (NOW - told).timestamp()
    found = just_taken_up(states, np.array([NOW.timestamp()]), world.decider.catalog)
    assert found.tolist() == [[taken, False]]

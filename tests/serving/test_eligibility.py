"""Rules for many customers at once agree with the reasons for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from serving.eligibility import rankable, removed_products

if TYPE_CHECKING:
    from conftest import World
else:
    World = Any

CUSTOMERS = ["anna", "held", "refuser", "stranger"]


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

"""Which rows next-best-product learns from, to the microsecond, and what their labels are."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest

from training.labels import DAY, ModelNotPossible, cut, take_ups
from training.spine import (
    STEPS,
    Spine,
    default_horizon,
    occasion_rows,
    product_source,
    product_spine,
    snapshot_rows,
    snapshot_times,
)

Days = Callable[[float], int]
CARD, LOAN = 0, 1


def listed(spine: Spine, products: tuple[str, ...] = ("card", "loan")) -> list[tuple[Any, ...]]:
    """(sort, customer, as_of, taken) of each row."""
    names = [{product for product, taken in zip(products, row, strict=True) if taken} for row in spine.taken]
    return list(zip(spine.sort, spine.customer_id, spine.as_of, names, strict=True))


def test_a_take_up_told_by_both_tables_within_a_day_counts_once_at_the_earlier_time(world: Any, day: Days) -> None:
    world.knows(anna=0).opens("anna", 10.0, "card").event("anna", 10.6, "converted", product_id="card")
    world.opens("anna", 20.0, "loan").event("anna", 21.5, "converted", product_id="loan")
    taken = take_ups(world.bank)
    assert list(zip(taken["what"], taken["at"], strict=True)) == [
        (CARD, day(10.0)),
        (LOAN, day(20.0)),
        (LOAN, day(21.5)),
    ]


def test_an_occasion_is_one_microsecond_before_and_holds_everything_taken_then(world: Any, day: Days) -> None:
    world.knows(anna=0, ben=0)
    world.event("anna", 10, "converted", product_id="loan").event("anna", 10, "converted", product_id="card")
    world.event("ben", 12, "converted", product_id="loan")
    bank = world.bank
    spine = occasion_rows(bank, take_ups(bank))
    assert listed(spine) == [
        ("occasion", "anna", day(10) - 1, {"card", "loan"}),
        ("occasion", "ben", day(12) - 1, {"loan"}),
    ]
    assert not spine.outside.any()
    assert list(spine.closes) == [day(10), day(12)]


def test_snapshots_count_back_from_the_end_and_see_only_the_window_after_them(world: Any, day: Days) -> None:
    world.knows(anna=0, ben=45)
    world.event("anna", 40, "converted", product_id="loan")  # at the snapshot itself: known, not a label
    world.event("anna", 70, "converted", product_id="card")  # at the end of the window: a label
    world.event("ben", 71, "converted", product_id="loan")
    bank = world.bank
    for end in (100, 102.4):
        spine = snapshot_rows(bank, take_ups(bank), day(end), 30 * DAY)
        assert sorted(listed(spine)) == [
            ("snapshot", "anna", day(10), {"loan"}),
            ("snapshot", "anna", day(40), {"card"}),
            ("snapshot", "anna", day(70), set()),
            ("snapshot", "ben", day(70), {"loan"}),
        ]
        assert spine.outside.all()
    assert set(snapshot_rows(bank, take_ups(bank), day(102.5), 30 * DAY).as_of) == {day(12.5), day(42.5), day(72.5)}


def test_snapshots_stay_where_they_are_for_most_days() -> None:
    """So that their rows can be used again: they move once in a twelfth of the horizon, and come back after a whole."""
    begin, horizon = 1_000, 12 * STEPS
    ends = [begin + 5 * horizon + passed for passed in range(3 * horizon)]
    seen = [snapshot_times(begin, end, horizon) for end in ends]
    moved = sum(not np.array_equal(earlier, later) for earlier, later in pairwise(seen))
    assert moved == (len(seen) - 1) // (horizon // STEPS)
    assert set(seen[0].tolist()) < set(seen[horizon].tolist())
    for end, times in zip(ends, seen, strict=True):
        assert 0 <= end - (times[0] + horizon) < horizon // STEPS, "closed, and nearly all of the newest labels"
        assert (-np.diff(times) == horizon).all()
        assert begin <= times[-1] < begin + horizon


def test_rows_to_judge_on_count_back_from_the_end(world: Any, day: Days) -> None:
    bank = world.knows(anna=0).event("anna", 40, "converted", product_id="loan").bank
    spine = snapshot_rows(bank, take_ups(bank), day(100), 30 * DAY, since=day(40))
    assert sorted(spine.as_of) == [day(40), day(70)]


def test_entities_are_kept_as_asked_for_and_open_windows_are_counted(world: Any, day: Days, asked: Any) -> None:
    world.knows(anna=0).event("anna", 12, "converted", product_id="loan").event("anna", 50, "visited", channel="web")
    rows = asked(("anna", 11), ("anna", 11), ("nobody", 11), ("anna", 41), ("anna", 12))
    spine = product_spine(world.bank, "entities", day(50), 10 * DAY, rows)
    assert [(row[1], row[3]) for row in listed(spine)] == [
        ("anna", {"loan"}),
        ("anna", {"loan"}),
        ("nobody", set()),
        ("anna", set()),  # the loan at exactly as_of is known by then
    ]
    assert spine.left_out == {"the window was still open": 1}


def test_eligible_lists_limit_what_was_on_offer(world: Any, day: Days, asked: Any) -> None:
    world.knows(anna=0).event("anna", 12, "converted", product_id="loan")
    rows = asked(("anna", 1), ("anna", 2), ("anna", 3), eligible=[frozenset({"card"}), None, frozenset()])
    spine = product_spine(world.bank, "entities", day(50), 10 * DAY, rows)
    assert spine.offered.tolist() == [[True, False], [True, True], [False, False]]


def test_a_campaign_log_gives_one_row_per_offer_with_that_product_or_nothing(world: Any, day: Days) -> None:
    world.knows(anna=0, ben=0)
    offer = {"purpose": "marketing", "channel": "sms"}
    world.event("anna", 1, "decided", product_id="card", decision_id="d1", **offer)
    world.event("ben", 1, "decided", product_id="loan", decision_id="d2", **offer)
    world.event("ben", 2, "decided", product_id="loan", decision_id="d3", purpose="service")
    world.event("ben", 2, "decided", decision_id="d4", purpose="marketing")  # the choice not to contact
    world.event("anna", 3, "decided", product_id="loan", decision_id="d5", **offer)
    world.event("anna", 3, "failed", product_id="loan", decision_id="d5", **offer)
    world.event("anna", 4, "converted", product_id="card", decision_id="d1")
    world.event("ben", 9, "converted", product_id="loan", decision_id="d2")  # after the window
    world.event("ben", 39, "decided", product_id="card", decision_id="d6", **offer)  # open at the end
    bank = world.bank
    assert product_source(bank, None) == "decisions"
    spine = product_spine(bank, "decisions", day(40), 7 * DAY)
    assert listed(spine) == [("decision", "anna", day(1) - 1, {"card"}), ("decision", "ben", day(1) - 1, set())]
    assert spine.offered.tolist() == [[True, False], [False, True]]
    assert spine.outside.all()
    assert spine.left_out == {"the response window was still open": 1}


def test_one_take_up_of_their_own_makes_it_no_campaign_log(world: Any) -> None:
    world.knows(anna=0)
    world.event("anna", 1, "decided", product_id="card", decision_id="d1", purpose="marketing")
    world.event("anna", 4, "converted", product_id="card", decision_id="d1")
    world.event("anna", 9, "converted", product_id="loan")
    assert product_source(world.bank, None) == "occasions"


def test_without_a_take_up_the_model_is_not_possible_and_says_why(world: Any) -> None:
    with pytest.raises(ModelNotPossible, match="no `converted` event names a product"):
        product_source(world.knows(anna=0).event("anna", 1, "visited", channel="web").bank, None)


def test_a_later_fact_changes_neither_rows_nor_labels(world: Any, day: Days) -> None:
    world.knows(**{f"c{n}": n / 10 for n in range(50)})
    for n in range(50):
        world.event(f"c{n}", 20 + n, "converted", product_id=("card", "loan")[n % 2])

    def rows() -> list[tuple[Any, ...]]:
        bank = cut(world.bank, day(80))
        return listed(product_spine(bank, "occasions", day(80), 20 * DAY, cap=20))

    before = rows()
    world.opens("c3", 80.5, "loan").event("c7", 81, "converted", product_id="card").knows(late=90)
    world.event("c49", 80.2, "converted", product_id="loan")
    assert rows() == before
    assert len(before) > 20


def test_sampling_keeps_the_others_when_a_customer_is_added(world: Any, day: Days) -> None:
    world.knows(**{f"c{n}": 0 for n in range(300)})
    for n in range(300):
        world.event(f"c{n}", 1 + n / 10, "converted", product_id="loan")
    before = product_spine(world.bank, "occasions", day(40), 35 * DAY, cap=100)
    world.knows(new=0).event("new", 5, "converted", product_id="card")
    after = product_spine(world.bank, "occasions", day(40), 35 * DAY, cap=100)
    assert 80 < (before.sort == "occasion").sum() <= 100
    assert [row for row in listed(after) if row[1] != "new"] == listed(before)


def test_the_default_horizon_is_90_days_unless_the_data_is_too_short(world: Any, day: Days) -> None:
    bank = world.knows(anna=0).event("anna", 1, "converted", product_id="loan").bank
    spans = {days: default_horizon(bank, "occasions", day(days)) // DAY for days in (400, 359, 30, 10)}
    assert spans == {400: 90, 359: 30, 30: 7, 10: 1}


def test_a_campaign_is_given_the_window_in_which_its_answers_come(world: Any, day: Days) -> None:
    world.knows(anna=0)
    for n in range(200):
        world.event("anna", n, "decided", product_id="loan", decision_id=f"d{n}", purpose="marketing")
        world.event("anna", n + 3, "converted", product_id="loan", decision_id=f"d{n}")
    assert default_horizon(world.bank, "decisions", day(800)) == 7 * DAY
    for n in range(200, 206):  # three in a hundred take three weeks
        world.event("anna", n, "decided", product_id="loan", decision_id=f"d{n}", purpose="marketing")
        world.event("anna", n + 21, "converted", product_id="loan", decision_id=f"d{n}")
    assert default_horizon(world.bank, "decisions", day(800)) == 30 * DAY


def test_rows_come_in_order_of_time(world: Any, day: Days) -> None:
    world.knows(anna=0, ben=0)
    for days in (50, 20, 35):
        world.event("anna", days, "converted", product_id="loan").event("ben", days + 1, "converted", product_id="card")
    spine = product_spine(world.bank, "occasions", day(60), 10 * DAY)
    assert (np.diff(spine.as_of) >= 0).all()
    assert len(spine) == 6 + 2 * 6
    assert isinstance(spine.left_out, dict)


def test_an_entity_row_is_unchanged_by_its_time_zone(world: Any, day: Days, asked: Any) -> None:
    world.knows(anna=0).event("anna", 12, "converted", product_id="loan")
    rows = asked(("anna", 11))
    elsewhere = rows.assign(as_of=rows["as_of"].dt.tz_convert("Asia/Tokyo"))
    spines = [product_spine(world.bank, "entities", day(50), 10 * DAY, frame) for frame in (rows, elsewhere)]
    assert listed(spines[0]) == listed(spines[1])
    assert pd.Timestamp(spines[0].as_of[0], unit="us", tz="UTC") == pd.Timestamp("2024-01-12", tz="UTC")

"""Time-ordered parts with an embargo, and parts by customer."""

from __future__ import annotations

import numpy as np
import pytest

from features.errors import InputError
from training.labels import DAY
from training.split import by_customer, by_time
from training.stable import under_cap

DAYS = np.arange(1000, dtype=np.int64) * DAY
SAME = np.full(1000, "decision", dtype=object)


def test_no_label_of_a_part_reaches_into_the_next_part() -> None:
    closes = DAYS + 30 * DAY
    split = by_time(DAYS, closes, SAME)
    assert split.borders is not None
    begin_valid, begin_test = split.borders
    assert closes[split.train].max() <= begin_valid <= DAYS[split.valid].min()
    assert closes[split.valid].max() <= begin_test <= DAYS[split.test].min()
    assert split.embargoed == 1000 - len(split.train) - len(split.valid) - len(split.test) > 50


def test_without_a_window_the_parts_have_their_shares() -> None:
    split = by_time(DAYS, DAYS + 1, SAME)
    assert [round(len(part) / 1000, 2) for part in (split.train, split.valid, split.test)] == [0.7, 0.15, 0.15]


def test_a_window_that_just_closes_at_the_border_is_kept() -> None:
    grid = np.array([300, 600, 900], dtype=np.int64) * DAY
    as_of = np.array([0, 300, 600, 900] * 10, dtype=np.int64) * DAY
    split = by_time(as_of, as_of + 300 * DAY, np.full(40, "snapshot", dtype=object), grid)
    assert split.embargoed == 0
    assert split.borders is not None
    assert set(split.borders) <= set(grid)


def test_every_part_has_rows_of_every_sort() -> None:
    snapshots = np.repeat(np.array([100, 400, 700], dtype=np.int64) * DAY, 50)
    occasions = DAYS
    as_of = np.concatenate([snapshots, occasions])
    closes = np.concatenate([snapshots + 300 * DAY, occasions + 1])
    sort = np.array(["snapshot"] * 150 + ["occasion"] * 1000, dtype=object)
    split = by_time(as_of, closes, sort, np.array([100, 400, 700], dtype=np.int64) * DAY)
    for part in (split.train, split.valid, split.test):
        assert set(sort[part]) == {"snapshot", "occasion"}


def test_a_horizon_that_does_not_fit_three_times_is_refused_with_what_to_do() -> None:
    with pytest.raises(InputError, match="use a shorter --horizon, more data, or --split customer"):
        by_time(DAYS, DAYS + 600 * DAY, SAME)


def test_a_customer_is_in_one_part_only_and_stays_there_when_others_come() -> None:
    ids = np.array([f"c{number % 200}" for number in range(1000)], dtype=object)
    split = by_customer(ids)
    parts = [set(ids[part]) for part in (split.train, split.valid, split.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 200
    more = np.concatenate([np.array(["new"], dtype=object), ids])
    again = by_customer(more)
    assert {*more[again.test]} - {"new"} == parts[2]


def test_rows_under_the_cap_are_all_kept_and_above_it_a_uniform_share() -> None:
    ids = np.array([f"c{number}" for number in range(1000)], dtype=object)
    assert under_cap(ids, DAYS, 1000).all()
    kept = under_cap(ids, DAYS, 500)
    assert 400 < kept.sum() <= 500
    assert abs(DAYS[kept].mean() - DAYS.mean()) < 30 * DAY

"""Rows that are kept are the rows that would be computed, and only while the facts behind them are the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from features.assemble import row_schema
from features.build import features_fingerprint
from features.home import Build, Home
from features.importing import Bank, write_bank
from features.schema import Attribute, Int64, Rows, RowSchema, Texts
from features.times import micros
from training.dataset import rows_at
from training.facts_by_day import facts_by_day
from training.labels import DAY
from training.row_store import RowStore

SCHEMA = RowSchema(
    ("card", "loan"), (True, False), ("app",), (Attribute("age", "number"), Attribute("city", "text")),
    (("city", ("Rome", "Bonn")),), "UTC", ("age", "city = Rome", "city = Bonn", "hour"), ("held", "bought"), ("opens",),
)  # fmt: skip
ODD = np.array([np.nan, -0.0, 0.0, np.inf, 1e-45], np.float32)
ODD_BITS = np.array([0x7FC00001, 0xFFC00000], np.uint32).view(np.float32)
"""Numbers that a careless store makes equal."""


class Computer:
    """Rows whose values follow from the customer and the moment; remembers what it was asked."""

    def __init__(self, schema: RowSchema = SCHEMA) -> None:
        self.schema = schema
        self.asked: list[tuple[str, int]] = []

    def __call__(self, customer_id: Texts, as_of: Int64) -> Rows:
        self.asked += list(zip(customer_id.tolist(), as_of.tolist(), strict=True))
        return self.rows(customer_id, as_of)

    def rows(self, customer_id: Texts, as_of: Int64) -> Rows:
        pairs = zip(customer_id, as_of, strict=True)
        lots = [np.random.default_rng([*name.encode(), moment % DAY]) for name, moment in pairs]
        odd = np.concatenate([ODD, ODD_BITS])

        def values(*names: str) -> Any:
            drawn = np.array([[hash_of(name) for name in names] for _ in lots], np.float32)
            drawn += np.array([lot.normal() for lot in lots], np.float32)[:, None]
            return np.where(drawn > 0.5, odd[np.abs(drawn * 1e3).astype(int) % len(odd)], drawn)

        n, names = len(customer_id), self.schema.customer_names
        return Rows(
            values(*names).reshape(n, len(names)),
            values("a", "b", "c", "d").reshape(n, 2, 2),
            values("e").reshape(n, 1, 1),
            np.array([lot.random(2) < 0.5 for lot in lots]).reshape(n, 2),
            np.array([lot.random(1) < 0.5 for lot in lots]).reshape(n, 1),
            self.schema,
        )


def hash_of(name: str) -> float:
    return sum(name.encode()) / 1000


def same(one: Rows, other: Rows) -> bool:
    parts = ("customer", "product", "channel", "held", "opted_out")
    return all(getattr(one, part).tobytes() == getattr(other, part).tobytes() for part in parts)


@pytest.fixture
def built(tmp_path: Path) -> Callable[[Bank], Build]:
    """The build of a bank, as far as the store looks at it."""

    def make(bank: Bank) -> Build:
        fingerprint = features_fingerprint(bank.fingerprint, ())
        build = Build(tmp_path / "builds" / fingerprint[:16], fingerprint, (), datetime(2024, 1, 1, tzinfo=UTC))
        if not build.bank_folder.exists():
            write_bank(bank, build.bank_folder)
        return build

    return make


@pytest.fixture
def spine(day: Callable[[float], int]) -> tuple[Texts, Int64]:
    """Anna and ben at the ends of days 1, 2 and 3, the last of anna twice."""
    names = np.array(["ben", "anna", "anna", "ben", "anna", "anna"], dtype=object)
    return names, np.array([day(1.9), day(1.9), day(2.9), day(2.9), day(3.9), day(3.9)], np.int64)


def told(world: Any) -> Any:
    """Something of both customers on each of the days 1, 2 and 3."""
    world.knows(anna=0, ben=0)
    for number in (1, 2, 3):
        world.event("anna", number, "visited", channel="app").event("ben", number + 0.1, "visited", channel="web")
    return world


def test_kept_rows_are_the_computed_ones_to_the_last_bit_and_nothing_is_computed_twice(
    world: Any, built: Any, spine: Any
) -> None:
    build, compute = built(told(world).bank), Computer()
    first, again = RowStore.beside(build), RowStore.beside(build)
    wanted = compute.rows(*spine)
    assert same(first.rows(build, *spine, SCHEMA, compute), wanted)
    assert len(compute.asked) == 5, "a customer and a moment that come twice are computed once"
    assert same(again.rows(build, *spine, SCHEMA, compute), wanted)
    assert len(compute.asked) == 5
    assert (first.reused, first.computed, again.reused, again.computed) == (0, 6, 6, 0)


def test_the_store_is_taken_across_builds_while_only_later_facts_come(world: Any, built: Any, spine: Any) -> None:
    compute = Computer()
    today = built(told(world).bank)
    RowStore.beside(today).rows(today, *spine, SCHEMA, compute)
    tomorrow = built(world.event("anna", 4, "visited", channel="web").bank)
    store = RowStore.beside(tomorrow)
    assert tomorrow.fingerprint != today.fingerprint
    assert same(store.rows(tomorrow, *spine, SCHEMA, compute), compute.rows(*spine))
    assert (store.reused, store.computed) == (6, 0)


def test_a_fact_that_arrives_late_takes_back_the_rows_of_its_day_and_after(
    world: Any, built: Any, spine: Any, day: Any
) -> None:
    compute = Computer()
    today = built(told(world).bank)
    RowStore.beside(today).rows(today, *spine, SCHEMA, compute)
    late = built(world.event("ben", 2.95, "visited", channel="web").event("ben", 5, "visited", channel="web").bank)
    store = RowStore.beside(late)
    compute.asked.clear()
    store.rows(late, *spine, SCHEMA, compute)
    assert {moment for _, moment in compute.asked} == {day(2.9), day(3.9)}, "of every customer: the market has moved"
    assert (store.reused, store.computed) == (2, 4)


@pytest.mark.parametrize(
    "change",
    [
        lambda world: world.timeline[0].update(channel="web"),
        lambda world: world.timeline.pop(0),
        lambda world: world.timeline.append({**world.timeline[0], "event_id": "twice"}),
        lambda world: world.opens("anna", 1.0, "card"),
        lambda world: world.customers.update(cem=0),
    ],
    ids=["another value", "one less", "one more", "another table", "another customer"],
)
def test_any_change_of_an_early_fact_takes_back_everything_after_it(
    world: Any, built: Any, spine: Any, change: Callable[[Any], object]
) -> None:
    compute = Computer()
    before = built(told(world).bank)
    RowStore.beside(before).rows(before, *spine, SCHEMA, compute)
    change(world)
    after = built(world.bank)
    store = RowStore.beside(after)
    store.rows(after, *spine, SCHEMA, compute)
    assert (store.reused, store.computed) == (0, 6)


def test_an_event_of_the_ledger_counts_with_the_time_at_which_it_became_known(world: Any, built: Any, day: Any) -> None:
    told(world).serves("anna", 1.5, "opened", known=1.5, channel="app")
    before = facts_by_day(built(world.bank))
    world.served[0]["created_timestamp"] = datetime(2024, 2, 1, tzinfo=UTC)
    after = facts_by_day(built(world.bank))
    moments = np.array([day(0.5), day(1.9), day(3.9)])
    assert (before.at(moments) == after.at(moments)).tolist() == [True, False, False]


def test_rows_of_a_day_that_is_not_over_are_computed_again(world: Any, built: Any, day: Any) -> None:
    """More may come on that day; what came later than the row's own moment is not told apart."""
    compute = Computer()
    spine = np.array(["anna"], dtype=object), np.array([day(3.5)], np.int64)
    for _ in range(2):
        build = built(told(world).bank)
        RowStore.beside(build).rows(build, *spine, SCHEMA, compute)
    assert len(compute.asked) == 2


def test_words_that_change_place_or_come_anew_are_found_by_name(world: Any, built: Any, spine: Any) -> None:
    build = built(told(world).bank)
    RowStore.beside(build).rows(build, *spine, SCHEMA, Computer())
    turned = replace(
        SCHEMA,
        vocabularies=(("city", ("Bonn", "Rome")),),
        customer_names=("age", "city = Bonn", "city = Rome", "hour"),
    )
    other, store = Computer(turned), RowStore.beside(build)
    assert same(store.rows(build, *spine, turned, other), other.rows(*spine))
    assert other.asked == []
    grown = replace(
        SCHEMA,
        vocabularies=(("city", ("Bonn", "Oslo")),),
        customer_names=("age", "city = Bonn", "city = Oslo", "hour"),
    )
    third = Computer(grown)
    assert same(RowStore.beside(build).rows(build, *spine, grown, third), third.rows(*spine))
    assert len(third.asked) == 5, "no kept row has a column for the new word"


def test_another_catalogue_is_another_context(world: Any, built: Any, spine: Any) -> None:
    build = built(told(world).bank)
    RowStore.beside(build).rows(build, *spine, SCHEMA, Computer())
    world.windows = {"card": 7.0}
    other, store = built(world.bank), RowStore.beside(build)
    store.rows(other, *spine, SCHEMA, Computer())
    assert store.reused == 0


def test_a_file_that_is_damaged_is_removed_and_its_rows_are_computed(world: Any, built: Any, spine: Any) -> None:
    build, compute = built(told(world).bank), Computer()
    RowStore.beside(build).rows(build, *spine, SCHEMA, compute)
    (kept,) = (build.folder.parent.parent / "rows").rglob("*.parquet")
    content = kept.read_bytes()
    columns = pq.read_metadata(kept).row_group(0)
    for column in (columns.column(place) for place in range(columns.num_columns)):
        spoilt = bytearray(content)
        spoilt[column.data_page_offset + column.total_compressed_size - 1] ^= 64  # the last byte of its values
        kept.write_bytes(spoilt)
        store = RowStore.beside(build)
        assert same(store.rows(build, *spine, SCHEMA, compute), compute.rows(*spine)), column.path_in_schema
        assert store.computed == 6
    kept.write_bytes(content[: len(content) // 2])
    assert same(store.rows(build, *spine, SCHEMA, compute), compute.rows(*spine))


def test_a_killed_writer_leaves_nothing_that_is_read(world: Any, built: Any, spine: Any) -> None:
    build = built(told(world).bank)

    class Killed(BaseException):
        pass

    def dies(customer_id: Texts, as_of: Int64) -> Rows:
        raise Killed

    with pytest.raises(Killed):
        RowStore.beside(build).rows(build, *spine, SCHEMA, dies)
    store = RowStore.beside(build)
    store.rows(build, *spine, SCHEMA, Computer())
    folder = next((build.folder.parent.parent / "rows").rglob("*.parquet")).parent
    draft = folder / ".1.2.tmp"
    draft.write_bytes(b"half a file")
    os.utime(draft, (0, 0))
    store.rows(build, spine[0], spine[1] + 1, SCHEMA, Computer())
    assert not draft.exists()


def test_two_writers_of_the_same_rows_leave_one_file_and_of_others_two(world: Any, built: Any, spine: Any) -> None:
    build = built(told(world).bank)
    first, second = RowStore.beside(build), RowStore.beside(build)

    def meanwhile(customer_id: Texts, as_of: Int64) -> Rows:
        second.rows(build, customer_id, as_of, SCHEMA, Computer())
        return Computer().rows(customer_id, as_of)

    first.rows(build, *spine, SCHEMA, meanwhile)
    files = list(first.folder.rglob("*.parquet"))
    assert len(files) == 1
    assert not list(first.folder.rglob("*.tmp"))
    first.rows(build, spine[0][:2], spine[1][:2] + 1, SCHEMA, Computer())
    assert len(list(first.folder.rglob("*.parquet"))) == 2


def test_what_was_not_used_for_longest_goes_when_there_is_too_much(world: Any, built: Any, day: Any) -> None:
    build = built(told(world).bank)
    compute = Computer()

    def ask(store: RowStore, moment: int) -> None:
        store.rows(build, np.array(["anna"], dtype=object), np.array([moment], np.int64), SCHEMA, compute)

    wide = RowStore.beside(build)
    for number, moment in enumerate((day(1), day(2))):
        ask(wide, moment)
        for path in wide.folder.rglob("*.parquet"):
            os.utime(path, (path.stat().st_mtime - 100 + number,) * 2)
    ask(wide, day(1))  # used again, so the other one is now the oldest
    size = max(path.stat().st_size for path in wide.folder.rglob("*.parquet"))
    narrow = RowStore(wide.folder, 2 * size)
    ask(narrow, day(3))
    assert len(list(wide.folder.rglob("*.parquet"))) == 2
    compute.asked.clear()
    ask(narrow, day(1))
    assert compute.asked == []
    ask(narrow, day(2))
    assert len(compute.asked) == 1


def test_a_home_that_cannot_be_written_to_costs_time_and_nothing_else(world: Any, built: Any, spine: Any) -> None:
    build, compute = built(told(world).bank), Computer()
    (build.folder.parent.parent / "rows").write_text("a file where the folder should be")
    store = RowStore.beside(build)
    assert same(store.rows(build, *spine, SCHEMA, compute), compute.rows(*spine))
    assert store.trouble


def test_no_rows_are_no_rows(world: Any, built: Any) -> None:
    build = built(told(world).bank)
    none = RowStore.beside(build).rows(build, np.array([], dtype=object), np.array([], np.int64), SCHEMA, Computer())
    assert len(none) == 0


def test_rows_of_the_feature_store_come_back_as_they_were(simulated_home: Home, tmp_path: Path) -> None:
    build = simulated_home.build()
    schema = row_schema(build.bank)
    customers = build.bank.tables["customers"]["customer_id"].to_pylist()[:40]  # type: ignore[index]
    end = micros(build.data_end)
    ids = np.array([*customers, *customers], dtype=object)
    moments = end - np.repeat(np.array([20, 3], np.int64), len(customers)) * DAY
    plain = rows_at(build, ids, moments, schema)
    first, then = RowStore(tmp_path / "rows"), RowStore(tmp_path / "rows")
    rows_at(build, ids[::3], moments[::3], schema, store=first)
    assert same(rows_at(build, ids, moments, schema, store=then), plain), "some kept, some computed beside them"
    assert then.reused == first.computed > 0

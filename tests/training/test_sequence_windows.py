"""Tokens and windows: what a row may know, whatever comes after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from features.catalog import Catalog, Channel, Product
from training.sequence.tokens import HOLDING_OPENED, KINDS, Tokens
from training.sequence.vocabulary import FIELDS, GAP_EDGES, GAPS, Vocabulary, gap_bins, waves
from training.sequence.windows import Asked, Windows, batch, batches

DAY = 86_400.0


def asked_of(tokens: Tokens, *rows: tuple[str, int]) -> Asked:
    customer_id = np.array([name for name, _ in rows], dtype=object)
    as_of = np.array([moment for _, moment in rows], dtype=np.int64)
    return Asked.of(tokens, customer_id, as_of, np.zeros((len(rows), 0), np.float32), "UTC")


def test_all_tables_are_one_history_in_the_order_of_time(world: Any, day: Callable[[float], int]) -> None:
    world.knows(anna=0, bert=0).event("anna", 3, "visited", channel="app").opens("anna", 2, "card")
    world.event("bert", 1, "converted", product_id="loan", value=500.0)
    tokens = Tokens.of(world.bank)
    assert list(tokens.customers[tokens.owner]) == ["anna", "anna", "bert"]
    assert [KINDS[kind] for kind in tokens.kind] == [HOLDING_OPENED, "visited", "converted"]
    assert list(tokens.product) == [0, -1, 1]
    assert list(tokens.channel) == [-1, 0, -1]
    assert tokens.amount[2] == 500.0
    assert list(tokens.at) == [day(2), day(3), day(1)]


def test_a_row_knows_what_happened_up_to_its_moment_and_nothing_later(world: Any, day: Callable[[float], int]) -> None:
    world.knows(anna=0).event("anna", 1, "visited").event("anna", 2, "visited").event("anna", 2, "called")
    tokens = Tokens.of(world.bank)
    asked = asked_of(tokens, ("anna", day(2) - 1), ("anna", day(2)), ("anna", day(0)), ("nobody", day(9)))
    assert list(asked.stop - asked.start) == [1, 3, 0, 0]


def test_an_event_told_late_counts_from_the_moment_it_became_known(world: Any, day: Callable[[float], int]) -> None:
    world.knows(anna=0).event("anna", 3, "visited")
    world.serves("anna", 2, "visited", known=5, channel="app")
    tokens = Tokens.of(world.bank)
    asked = asked_of(tokens, ("anna", day(2)), ("anna", day(3)), ("anna", day(5) - 1), ("anna", day(5)))
    assert list(asked.stop - asked.start) == [0, 1, 1, 2]


def test_words_are_learned_only_from_the_tokens_given(world: Any) -> None:
    catalog = world.knows(anna=0).bank.catalog
    tokens = Tokens.of(world.event("anna", 1, "converted", value=1.0).event("anna", 2, "converted", value=1e6).bank)
    few = Vocabulary.learn(tokens, np.array([0]), catalog)
    assert few.amount_edges == (1.0,)
    assert Vocabulary.from_dict(few.to_dict()) == few
    late = replace(tokens, category=np.array(["rent", "gifts"], dtype=object))
    rent = Vocabulary.learn(late, np.array([0]), catalog)
    assert rent.categories == ("rent",)
    assert list(rent.encode(late).fields[:, FIELDS.index("category")]) == [2, 1]  # 1: a word it has not learned
    assert list(few.encode(tokens).fields[:, FIELDS.index("category")]) == [0, 0]  # 0: no category at all


def test_every_field_of_a_token_has_a_word(world: Any) -> None:
    world.knows(anna=0).event("anna", 1, "visited", channel="sms").event("anna", 2000, "converted", value=-5.0)
    tokens = Tokens.of(world.opens("anna", 3, "loan").bank)
    vocabulary = Vocabulary.learn(tokens, np.arange(3), world.bank.catalog)
    fields = vocabulary.encode(tokens).fields
    assert (fields >= 0).all()
    assert (fields < np.array(vocabulary.sizes)).all()


def test_gaps_fall_into_bins_that_double() -> None:
    seconds = np.array([np.nan, 0.0, 59.0, 60.0, 119.0, 120.0, GAP_EDGES[-1] * 4])
    assert list(gap_bins(seconds)) == [0, 1, 1, 2, 2, 3, GAPS - 1]


def test_clocks_are_those_of_the_bank() -> None:
    noon_utc = np.array([12 * 3600 * 1_000_000], dtype=np.int64)
    shifted = np.array([11 * 3600 * 1_000_000], dtype=np.int64)
    here = waves(np.array([0.0]), noon_utc, "UTC")
    np.testing.assert_allclose(waves(np.array([0.0]), shifted, "Europe/Berlin"), here, atol=1e-6)


def habit(count: int) -> Tokens:
    """One customer with an event each day."""
    at = (np.arange(count) * DAY * 1e6).astype(np.int64)
    none = np.full(count, -1, np.int64)
    empty = np.full(count, None, dtype=object)
    kind = np.arange(count) % 3
    return Tokens(
        np_index(["anna"]), np.zeros(count, np.int64), at, at, kind, none, none, empty, np.full(count, np.nan)
    )


def np_index(names: list[str]) -> Any:
    import pandas as pd

    return pd.Index(names, dtype=object)


@pytest.mark.parametrize("length", [2, 4, 10])
def test_a_row_sees_the_newest_tokens_at_least_half_a_window_of_them(length: int) -> None:
    tokens = habit(40)
    asked = asked_of(tokens, *(("anna", int(tokens.at[k - 1]) if k else -1) for k in range(41)))
    windows = Windows.over(asked, length)
    seen = dict(zip(windows.row.tolist(), np.repeat(windows.begin, windows.ends - windows.starts), strict=True))
    for known in range(41):
        sees = known - seen[known]
        assert sees <= length
        assert sees == known or sees > length // 2
    assert sorted(windows.row) == list(range(41))


def test_a_window_begins_where_it_does_whatever_comes_later() -> None:
    tokens = habit(40)
    few = asked_of(tokens, ("anna", int(tokens.at[20])))
    many = asked_of(tokens, ("anna", int(tokens.at[20])), ("anna", int(tokens.at[39])))
    one, both = Windows.over(few, 8), Windows.over(many, 8)
    assert one.begin[0] in both.begin
    assert int(np.repeat(both.begin, both.ends - both.starts)[both.row == 0][0]) == one.begin[0]


def test_windows_have_an_even_length() -> None:
    with pytest.raises(ValueError, match="even number"):
        Windows.over(asked_of(habit(3), ("anna", 0)), 7)


def test_batches_hold_every_window_once_and_keep_their_size() -> None:
    tokens = habit(300)
    asked = asked_of(
        tokens, *(("anna", int(tokens.at[k])) for k in range(0, 300, 3)), *(("new", 5) for _ in range(200))
    )
    windows = Windows.over(asked, 16)
    for shuffle in (None, np.random.default_rng(0)):
        found = list(batches(windows, 64, 100, shuffle))
        assert sorted(np.concatenate(found)) == list(range(len(windows)))
        for chosen in found:
            part = batch(asked, Vocabulary.learn(tokens, np.arange(300), CATALOG).encode(tokens), windows, chosen)
            assert part.told.size <= 64 or len(chosen) == 1
            assert part.row.size <= 100 or len(chosen) == 1
            assert (part.knows[part.row < 0] == 0).all()


def test_padding_to_a_multiple_adds_nothing_but_padding() -> None:
    tokens = habit(30)
    encoded = Vocabulary.learn(tokens, np.arange(30), CATALOG).encode(tokens)
    asked = asked_of(tokens, ("anna", int(tokens.at[4])), ("anna", int(tokens.at[2])))
    windows = Windows.over(asked, 8)
    plain, padded = (batch(asked, encoded, windows, np.array([0]), multiple) for multiple in (1, 16))
    assert padded.told.shape == (1, 16)
    assert padded.tokens == plain.tokens == 5
    np.testing.assert_array_equal(padded.fields[:, :5], plain.fields)
    assert set(padded.row[0].tolist()) == {0, 1, -1}


CATALOG = Catalog("EUR", "UTC", (Product("card", "Card"),), (Channel("app", "App"),))

"""Rows are read off by a plan: cell by cell what the views say, to the last bit, for one customer as for many."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from features import assemble as assembling
from features import consent, engagement, holdings, market, profile, purchases, transactions
from features.assemble import assemble
from features.catalog import Catalog, Channel, Product
from features.columns import Purpose
from features.folds import DAY
from features.schema import Attribute, AttributeKind, Bool, Float32, Float64, RowSchema, State, States

KINDS: tuple[tuple[AttributeKind, ...], ...] = ((), ("number", "text", "date", "flag", "text"), ("date",), ("text",))
ZONES = ("UTC", "Europe/Berlin", "Asia/Kolkata")
LARGEST = float(np.finfo(np.float32).max)
VIEWS = (profile, holdings, transactions, engagement, purchases, consent, market)
BLOCKS = ("customer", "product", "channel")
SIZES = [(1, 24, 8), (7, 24, 8), (300, 24, 8), (40, 1, 1), (33, 41, 9), (5, 130, 3), (3, 9, 20), (2, 0, 0)]
"""Customers, products, channels: one and few, more than are worked on together, more products than stand flat."""


def random_world(seed: int, count: int, products: int, channels: int) -> tuple[States, Float64, RowSchema]:
    """States of customers with gaps: never heard of, expired, younger than the moment, missing numbers, absurd ones."""
    draw = np.random.default_rng(seed)
    catalog = Catalog(
        "EUR",
        ZONES[seed % len(ZONES)],
        tuple(Product(f"p{n}", f"P{n}", holdable=n % 2 == 1) for n in range(products)),
        tuple(Channel(f"c{n}", f"C{n}") for n in range(channels)),
    )
    attributes = tuple(Attribute(f"a{n}", kind) for n, kind in enumerate(KINDS[seed % len(KINDS)]))
    as_of = draw.uniform(1.6e9, 1.8e9, count).round(6)
    states = {}
    for view in (
        profile.view(attributes),
        holdings.view(catalog),
        transactions.view(),
        engagement.view(catalog),
        purchases.view(catalog),
        consent.view(catalog),
        market.view(catalog),
    ):
        at = as_of - draw.choice([0.0, 1e3, 1e6, 3e7, 7e7, 4e8, -5.0], count) * draw.uniform(0.5, 1.5, count)
        at[draw.random(count) < 0.2] = np.nan
        shape = (count, len(view.numbers))
        numbers = np.where(
            draw.random(shape) < 0.4,
            as_of[:, None] - draw.uniform(-1e5, 1e8, shape),
            draw.choice([0.0, 1.0, 3.0], shape) * draw.choice([1.0, 1.37, 1e5], shape),
        )
        numbers[draw.random(shape) < 0.25] = np.nan
        numbers[draw.random(shape) < 0.01] = 1e300
        if view.name == engagement.NAME and channels:
            codes = numbers[:, -15::2]
            codes[:] = draw.choice([*range(channels), np.nan], codes.shape)
        texts = np.empty((count, len(view.texts)), dtype=object)
        texts[:] = draw.choice(np.array(["w0", "w1", "w2", "other", None], dtype=object), texts.shape)
        states[view.name] = State(at, numbers, texts)
    words = tuple((one.name, ("w0", "w1", "w2")) for one in attributes if one.kind == "text")
    ids, ways = catalog.product_ids, catalog.channel_ids
    names = ("not looked at",)
    holdable = tuple(product.holdable for product in catalog.products)
    schema = RowSchema(ids, holdable, ways, attributes, words, catalog.time_zone, names, (), ())
    return states, as_of, schema


def reference(states: States, as_of: Float64, schema: RowSchema) -> tuple[Float32, Float32, Float32]:
    """What rows must come to: customer [n, C], product [n, P, K], channel [n, H, L]. Slow, plain, view by view."""
    trusted = {view.NAME: _trusted(states[view.NAME], as_of, view.TTL.total_seconds()) for view in VIEWS}
    products, channels = len(schema.products), len(schema.channels)
    held, opened = _holdings(trusted[holdings.NAME], as_of, products)
    bought = _purchases(trusted[purchases.NAME], as_of, products)
    shares = _market(trusted[market.NAME], as_of, products)
    product = np.concatenate([held[:, :, None], opened[:, :, None], bought, shares], axis=2)
    contacts = _contacts(trusted[engagement.NAME], as_of, channels)
    flat = [held, bought[:, :, 0], bought[:, :, 4]] if products <= 40 else []
    complained = (as_of[:, None] - trusted[consent.NAME].numbers[:, :1]) / DAY
    customer = [
        _profile(trusted[profile.NAME], as_of, schema),
        _calendar(as_of, schema.time_zone),
        _transactions(trusted[transactions.NAME], as_of),
        held.sum(axis=1, keepdims=True),
        bought[:, :, 0].sum(axis=1, keepdims=True),
        _least(bought[:, :, 4])[:, None],
        _engagement(trusted[engagement.NAME], as_of, contacts),
        complained,
        *flat,
        contacts.transpose(0, 2, 1).reshape(len(as_of), contacts.shape[1] * contacts.shape[2]),
    ]
    blocks = (np.concatenate(customer, axis=1), product, contacts)
    a, b, c = (np.clip(block, -LARGEST, LARGEST).astype(np.float32) for block in blocks)
    return a, b, c


def _trusted(state: State, as_of: Float64, ttl: float) -> State:
    """What a state says at a moment; nothing where it is too old, or younger."""
    age = as_of - state.at
    unknown: Bool = ~((age >= 0) & (age <= ttl))
    numbers, texts = state.numbers.copy(), state.texts.copy()
    numbers[unknown], texts[unknown] = np.nan, None
    return State(np.where(unknown, np.nan, state.at), numbers, texts)


def _faded(state: State, as_of: Float64, sums: Float64, taus: list[float]) -> Float64:
    """Sums [n, m, k] as of the moments; 0 where missing. taus: [k]."""
    age = np.nan_to_num(as_of - state.at)
    return np.nan_to_num(sums, posinf=np.inf, neginf=-np.inf) * np.exp(-age[:, None, None] / np.array(taus))


def _profile(state: State, as_of: Float64, schema: RowSchema) -> Float64:
    kinds = [attribute.kind for attribute in schema.attributes if attribute.kind != "text"]
    columns = [
        (as_of - state.numbers[:, place]) / profile.YEAR if kind == "date" else state.numbers[:, place]
        for place, kind in enumerate(kinds)
    ]
    columns += [
        np.array([float(text == word) for text in state.texts[:, place]])
        for place, (_, words) in enumerate(schema.vocabularies)
        for word in words
    ]
    return np.stack(columns, axis=1) if columns else np.empty((len(as_of), 0))


def _calendar(as_of: Float64, time_zone: str) -> Float64:
    rows = []
    for moment in as_of.tolist():
        local = datetime.fromtimestamp(moment, ZoneInfo(time_zone))
        offset = local.utcoffset()
        seconds = moment + (offset.total_seconds() if offset else 0.0)
        hour = (seconds - np.floor(seconds / DAY) * DAY) / 3_600
        angle = np.array([2 * np.pi * hour / 24])
        rows.append([hour, np.sin(angle)[0], np.cos(angle)[0], local.weekday(), local.day])
    return np.array(rows, dtype=np.float64)


def _holdings(state: State, as_of: Float64, products: int) -> tuple[Float64, Float64]:
    numbers = state.numbers.reshape(len(as_of), products, 3)
    return np.nan_to_num(numbers[:, :, 0]), (as_of[:, None] - numbers[:, :, 1]) / DAY


def _transactions(state: State, as_of: Float64) -> Float64:
    taus = np.array([tau for _, tau in transactions.SUMS])
    sums = state.numbers[:, : len(taus)] * np.exp(-(as_of - state.at)[:, None] / taus)
    balance, booked = state.numbers[:, -2], (as_of - state.numbers[:, -1]) / DAY
    return np.column_stack([sums, sums[:, 0] - sums[:, 1], balance, booked])


def _purchases(state: State, as_of: Float64, products: int) -> Float64:
    kinds = len(purchases.SUMS)
    sums = state.numbers[:, : products * kinds].reshape(len(as_of), products, kinds)
    latest = state.numbers[:, products * kinds :].reshape(len(as_of), products, len(purchases.LATEST))
    faded = _faded(state, as_of, sums, [tau for *_, tau in purchases.SUMS])
    return np.concatenate([faded, (as_of[:, None, None] - latest) / DAY], axis=2)


def _least(since: Float64) -> Float64:
    return np.array([np.fmin.reduce(row) if len(row) else np.nan for row in since])


def _market(state: State, as_of: Float64, products: int) -> Float64:
    sums = state.numbers.reshape(len(as_of), products, len(market.SUMS))
    counts = _faded(state, as_of, sums, [tau for _, tau in market.SUMS]) + market.EVIDENCE / max(products, 1)
    for position in range(len(market.SUMS)):
        counts[:, :, position] /= counts[:, :, position].sum(axis=1, keepdims=True)
    return counts


def _contacts(state: State, as_of: Float64, channels: int) -> Float64:
    kinds = len(engagement.SUMS)
    sums = state.numbers[:, : channels * kinds].reshape(len(as_of), channels, kinds)
    start = channels * kinds
    latest = state.numbers[:, start : start + channels * 3].reshape(len(as_of), channels, 3)
    counts = _faded(state, as_of, sums, [tau for *_, tau in engagement.SUMS])
    sent, responded, visits = counts[:, :, 0], counts[:, :, 3], counts[:, :, 5]
    share = (visits + 1.0 / max(channels, 1)) / (visits.sum(axis=1, keepdims=True) + 1.0)
    rate = (responded + engagement.PRIOR_RESPONSES) / (sent + engagement.PRIOR_MESSAGES)
    visited_by, sent_at, sent_by = (state.numbers[:, at:to:2] for at, to in ((-15, -10), (-10, None), (-9, None)))
    was = np.stack([visited_by[:, back, None] == np.arange(channels) for back in range(3)], axis=2)
    last = np.fmax.reduce(latest[:, :, 1], axis=1, initial=-np.inf)
    waiting = ~(sent_at <= last[:, None])
    each = sent_by[:, None, :] == np.arange(channels)[:, None]  # [n, H, K]
    unanswered = (each & waiting[:, None, :]).sum(axis=2)
    since = (as_of[:, None, None] - latest) / DAY
    rest = (share[:, :, None], rate[:, :, None], was, unanswered[:, :, None])
    return np.concatenate([counts, since, *rest], axis=2)


def _engagement(state: State, as_of: Float64, contacts: Float64) -> Float64:
    since = (as_of[:, None] - state.numbers[:, -16:-10:2]) / DAY
    return np.column_stack(
        [
            contacts[:, :, 0].sum(axis=1),
            contacts[:, :, 5].sum(axis=1),
            since,
            since[:, 1:] - since[:, :-1],
            contacts[:, :, -1].sum(axis=1),
        ]
    )


@pytest.mark.parametrize(("seed", "size"), [*enumerate(SIZES)], ids=str)
def test_a_row_says_what_the_views_say_cell_by_cell(seed: int, size: tuple[int, int, int]) -> None:
    states, as_of, schema = random_world(seed, *size)
    rows = assemble(states, as_of, schema)
    for name, told in zip(BLOCKS, reference(states, as_of, schema), strict=True):
        block = getattr(rows, name)
        assert block.dtype == np.float32
        assert block.flags.c_contiguous
        np.testing.assert_array_equal(block, told, err_msg=name)


@pytest.mark.parametrize(("seed", "size"), [*enumerate(SIZES)], ids=str)
def test_a_customer_alone_has_the_same_row_as_among_others(seed: int, size: tuple[int, int, int]) -> None:
    states, as_of, schema = random_world(seed, *size)
    together = assemble(states, as_of, schema)
    for place in range(0, len(as_of), 9):
        alone = assemble(
            {name: state.take(np.array([place])) for name, state in states.items()}, as_of[[place]], schema
        )
        for name in (*BLOCKS, "held", "opted_out"):
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(together, name)[place], err_msg=name)


def test_more_customers_than_are_worked_on_together_keep_their_rows() -> None:
    states, as_of, schema = random_world(1, 2 * assembling.AT_ONCE + 3, 5, 3)
    together, told = assemble(states, as_of, schema), reference(states, as_of, schema)
    np.testing.assert_array_equal(together.customer, told[0])
    np.testing.assert_array_equal(together.product, told[1])


def test_nothing_that_states_hold_is_changed_by_reading_them() -> None:
    states, as_of, schema = random_world(1, 7, 24, 8)
    before = {name: state.take(np.arange(7)) for name, state in states.items()}
    assemble(states, as_of, schema)
    for name, state in states.items():
        np.testing.assert_array_equal(state.numbers, before[name].numbers)
        np.testing.assert_array_equal(state.at, before[name].at)


@pytest.mark.parametrize("view", [view.NAME for view in VIEWS])
def test_states_of_other_views_than_the_rows_are_refused(view: str) -> None:
    states, as_of, schema = random_world(1, 2, 3, 2)
    wider = replace(states[view], numbers=np.zeros((2, states[view].numbers.shape[1] + 1)))
    with pytest.raises(ValueError, match="states hold the numbers that their views say"):
        assemble({**states, view: wider}, as_of, schema)


@pytest.mark.parametrize("channels", [1, 2, 8])
def test_a_refusal_is_read_of_its_own_channel_and_purpose(channels: int) -> None:
    numbers = np.full((2, 1 + 4 * channels), np.nan)
    numbers[:, 0] = 1.0  # the time of a complaint
    for channel in range(channels):
        for place, purpose in enumerate(consent.PURPOSES):
            one = numbers.copy()
            one[1, 1 + 4 * channel + 2 * place :][:2] = 1.7e9, 1.0  # said when, and no
            state = State(np.full(2, 1.7e9), one, np.empty((2, 0), dtype=object))
            for asked in (*consent.PURPOSES, Purpose.MANDATORY):
                found = consent.refused(state, channels, asked)
                assert np.argwhere(found).tolist() == ([[1, channel]] if asked == purpose else [])
    with pytest.raises(ValueError, match="build the features again"):
        consent.refused(State(np.zeros(1), numbers[:1, :-1], np.empty((1, 0), dtype=object)), channels, purpose)


def test_the_calendar_of_many_moments_that_repeat_is_that_of_each() -> None:
    moments = 1.7e9 + 3_600.0 * (np.arange(3 * assembling.FEW) * 7 % 50)
    each = np.concatenate([assembling.calendar(moments[[place]], "Europe/Madrid") for place in range(len(moments))])
    np.testing.assert_allclose(assembling.calendar(moments, "Europe/Madrid"), each, rtol=0, atol=1e-12)

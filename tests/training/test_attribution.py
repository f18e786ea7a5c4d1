"""Which decision a take-up belongs to: what it names, else what the rule says; and never two."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import InputError
from training.attribution import LAST_TOUCH, RULES, SHAPLEY, attribute, journeys, shapley

CARD, LOAN = 0, 1
WINDOW = 10
Offer = tuple[str, int, int, str, str, float]
"""customer, decided at, product, decision, channel, reached after (NaN: never)"""


def offers(*rows: Offer) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["customer_id", "at", "what", "decision_id", "channel", "reached"])
    frame["reached"] += frame["at"]
    return frame.assign(closes=frame["at"] + WINDOW)


def taken(*rows: tuple[str, int, int, str | None]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["customer_id", "at", "what", "decision_id"]).astype({"decision_id": object})


def given_to(rule: str, take_ups: pd.DataFrame, asked: pd.DataFrame) -> list[str | None]:
    found = attribute(rule, take_ups, asked)
    return [None if offer < 0 else asked["decision_id"][offer] for offer in found.offer]


def test_the_last_message_that_reached_the_customer_gets_the_take_up_across_channels() -> None:
    asked = offers(
        ("anna", 0, LOAN, "d1", "mail", 1.0),
        ("anna", 2, LOAN, "d2", "sms", 0.5),
        ("anna", 3, CARD, "other product", "app", 0.0),
        ("anna", 4, LOAN, "never arrived", "app", np.nan),
        ("ben", 5, LOAN, "other customer", "app", 0.0),
        ("anna", 5, LOAN, "too late", "app", 2.0),
    )
    assert given_to(LAST_TOUCH, taken(("anna", 6, LOAN, None)), asked) == ["d2"]


def test_a_closed_window_and_a_message_of_later_lead_to_nothing() -> None:
    asked = offers(("anna", 0, LOAN, "d1", "sms", 0.0))
    times = taken(*(("anna", at, LOAN, None) for at in (-1, 0, WINDOW, WINDOW + 1)))
    assert given_to(LAST_TOUCH, times, asked) == [None, "d1", "d1", None]


@pytest.mark.parametrize("rule", RULES)
def test_what_a_take_up_names_wins_over_every_rule(rule: str) -> None:
    asked = offers(("anna", 0, LOAN, "named", "mail", np.nan), ("anna", 2, LOAN, "last", "sms", 0.0))
    found = attribute(rule, taken(("anna", 3, LOAN, "named"), ("anna", 4, CARD, "last")), asked)
    assert found.offer.tolist() == [0, -1], "a decision is not answered by another product"
    assert found.named.tolist() == [True, False]
    assert given_to(rule, taken(("anna", 3, LOAN, "of another system")), asked) == ["last"]


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=50, deadline=None)
@given(
    times=st.lists(st.tuples(st.integers(0, 40), st.sampled_from(("app", "sms", "mail"))), max_size=8),
    when=st.lists(st.integers(0, 60), max_size=5),
)
def test_every_take_up_counts_at_most_once_and_for_an_open_offer(
    rule: str, times: list[tuple[int, str]], when: list[int]
) -> None:
    rows = [("anna", at, LOAN, f"d{number}", channel, 1.0) for number, (at, channel) in enumerate(times)]
    asked, take_ups = offers(*rows), taken(*(("anna", at, LOAN, None) for at in sorted(when)))
    found = attribute(rule, take_ups, asked)
    for at, offer, credit in zip(take_ups["at"], found.offer, found.credit, strict=True):
        possible = asked[(asked["reached"] <= at) & (at <= asked["closes"])]
        assert (offer >= 0) == (len(possible) > 0)
        assert offer < 0 or (offer in possible.index and 0 < credit <= 1)


def test_a_journey_ends_with_a_take_up_or_when_its_windows_have_closed() -> None:
    asked = offers(
        ("anna", 0, LOAN, "d1", "mail", 0.0),
        ("anna", 5, LOAN, "d2", "sms", 0.0),
        ("anna", 8, LOAN, "d3", "app", 0.0),  # after the take-up: a new journey
        ("anna", 30, LOAN, "d4", "mail", 0.0),
        ("anna", 31, CARD, "d5", "mail", 0.0),
        ("ben", 30, LOAN, "d6", "mail", np.nan),
    )
    counts = journeys(taken(("anna", 6, LOAN, None), ("ben", 31, LOAN, None)), asked)
    assert counts == {frozenset({"mail", "sms"}): (1, 1), frozenset({"app"}): (1, 0), frozenset({"mail"}): (2, 0)}


def test_shares_are_the_mean_gain_over_all_orders_of_the_channels() -> None:
    counts = {
        frozenset({"app"}): (4000, 400),
        frozenset({"sms"}): (4000, 100),
        frozenset({"mail"}): (2000, 100),
        frozenset({"app", "sms"}): (1000, 150),
        frozenset({"app", "mail"}): (1000, 120),
        frozenset({"app", "sms", "mail"}): (500, 90),
    }
    shown, converted = (sum(count[place] for count in counts.values()) for place in (0, 1))
    rate = (converted + 0.5) / (shown + 1)

    def worth(group: frozenset[str]) -> float:
        seen, took = counts.get(group, (0, 0))
        return (took + 20 * rate) / (seen + 20) if group else 0.0

    channels = ("app", "sms", "mail")
    gains = dict.fromkeys(channels, 0.0)
    for order in permutations(channels):
        for place, channel in enumerate(order):
            before = frozenset(order[:place])
            gains[channel] += (worth(before | {channel}) - worth(before)) / 6
    total = sum(gains.values())
    found = shapley(frozenset(channels), counts)
    assert found == pytest.approx({channel: gain / total for channel, gain in gains.items()})
    assert sum(found.values()) == pytest.approx(1)
    assert shapley(frozenset({"sms"}), counts) == {"sms": 1.0}


def test_a_channel_that_only_comes_last_loses_to_the_one_that_convinces() -> None:
    """Mail alone is taken up one time in two, SMS alone never; who got both took it up because of the mail."""
    rows: list[Offer] = []
    take_ups: list[tuple[str, int, int, str | None]] = []
    for number in range(40):
        rows += [(f"m{number}", 0, LOAN, f"dm{number}", "mail", 0.0), (f"s{number}", 0, LOAN, f"ds{number}", "sms", 0)]
        take_ups += [(f"m{number}", 1, LOAN, None)] if number % 2 else []
    rows += [("anna", 0, LOAN, "by mail", "mail", 0.0), ("anna", 2, LOAN, "by sms", "sms", 0.0)]
    take_ups.append(("anna", 3, LOAN, None))
    table, asked = taken(*take_ups), offers(*rows)
    assert given_to(LAST_TOUCH, table, asked)[-1] == "by sms"
    assert given_to(SHAPLEY, table, asked)[-1] == "by mail"
    found = attribute(SHAPLEY, table, asked)
    shares = found.evidence["channels"]["mail + sms"]["shares"]
    assert shares["mail"] > 0.8
    assert found.credit[-1] == pytest.approx(shares["mail"])
    assert attribute(LAST_TOUCH, table, asked).evidence == {}


def test_without_offers_or_take_ups_nothing_is_attributed() -> None:
    for rule in RULES:
        assert attribute(rule, taken(("anna", 1, LOAN, None)), offers()).offer.tolist() == [-1]
        assert len(attribute(rule, taken(), offers(("anna", 0, LOAN, "d", "sms", 0.0))).offer) == 0


def test_a_rule_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match="last-touch-1, shapley-1, however 'last-touch' was asked for"):
        attribute("last-touch", taken(), offers())

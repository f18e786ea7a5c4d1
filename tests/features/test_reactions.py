"""Simulated customers react as the truth says, each reaction after its cause."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from features.columns import Kind
from features.simulation.calendar import DAY
from features.simulation.reactions import BRANCH, IN_APP, VOICE, Reactions, react
from features.simulation.truth import Outcome, Truth
from features.simulation.truth_files import load_truth

MESSAGES = 20_000
RATES = {"reach": 0.8, "open": 0.5, "respond": 0.2, "click": 0.3, "opt_out": 0.05, "complain": 0.02}


@pytest.fixture(scope="module")
def truth(simulated_bank: Path) -> Truth:
    return load_truth(simulated_bank)


def outcome(**rates: float) -> Outcome:
    return Outcome(**{name: np.full(MESSAGES, rate) for name, rate in {**RATES, **rates}.items()})


def reactions(truth: Truth, seed: int = 5, **rates: float) -> Reactions:
    customer = np.arange(MESSAGES) % len(truth.customer_ids)
    channel = np.arange(MESSAGES) % len(truth.channel_ids)
    decided_at = np.full(MESSAGES, 40 * DAY)
    return react(np.random.default_rng(seed), truth, customer, channel, outcome(**rates), decided_at)


def test_what_follows_happens_as_often_as_the_truth_says(truth: Truth) -> None:
    found = reactions(truth)

    def rate(happened: np.ndarray, among: np.ndarray) -> float:
        return float(happened[among].mean())

    everyone = np.ones(MESSAGES, dtype=bool)
    for happened, among, expected in (
        (found.reached, everyone, 0.8),
        (found.opened, found.reached, 0.5),
        (found.responded, found.opened, 0.2),
        (found.clicked, found.opened & ~found.responded, 0.3),
        (found.opt_out, found.reached, 0.05),
        (found.complained, found.reached, 0.02),
    ):
        assert abs(rate(happened, among) - expected) < 4 * np.sqrt(expected * (1 - expected) / among.sum())


def test_nothing_follows_a_message_that_does_not_arrive(truth: Truth) -> None:
    found = reactions(truth, reach=0.0)
    kinds = {event.kind for event in found.happenings() if event.rows.any()}
    assert kinds == {Kind.SENT, Kind.FAILED}
    assert not found.responded.any()


def test_every_effect_comes_after_its_cause_and_only_once(truth: Truth) -> None:
    found = reactions(truth, reach=1.0, open=1.0, respond=1.0)
    assert (found.sent_at > 40 * DAY).all()
    for earlier, later in (
        (found.sent_at, found.arrived_at),
        (found.arrived_at, found.opened_at),
        (found.opened_at, found.clicked_at),
        (found.clicked_at, found.responds_at),
        (found.arrived_at, found.opt_out_at),
    ):
        assert (later > earlier).all()
    kinds = [event.kind for event in found.happenings()]
    assert len(kinds) == len(set(kinds))


def test_each_channel_shows_what_it_can(truth: Truth) -> None:
    found = reactions(truth, reach=1.0, open=1.0, respond=1.0)
    rows = {event.kind: event.rows for event in found.happenings()}
    by_visit = np.isin(found.channel, [IN_APP, BRANCH])
    spoken = np.isin(found.channel, [VOICE, BRANCH])
    assert (rows[Kind.VISITED] == by_visit).all()
    assert (rows[Kind.REPLIED] == spoken).all()
    assert (rows[Kind.CLICKED] == ~spoken).all()
    assert not rows[Kind.OPENED][spoken].any()


def test_an_opt_out_ends_one_channel_or_all(truth: Truth) -> None:
    found = reactions(truth, reach=1.0, opt_out=1.0)
    (event,) = (event for event in found.happenings() if event.kind == Kind.OPTED_OUT)
    assert event.everywhere is not None
    assert 0.08 < event.everywhere.mean() < 0.12


def test_the_same_generator_draws_the_same(truth: Truth) -> None:
    once, again, other = (reactions(truth, seed) for seed in (1, 1, 2))
    assert (once.responds_at == again.responds_at).all()
    assert (once.responds_at != other.responds_at).any()

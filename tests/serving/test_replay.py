"""A recorded decision can be made again and accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pytest

from features.schema import State
from features.views import views
from serving.account import account, replayed_account
from serving.caps import CapReached
from serving.decision import Ask, Decision, Message, Reason
from serving.entries import Entry
from serving.history import Remembered
from serving.ledger import SqliteLedger
from serving.policy import Policy
from serving.recorded import NotReadable, pack, unpack
from serving.replay import replay
from serving.route import decision_for
from serving.value import Factors

if TYPE_CHECKING:
    from conftest import World
else:
    World = Any

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
CUSTOMERS = ("anna", "held", "refuser", "silent", "stranger")


def recorded(decision: Decision) -> bytes:
    """The record as a ledger keeps it."""
    return orjson.dumps({**decision.record(), "recorded_at": decision.ask.as_of})


def questions(world: World, count: int, seed: int) -> list[Ask]:
    """Questions of every kind, about every customer, at many moments, some before anything was known."""
    draw = np.random.default_rng(seed)
    asks = []
    for number in range(count):
        moment = world.ask().as_of + timedelta(hours=float(draw.integers(-4_000, 2_000)), microseconds=number)
        message = (None, None, Message("card"), Message(None, "plain"), Message("loan", None, 3.5))[number % 5]
        asks.append(
            Ask(
                CUSTOMERS[int(draw.integers(len(CUSTOMERS)))],
                moment,
                (None, None, ("card",), ("loan", "yacht"), ())[int(draw.integers(5))] if message is None else None,
                (None, None, ("push",), ("email", "branch"))[int(draw.integers(4))],
                ("marketing", "service", "mandatory")[int(draw.integers(3))],
                (None, "de")[int(draw.integers(2))],
                message,
            )
        )
    return asks


POLICIES = (
    {"id": "often", "kind": "cap", "limit": 6, "days": 30},
    {"id": "monthly", "kind": "cap", "product": "loan", "limit": 2, "calendar": "month"},
    {"id": "adults", "kind": "audience", "product": "loan", "attribute": "age", "min": 45},
    {"id": "held_for", "kind": "reservation", "hours": 48},
)


def replays_bit_equal(world: World, folder: Path, count: int, seed: int = 3) -> Counter[str]:
    """Decide under limits, record, and replay each after all that was decided later. Counts what became of them."""
    with closing(SqliteLedger(folder / "ledger.db")) as ledger:
        limited = replace(world.bank.catalog, policies=POLICIES)
        decider = world.with_models(policy=Policy(0.5, 0.3), catalog=limited, history=Remembered(ledger, {}))
        made: Counter[str] = Counter()
        ids = [f"{number:032x}" for number in range(count)]
        for decision_id, ask in zip(ids, questions(world, count, seed), strict=True):
            decision = decision_for(decider, ask, decision_id)
            try:
                ledger.record(Entry.of(decision, ask.as_of, b"{}", contact=decision.contact, caps=decision.caps))
            except CapReached:  # by a contact that lies ahead of this moment; recorded by nobody, so never replayed
                made["full"] += 1
                continue
            made["contact" if decision.action else "no contact"] += 1
            made.update({removed.rule for removed in decision.removed})
        for decision_id in ids:
            record = ledger.get(decision_id)
            if record is not None:
                found = replay(record, decider)
                assert found.equal, found
                made["equal"] += 1
    assert made["equal"] + made["full"] == count
    assert made["full"] < count / 20, made
    return made


def every_rule_took_part(made: Counter[str], count: int) -> bool:
    """Whether the decisions were worth replaying: contacts and refusals, and each policy removed something."""
    return min(made["contact"], made["no contact"]) > count / 6 and all(made[policy["id"]] for policy in POLICIES[:3])


def test_300_recorded_decisions_replay_bit_equal(world: World, tmp_path: Path) -> None:
    made = replays_bit_equal(world, tmp_path, 300)
    assert every_rule_took_part(made, 300), made


@pytest.mark.proof
def test_10000_recorded_decisions_replay_bit_equal(world: World, tmp_path: Path) -> None:
    # A customer has as many contacts here as in years, and every record brings them: a ledger of 500 is enough.
    made = sum((replays_bit_equal(world, tmp_path / str(seed), 500, seed) for seed in range(20)), Counter())
    assert every_rule_took_part(made, 10_000), made


def test_a_replay_reads_the_recorded_states_and_not_the_present_ones(world: World) -> None:
    class Gone:
        def read(self, customer_ids: object) -> Mapping[str, State]:
            raise AssertionError("a replay never asks the online store")

    record = recorded(world.decider.decide(world.ask(), "1" * 32))
    assert replay(record, replace(world.decider, customers=Gone())).equal


@pytest.mark.parametrize(
    ("field", "value"),
    [("propensity", 0.25), ("value", 1), ("action", None), ("fallback_channels", ["fax"]), ("reasons", [])],
)
def test_a_record_that_was_changed_is_found_out(world: World, field: str, value: object) -> None:
    written = orjson.loads(recorded(world.with_models(policy=Policy(0, 0)).decide(world.ask(), "1" * 32)))
    assert written[field] != value
    found = replay(orjson.dumps({**written, field: value}), world.with_models(policy=Policy(0, 0)))
    assert (found.replayed, found.equal, found.different) == (True, False, (field,))


def test_equal_values_written_otherwise_are_not_bit_equal(world: World) -> None:
    written = orjson.loads(recorded(world.decider.decide(world.ask(), "1" * 32)))
    assert written["dropped_scores"] == 0
    found = replay(orjson.dumps({**written, "dropped_scores": 0.0}), world.decider)
    assert found.different == ("dropped_scores",)


def test_what_moved_on_since_is_named_instead_of_compared(world: World) -> None:
    record = recorded(world.decider.decide(world.ask(), "1" * 32))
    source = world.decider.products.sources[0]
    retrained = replace(world.decider.products, sources=(replace(source, version="8"),))
    found = replay(record, replace(world.decider, products=retrained))
    assert not found.replayed
    assert found.reason == "moved on since: models next-best-product was 7, is 8"
    assert not replay(record, replace(world.decider, catalog_version="other")).replayed
    assert not replay(record, replace(world.decider, policy=Policy(0.7, 0.3))).replayed
    assert found.document() == {"replayed": False, "equal": None, "different": [], "reason": found.reason}


def test_features_that_were_built_again_do_not_hinder_a_replay(world: World) -> None:
    record = recorded(world.decider.decide(world.ask(), "1" * 32))
    assert replay(record, replace(world.decider, features_version="newer")).equal


def test_a_record_of_other_views_is_not_replayed(world: World) -> None:
    written = orjson.loads(recorded(world.decider.decide(world.ask(), "1" * 32)))
    del written["features"]["market"]
    found = replay(orjson.dumps(written), world.decider)
    assert not found.replayed
    assert "features have changed" in str(found.reason)


def test_a_decision_that_was_forced_is_not_replayed(world: World) -> None:
    forced = world.decider.decide(world.ask(), "1" * 32).without_contact("2" * 32, Reason("cap", "full"))
    assert not replay(recorded(forced), world.decider).replayed


def test_states_come_back_as_they_were_to_the_last_bit(world: World) -> None:
    of_world = views(world.bank.catalog, world.bank.attributes)
    states = world.decider.customers.read(["anna"])
    odd = np.array([[np.nan, -0.0, 1e-310, np.nextafter(0.1, 1), 2.0**53 + 2]])
    first = next(view for view in of_world if len(view.numbers) >= 5)
    numbers = states[first.name].numbers.copy()
    numbers[:, :5] = odd
    states = {**states, first.name: replace(states[first.name], numbers=numbers)}
    back = unpack(orjson.loads(orjson.dumps(pack(states))), of_world)
    for name, state in states.items():
        assert back[name].at.tobytes() == state.at.tobytes()
        assert back[name].numbers.tobytes() == state.numbers.tobytes()
        assert back[name].texts.tolist() == state.texts.tolist()
    with pytest.raises(NotReadable):
        unpack({**pack(states), "more": {}}, of_world)


def test_the_account_shows_every_view_with_its_age_and_what_it_said(world: World) -> None:
    decision = world.decider.decide(world.ask(), "1" * 32)
    document = account(recorded(decision), world.decider)
    shown = {entry["view"]: entry for entry in document["features"]}
    profile = shown["profile"]
    assert set(profile["values"].values()) == {"Anna", 40.0}
    assert profile["age_seconds"] == decision.ask.as_of.timestamp() - profile["at"] > 0
    assert shown["holdings"]["age_seconds"] is None
    assert datetime.fromtimestamp(profile["at"], decision.ask.as_of.tzinfo).isoformat() == "2024-01-01T00:00:00+00:00"


def test_the_account_shows_what_the_value_of_every_action_is_made_of(world: World) -> None:
    decision = world.decider.decide(world.ask(), "1" * 32)
    document = account(recorded(decision), world.decider)
    actions = [candidate for candidate in document["candidates"] if candidate["channel"] is not None]
    again = world.decider.worth.total(Factors.stack([candidate["factors"] for candidate in actions]))
    assert len(actions) > 1
    assert again.tolist() == [candidate["value"] for candidate in actions]
    assert document["candidates"][-1]["factors"] is None, "no contact is worth 0 by definition"


def test_the_account_names_the_runner_up_and_the_least_change_of_value_that_makes_it_the_best(world: World) -> None:
    decider = world.with_models(policy=Policy(0, 0))
    decision = decider.decide(world.ask(), "1" * 32)
    document = account(recorded(decision), decider)
    others = sorted((c.value for c in decision.candidates if c.action != decision.action), reverse=True)
    assert document["runner_up"]["value"] == others[0]
    changes = document["would_change"]
    assert changes[0]["change"] == "value"
    assert changes[0]["by"] == decision.value - others[0]
    assert [change["by"] for change in changes] == sorted(change["by"] for change in changes)
    assert len({(change["instead"] or {}).get("product_id") for change in changes}) == len(changes)


def test_the_account_says_when_exploration_decided(world: World) -> None:
    decider = world.with_models(policy=Policy(1.0, 1.0))
    decisions = [decider.decide(world.ask(), f"{number:032x}") for number in range(40)]
    explored = next(found for found in decisions if found.reasons[0].rule == "explored")
    change = account(recorded(explored), decider)["would_change"][0]
    assert change["change"] == "exploration"
    assert change["by"] == max(c.value for c in explored.candidates) - explored.value


def test_the_account_names_the_restriction_that_kept_a_better_action_out(world: World) -> None:
    decider = world.with_models(policy=Policy(0, 0))
    free = decider.decide(world.ask(), "1" * 32)
    bound = decider.decide(world.ask(eligible=("card",)), "1" * 32)
    assert bound.value < free.value
    (change,) = (c for c in replayed_account(recorded(bound), decider)["would_change"] if c["change"] == "rule")
    assert (change["rule"], change["instead"]["product_id"]) == ("not_eligible", "loan")
    assert change["by"] == free.value - bound.value


def test_the_account_names_the_policy_that_kept_a_better_action_out(world: World) -> None:
    adults = {"id": "adults", "kind": "audience", "product": "loan", "attribute": "age", "min": 45}
    limited = replace(world.bank.catalog, policies=(adults,))
    decider = world.with_models(policy=Policy(0, 0), catalog=limited)
    decision = decider.decide(world.ask(), "1" * 32)
    (change,) = (c for c in replayed_account(recorded(decision), decider)["would_change"] if c["change"] == "rule")
    assert (change["rule"], change["instead"]["product_id"]) == ("adults", "loan")


def test_a_prior_that_moved_alone_is_a_reason_not_a_difference(world: World) -> None:
    """It changes what a contact is worth, whoever scores."""
    before = world.with_models(prior=(0.01, 0.02))
    champion, prior = before.products.sources
    after = replace(before, products=replace(before.products, sources=(champion, replace(prior, version="9"))))
    record = recorded(before.decide(world.ask(), "0" * 32))
    assert replay(record, before).equal
    again = replay(record, after)
    assert not again.replayed
    assert "products-prior=9" in str(again.reason)

"""Campaigns: plans over the small bank, the prices they leave, and the decisions that these steer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from features.catalog import Catalog, Channel, Product
from features.errors import ArtefactError, InputError
from features.packed import OnlineStates
from features.schema import Bool, Float64, Rows, RowSchema, States
from features.times import micros
from serving.campaign import Campaign, plan_campaign
from serving.campaign_parts import Terms, Worths
from serving.campaign_rules import CampaignRules
from serving.caps import Contact
from serving.opening import campaign_prices
from serving.policies import Layers
from serving.policy import Policy
from serving.prices import Prices
from serving.question import Question
from serving.worths import Valuer, worths

if TYPE_CHECKING:
    from conftest import World
else:
    World = Any

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
ONE_DAY = Terms()
GREEDY = Policy(temperature=0.0, epsilon=0.0)
SHOP = Catalog(
    "EUR",
    "UTC",
    (Product("card", "Card", group="money", margin=10.0), Product("loan", "Loan", group="money", margin=10.0)),
    (Channel("sms", "SMS", cost=1.0, capacity=2), Channel("app", "App", cost=0.0)),
)


def entities(*customers: str) -> pd.DataFrame:
    times = pd.Series([NOW] * len(customers)).astype("datetime64[us, UTC]")
    return pd.DataFrame({"customer_id": pd.Series(customers, dtype=object), "as_of": times})


def planned(values: Float64, terms: Terms = ONE_DAY, block: int = 100, **caps: Any) -> Campaign:
    """values: [n, P, H] of SHOP; caps: rule = (counts [P, H], left [n])."""
    asked = entities(*(f"c{number}" for number in range(len(values))))

    def blocks() -> Iterator[Worths]:
        for start in range(0, len(values), block):
            part = slice(start, start + block)
            limits = tuple((rule, counts, left[part]) for rule, (counts, left) in caps.items())
            yield Worths(values[part].copy(), limits)

    return plan_campaign(SHOP, "EUR", asked, blocks(), terms)


def worth(customers: int, seed: int = 0) -> Float64:
    return np.random.default_rng(seed).gamma(1.0, 5.0, (customers, 2, 2))


def test_a_plan_names_who_when_what_and_how_with_value_cost_and_price() -> None:
    values = np.full((3, 2, 2), np.nan)
    values[:, 0, 0] = [5.0, 7.0, 3.0]  # all by SMS, of which there are two a day
    found = planned(values)
    assert found.plan.columns.tolist() == [
        "customer_id",
        "as_of",
        "day",
        "product_id",
        "channel",
        "value",
        "cost",
        "price",
    ]
    assert found.plan[["customer_id", "day", "product_id", "channel", "value", "cost"]].to_numpy().tolist() == [
        ["c0", 1, "card", "sms", 5.0, 1.0],
        ["c1", 1, "card", "sms", 7.0, 1.0],
    ]
    assert 3.0 <= found.plan["price"].iloc[0] <= 5.0
    assert (found.value, found.bound, found.gap) == (12.0, pytest.approx(12.0), pytest.approx(0.0))
    assert (found.messages, found.spent, found.possible) == ({"sms": 2, "app": 0}, 2.0, 3)


def test_a_second_day_brings_its_own_capacity_and_no_channel_exceeds_it_on_any_day() -> None:
    values = worth(9)
    values[:, :, 1] = np.nan
    found = planned(values, Terms(days=3, contacts=2))
    assert found.messages["sms"] == 6
    assert found.plan.groupby("day").size().tolist() == [2, 2, 2]
    assert not found.plan.duplicated(["customer_id", "day"]).any()
    assert not found.plan.duplicated(["customer_id", "product_id"]).any()


def test_a_budget_is_kept_and_priced() -> None:
    found = planned(worth(20), Terms(days=5, budget=3.5))
    assert found.spent == 3.0
    assert found.prices.channels["sms"] >= found.prices.budget > 0 == found.prices.channels["app"]
    assert set(found.violations.values()) == {0}


def test_nothing_to_spend_leaves_what_is_free() -> None:
    assert set(planned(worth(5), Terms(budget=0.0)).plan["channel"]) == {"app"}


@pytest.mark.parametrize("contacts", [1, 2])
def test_a_cap_that_is_used_up_bans_and_one_that_is_not_limits(contacts: int) -> None:
    app = np.array([[False, True], [False, True]])
    left = np.array([0, 1, 2, 0, 1, 2])
    found = planned(worth(6), Terms(days=2, contacts=contacts), block=4, cap=(app, left))
    by_app = found.plan[found.plan["channel"] == "app"].groupby("customer_id").size()
    assert all(by_app.get(f"c{number}", 0) <= most for number, most in enumerate(left))
    assert "c0" not in by_app.index
    assert sum(found.violations.values()) == 0
    free = planned(worth(6), Terms(days=2, contacts=contacts))
    assert found.value < free.value


def test_blocks_change_nothing() -> None:
    whole, parts = planned(worth(10), Terms(2, 2, 5.0)), planned(worth(10), Terms(2, 2, 5.0), block=3)
    pd.testing.assert_frame_equal(whole.plan, parts.plan)
    assert whole.prices == parts.prices


def test_customers_nobody_may_contact_give_an_empty_plan_with_all_columns() -> None:
    found = planned(np.full((3, 2, 2), np.nan))
    assert (len(found.plan), found.value, found.gap) == (0, 0.0, 0.0)
    assert "channel" in found.plan


def test_a_customer_listed_twice_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="'anna'"):
        plan_campaign(SHOP, "EUR", entities("ben", "anna", "anna"), iter(()), Terms())
    with pytest.raises(InputError, match="at least one customer"):
        plan_campaign(SHOP, "EUR", entities(), iter(()), Terms())


@pytest.mark.parametrize("wrong", [{"days": 0}, {"contacts": 0}, {"budget": -1.0}, {"budget": float("nan")}])
def test_impossible_terms_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="however it is"):
        Terms(**wrong)


@dataclass(frozen=True)
class FakeChampion:
    """Says the given probabilities whatever the row."""

    question: Question
    row_schema: RowSchema
    says: tuple[float, ...]

    def probabilities(self, rows: Rows, available: Bool) -> Float64:
        return np.where(available, np.array(self.says), np.nan)


def valuer(world: World, policies: tuple[dict[str, Any], ...] = (), contacts: tuple[Contact, ...] = ()) -> Valuer:
    """The champions that `world.with_models()` has too, and rules over a log of contacts."""
    catalog = replace(world.bank.catalog, policies=policies)
    products: Any = FakeChampion(
        Question("next-best-product", catalog.product_ids, "product", "joint", True, 90.0), world.schema, (0.02, 0.01)
    )
    channels: Any = FakeChampion(
        Question("channel-choice", catalog.channel_ids, "channel", "joint", False, 7.0), world.schema, (0.5, 0.25, 0.1)
    )
    made = {contact.customer_id: [contact] for contact in contacts}
    return Valuer(products, channels, world.decider.worth, CampaignRules(Layers.of(catalog), made, {}, 1))


def values(world: World, with_: Valuer, *customers: str, block: int = 100) -> tuple[Float64, list[Worths]]:
    build = world.home.build()

    def newest(_: Any, part: pd.DataFrame) -> States:
        return OnlineStates(build.online_path, build.views).read(part["customer_id"].tolist())

    found = list(worths(build, with_, entities(*customers), block=block, source=newest))
    return np.concatenate([one.value for one in found]), found


def test_every_contact_is_worth_what_the_real_time_decision_says(world: World) -> None:
    """The same actions are possible and have the same value: consent, holdings, contents and all."""
    decider, catalog = world.with_models(), world.bank.catalog
    customers = ("anna", "held", "refuser", "silent", "stranger")
    found, _ = values(world, valuer(world), *customers, block=2)
    assert np.isfinite(found).any(axis=(1, 2)).tolist() == [True, True, True, False, False]
    for row, customer in enumerate(customers):
        offered = {
            (candidate.action.product_id, candidate.action.channel): candidate.value
            for candidate in decider.decide(world.ask(customer), "0").candidates
            if candidate.action
        }
        ours = {
            (catalog.product_ids[product], catalog.channel_ids[channel]): found[row, product, channel]
            for product, channel in np.argwhere(np.isfinite(found[row]))
        }
        assert ours == pytest.approx(offered)


CAP = {"id": "one-mail", "kind": "cap", "channel": "email", "limit": 1, "days": 30}


def test_contacts_of_the_log_use_caps_up_as_of_the_customers_own_moment(world: World) -> None:
    def mail(days: float) -> Contact:
        at = micros(NOW + timedelta(days=days))
        return Contact("anna", at, "email", "loan", None, "marketing", "e1", None)

    email = world.bank.catalog.channel_ids.index("email")
    for days, free in ((-1.0, False), (-31.0, True), (1.0, True)):  # what comes later was not known
        found, blocks = values(world, valuer(world, (CAP,), (mail(days),)), "anna")
        assert np.isfinite(found[0, :, email]).any() == free, days
        rule, counts, left = blocks[0].limits[0]
        assert (rule, left.tolist()) == ("one-mail (email)", [int(free)])
        assert counts[:, email].all()
        assert counts.sum() == len(counts)


def test_a_period_that_ends_within_the_campaign_counts_for_every_day(world: World) -> None:
    period = {"id": "spring", "kind": "period", "product": "loan", "until": NOW + timedelta(days=1, hours=1)}
    base = valuer(world, (period,))
    loan = world.bank.catalog.product_ids.index("loan")
    for days, offered in ((1, True), (2, True), (3, False)):
        found, _ = values(world, replace(base, rules=replace(base.rules, days=days)), "anna")
        assert np.isfinite(found[0, loan]).any() == offered


def prices(push: float, email: float = 0.0) -> Prices:
    return Prices("EUR", NOW - timedelta(days=1), NOW + timedelta(days=1), {"push": push, "email": email}, 0.5)


def test_prices_steer_the_decision_away_from_what_is_scarce(world: World) -> None:
    decider = replace(world.with_models(), policy=GREEDY)
    free = decider.decide(world.ask(), "1")
    assert free.action is not None
    assert free.action.channel == "push"
    steered = replace(decider, prices=prices(push=50.0)).decide(world.ask(), "1")
    assert steered.action is not None
    assert steered.action.channel == "email"
    assert replace(decider, prices=prices(50.0, 50.0)).decide(world.ask(), "1").action is None


def test_a_value_stays_what_the_contact_is_worth_and_the_prices_are_named(world: World) -> None:
    decider = replace(world.with_models(), policy=GREEDY)
    free, priced = decider.decide(world.ask(), "1"), replace(decider, prices=prices(0.01)).decide(world.ask(), "1")
    assert priced.value == free.value
    assert priced.versions.policy == f"{free.versions.policy} prices={prices(0.01).version}"


def test_prices_are_nothing_to_a_service_message_and_outside_their_time(world: World) -> None:
    decider = replace(world.with_models(), policy=GREEDY, prices=prices(50.0, 50.0))
    assert decider.decide(world.ask(purpose="service"), "1").action is not None
    assert decider.decide(world.ask(as_of=NOW + timedelta(days=1)), "1").action is not None


def test_prices_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert Prices.read(tmp_path, "EUR") is None
    written = prices(1 / 3, 0.1)
    assert written.write(tmp_path) == tmp_path / "prices.json"
    read = Prices.read(tmp_path, "EUR")
    assert read == written
    assert read is not None
    assert read.version == written.version != prices(0.3, 0.1).version
    assert [path.name for path in tmp_path.iterdir()] == ["prices.json"]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"unit": "EUR"}', prices(1.0).to_json().replace("1.0", "-1"), prices(1.0).to_json()[:-5]]
)
def test_a_damaged_price_file_is_no_price_and_the_server_says_so(text: str, tmp_path: Path) -> None:
    (tmp_path / "prices.json").write_text(text, encoding="utf-8")
    with pytest.raises(ArtefactError, match=r"plan the campaign again"):
        Prices.read(tmp_path, "EUR")
    found, missing = campaign_prices(tmp_path, "EUR")
    assert found is None
    assert "prices.json" in missing[0]


def test_prices_in_another_unit_are_refused(tmp_path: Path) -> None:
    prices(1.0).write(tmp_path)
    with pytest.raises(ArtefactError, match="take-ups"):
        Prices.read(tmp_path, "take-ups")


def test_a_plan_keeps_its_types_in_the_file(tmp_path: Path) -> None:
    from serving.batch import write_scores

    write_scores(iter([planned(worth(3)).plan]), tmp_path / "plan.parquet")
    kinds = pq.read_schema(tmp_path / "plan.parquet").types
    assert [str(kind) for kind in kinds] == [
        "string",
        "timestamp[us, tz=UTC]",
        "int32",
        "string",
        "string",
        *["double"] * 3,
    ]


def test_silence_about_a_product_is_kept(world: World) -> None:
    rule = {"id": "hush", "kind": "cap", "product": "loan", "limit": 1, "days": 30}
    yesterday = Contact("anna", micros(NOW - timedelta(days=1)), "push", "loan", None, "marketing", "e1", None)
    found, blocks = values(world, valuer(world, (rule,), (yesterday,)), "anna")
    offered = np.isfinite(found[0]).any(axis=1)
    assert dict(zip(world.bank.catalog.product_ids, offered.tolist(), strict=True)) == {"card": True, "loan": False}
    assert blocks[0].limits == ()  # one contact about a product uses its cap up anyway

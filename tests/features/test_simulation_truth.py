"""One simulated bank, held against its own truth: what was logged follows the probabilities that were kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.catalog import load_catalog
from features.errors import InputError
from features.simulate import simulate
from features.simulation.calendar import DAY, month_of
from features.simulation.catalog import CAPS, content_slots
from features.simulation.logging_policy import RANDOM_SHARE, decide
from features.simulation.truth import MONTH_DAYS, Truth, decayed_contacts
from features.simulation.truth_files import held_before, load_decisions, load_truth

CUSTOMERS, MONTHS = 4000, 6
SETTLED = pd.Timedelta(days=20)
START = pd.Timestamp("2024-01-01", tz="UTC")


class World:
    """The tables of the bank as frames, and its truth."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.truth: Truth = load_truth(folder)
        self.catalog = load_catalog(folder / "catalog.toml")
        self.holdings = pq.read_table(folder / "holdings.parquet")
        self.customers = pq.read_table(folder / "customers.parquet").to_pandas()
        self.transactions = pq.read_table(folder / "transactions.parquet")
        self.timeline = pq.read_table(folder / "timeline.parquet").to_pandas()
        self.decisions = load_decisions(folder).to_pandas()
        self.end = START + pd.Timedelta(seconds=float(self.truth.month_starts[-1]))

    def kind(self, *kinds: str) -> pd.DataFrame:
        return self.timeline[self.timeline.kind.isin(kinds)]

    def of_decision(self, kind: str) -> pd.Series:
        """True per decision when it led to an event of that kind."""
        return self.decisions.decision_id.isin(self.kind(kind).decision_id)

    @property
    def chosen(self) -> pd.DataFrame:
        """The decisions with what was chosen, in the order of the truth."""
        names = ["decision_id", "channel", "product_id", "content_id", "propensity"]
        told = self.kind("decided")[names].rename(columns={"propensity": "logged"})
        return self.decisions.merge(told, on="decision_id", validate="one_to_one")

    def seconds(self, times: pd.Series) -> npt.NDArray[np.float64]:
        return (times - START).dt.total_seconds().to_numpy()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("simulated") / "bank"
    simulate(folder, CUSTOMERS, MONTHS, seed=11)
    return World(folder)


def assert_rate(happened: npt.NDArray[np.bool_], probability: npt.NDArray[np.float64], buckets: int = 8) -> None:
    """Counts per bucket of probability lie within 4.5 standard errors of what the probabilities say."""
    order = np.argsort(probability, kind="stable")
    for rows in np.array_split(order, buckets):
        expected, error = probability[rows].sum(), np.sqrt((probability[rows] * (1 - probability[rows])).sum())
        assert abs(happened[rows].sum() - expected) <= 4.5 * error + 1e-9


# --- decisions -------------------------------------------------------------------------------------------------------


def test_every_propensity_is_the_mixture_of_both_arms(world: World) -> None:
    chosen = world.chosen
    mixture = RANDOM_SHARE / chosen.feasible_actions + (1 - RANDOM_SHARE) * chosen.p_business_as_usual
    np.testing.assert_array_equal(chosen.logged, chosen.propensity)
    np.testing.assert_allclose(chosen.logged, mixture, rtol=1e-12)
    assert ((chosen.logged > 0) & (chosen.logged <= 1)).all()
    assert_rate((chosen.arm == "random").to_numpy(), np.full(len(chosen), RANDOM_SHARE), buckets=1)


def test_the_feasible_actions_follow_from_the_tables(world: World) -> None:
    """Counted again from holdings, addresses, consent events and messages sent, for some customers."""
    few = world.timeline[world.timeline.customer_id < "c00000150"]
    consent = few[few.kind.isin(["opted_out", "opted_in"])]
    sent = few[(few.kind == "sent") & (few.purpose == "marketing")]
    slots = np.array([len(content_slots(channel)) for channel in world.catalog.channels])
    compared = capped = refused = 0
    some = world.decisions[world.decisions.customer_id < "c00000150"].reset_index(drop=True)
    customers, times = world.truth.rows_of(list(some.customer_id)), world.seconds(some.event_timestamp)
    everything = held_before(world.holdings, world.truth, customers, times)
    addresses = world.truth.address[month_of(times, world.truth.month_starts), customers]
    for name, own in some.groupby("customer_id"):
        when, free, address = times[own.index], (~everything[own.index]).sum(axis=1), addresses[own.index]
        said, told = consent[consent.customer_id == name], sent[sent.customer_id == name]
        agreed, room = agreement(world, said, when), below_caps(world, told, when)
        expected = 1 + free * ((address & agreed & room) @ slots)
        np.testing.assert_array_equal(own.feasible_actions, expected, err_msg=name)
        compared, capped, refused = compared + len(own), capped + (~room).sum(), refused + (~agreed).sum()
    assert min(compared, capped, refused) > 100


def agreement(world: World, said: pd.DataFrame, when: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """[n, channels]: the last word before `when` on the channel, or on all of them, was not an opt-out."""
    agreed = np.ones((len(when), len(world.truth.channel_ids)), dtype=bool)
    for at, kind, channel in zip(world.seconds(said.event_timestamp), said.kind, said.channel, strict=True):
        about = [channel is None or channel == own for own in world.truth.channel_ids]
        agreed[np.ix_(when > at, about)] = kind == "opted_in"
    return agreed


def below_caps(world: World, told: pd.DataFrame, when: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """[n, channels]: one more message on the channel keeps every cap."""
    at, room = world.seconds(told.event_timestamp), np.ones((len(when), len(world.truth.channel_ids)), dtype=bool)
    for cap in CAPS:
        recent = (at < when[:, None]) & (at > when[:, None] - cap["days"] * DAY)
        concerned = told.channel.to_numpy() == cap.get("channel", told.channel.to_numpy())
        columns = [cap.get("channel") in (None, own) for own in world.truth.channel_ids]
        room[:, columns] &= ((recent & concerned).sum(axis=1) < cap["limit"])[:, None]
    return room


def test_the_random_arm_is_uniform_over_the_feasible_actions(world: World) -> None:
    random = world.chosen[world.chosen.arm == "random"]
    assert_rate(random.channel.isna().to_numpy(), (1 / random.feasible_actions).to_numpy(), buckets=3)
    # A uniform choice gives every channel its share of contents: two templates each, three by e-mail and voice.
    open_to_all = random[random.feasible_actions == random.feasible_actions.max()]
    contacts = open_to_all.dropna(subset="channel").channel
    share = pd.Series({c.id: len(content_slots(c)) for c in world.catalog.channels}) / 16
    counts = contacts.value_counts().reindex(share.index, fill_value=0)
    assert ((counts - share * len(contacts)) ** 2 / (share * len(contacts))).sum() < 30  # chi-square, 6 degrees


def test_inverse_propensities_add_up_to_the_number_of_actions(world: World) -> None:
    """E[1 / propensity] is the number of feasible actions exactly when every action's propensity is its own."""
    excess = 1 / world.decisions.propensity - world.decisions.feasible_actions
    assert abs(excess.mean()) < 4.5 * excess.std() / np.sqrt(len(excess))


def test_the_propensity_is_the_frequency_of_the_choice() -> None:
    """One customer, decided for 200,000 times: chi-square over all 19 actions."""
    draws = 200_000
    products, channels = np.zeros((draws, 12), dtype=bool), np.zeros((draws, 7), dtype=bool)
    products[:, [0, 4, 7]] = True
    channels[:, [2, 3]] = True  # two and three contents
    same = np.ones(draws, dtype=np.int64)
    choice = decide(np.random.default_rng(5), products, channels, same * 0, same * 2, same, same * 0.7)
    assert (choice.feasible == 16).all()
    frame = pd.DataFrame({"content": choice.content, "channel": choice.channel, "p": choice.propensity})
    actions = frame.groupby(["content", "channel"]).p.agg(["size", "min", "max"])
    assert len(actions) == 16
    np.testing.assert_allclose(actions["min"], actions["max"], rtol=1e-12)
    np.testing.assert_allclose(actions["max"].sum(), 1.0, rtol=1e-12)
    expected = draws * actions["max"]
    assert ((actions["size"] - expected) ** 2 / expected).sum() < 50  # chi-square, 15 degrees


def test_where_nothing_is_feasible_the_customer_is_left_alone_for_sure() -> None:
    none, all_channels = np.zeros((50, 12), dtype=bool), np.ones((50, 7), dtype=bool)
    zero = np.zeros(50, dtype=np.int64)
    choice = decide(np.random.default_rng(5), none, all_channels, zero, zero, zero, zero * 0.0)
    assert not choice.contact.any()
    assert (choice.propensity == 1.0).all()


# --- reactions -------------------------------------------------------------------------------------------------------


def test_messages_are_reached_opened_and_answered_as_often_as_the_truth_says(world: World) -> None:
    chosen = world.chosen
    delivered, opened = world.of_decision("delivered"), world.of_decision("opened")
    old = chosen.channel.notna() & (chosen.event_timestamp < world.end - SETTLED)
    shows = chosen.channel.isin(["app_push", "in_app", "email", "wechat"])
    assert_rate(delivered[old].to_numpy(), chosen.p_reach[old].to_numpy())
    seen = old & delivered & shows
    assert_rate(opened[seen].to_numpy(), chosen.p_open[seen].to_numpy())
    assert_rate(
        world.of_decision("opted_out")[old & delivered].to_numpy(), chosen.p_opt_out[old & delivered].to_numpy(), 4
    )
    read = old & opened
    assert_rate((chosen.responded == True)[read].to_numpy(), chosen.p_respond[read].to_numpy(), 4)  # noqa: E712
    np.testing.assert_allclose(chosen.p_take_up, chosen.p_reach * chosen.p_open * chosen.p_respond)


def test_conversions_come_as_often_as_take_ups_are_probable(world: World) -> None:
    """A few customers come by themselves before the message works: never more than one in ten."""
    old = world.decisions.p_take_up.notna() & (world.decisions.event_timestamp < world.end - SETTLED)
    probability = world.decisions.p_take_up[old].to_numpy()
    converted = world.of_decision("converted")[old].to_numpy()
    for rows in np.array_split(np.argsort(probability, kind="stable"), 5):
        expected, error = probability[rows].sum(), np.sqrt(probability[rows].sum())
        assert 0.9 * expected - 4.5 * error < converted[rows].sum() < expected + 4.5 * error


def test_the_truth_read_from_the_files_gives_the_probabilities_again(world: World) -> None:
    """For every contact, from the visible tables: fatigue from messages sent, holdings from the holdings table."""
    truth, chosen = world.truth, world.chosen.dropna(subset="channel")
    customer, when = truth.rows_of(list(chosen.customer_id)), world.seconds(chosen.event_timestamp)
    sent = world.kind("sent").query("purpose == 'marketing'")
    fatigue = decayed_contacts(
        truth.rows_of(list(sent.customer_id)), world.seconds(sent.event_timestamp), customer, when,
        truth.parameters.fatigue_half_life,
    )  # fmt: skip
    outcome = truth.outcome(
        customer,
        chosen.product_id.map(truth.product_ids.index).to_numpy(),
        chosen.channel.map(truth.channel_ids.index).to_numpy(),
        chosen.content_id.map(truth.content_ids.index).to_numpy(),
        when,
        fatigue,
        held_before(world.holdings, truth, customer, when),
    )
    np.testing.assert_allclose(fatigue, chosen.fatigue, atol=1e-6)
    for name in ("reach", "open", "respond", "take_up", "opt_out", "complain"):
        np.testing.assert_allclose(getattr(outcome, name), chosen[f"p_{name}"], rtol=1e-5, err_msg=name)


def test_an_action_is_worth_its_message_beside_what_happens_anyway(world: World) -> None:
    """Take-ups of the offered product within 20 days, of those who got no other message meanwhile, per bucket."""
    truth, chosen = world.truth, world.chosen
    after = chosen.groupby("customer_id").event_timestamp.shift(-1) - chosen.event_timestamp
    alone = chosen[chosen.channel.notna() & (after > SETTLED) & (chosen.event_timestamp < world.end - SETTLED)]
    customer, when = truth.rows_of(list(alone.customer_id)), world.seconds(alone.event_timestamp)
    product = alone.product_id.map(truth.product_ids.index).to_numpy()
    channel = alone.channel.map(truth.channel_ids.index).to_numpy()
    content = alone.content_id.map(truth.content_ids.index).to_numpy()
    held = held_before(world.holdings, truth, customer, when)
    question = (content, when, alone.fatigue.to_numpy(), held, SETTLED.days)
    value = truth.take_up_within(customer, product, channel, *question)
    nothing = truth.take_up_within(customer, product, channel * 0 - 1, *question)
    anyway = truth.organic_within(customer, when, held, SETTLED.days)[np.arange(len(customer)), product]
    np.testing.assert_allclose(nothing, anyway)
    np.testing.assert_allclose(value, anyway + alone.p_take_up * (1 - anyway), rtol=1e-5)

    opened = world.holdings.to_pandas().query("action == 'opened'")
    pairs = alone.merge(opened, on=["customer_id", "product_id"], suffixes=("", "_opened"))
    wait = pairs.event_timestamp_opened - pairs.event_timestamp
    taken = alone.decision_id.isin(pairs[(wait > pd.Timedelta(0)) & (wait < SETTLED)].decision_id).to_numpy()
    assert taken.sum() > 20
    assert_rate(taken, value, buckets=3)


def test_organic_take_ups_follow_their_intensities(world: World) -> None:
    """Openings without a message in a month against the intensities at its start, per product."""
    months = pq.read_table(world.folder / "truth" / "months.parquet").to_pandas()
    opened = world.holdings.to_pandas().query("action == 'opened'")
    sold = world.kind("converted")[["customer_id", "product_id", "event_timestamp"]]
    first = world.customers.groupby("customer_id").event_timestamp.min()
    opened = opened[opened.event_timestamp > opened.customer_id.map(first)]
    alone = opened.merge(sold, how="left", indicator=True).query("_merge == 'left_only'")
    at = world.seconds(alone.event_timestamp)
    month = month_of(at, world.truth.month_starts)
    known = world.seconds(alone.customer_id.map(first)) <= world.truth.month_starts[month]
    counted = alone[known].product_id.value_counts()
    days = np.diff(world.truth.month_starts) / DAY
    expected = {
        product: (months[f"organic_{product}"] * days[months.month] / MONTH_DAYS).sum()
        for product in world.truth.product_ids
    }
    # Within a month an opening ends the chance of another one, so a little less than at its start is due.
    for product, total in expected.items():
        assert 0.8 * total - 5 * np.sqrt(total) < counted.get(product, 0) < 1.1 * total + 5 * np.sqrt(total), product
    assert 0.85 < counted.sum() / sum(expected.values()) < 1.05


def test_customers_come_by_the_channels_they_like(world: World) -> None:
    liking = world.truth.latents.preference[:, world.truth.channel_ids.index("in_app")]
    has_app = world.truth.address[:, :, world.truth.channel_ids.index("in_app")].all(axis=0)
    own = world.kind("visited").query("channel == 'in_app'").customer_id.value_counts()
    visits = own.reindex(list(world.truth.customer_ids), fill_value=0).to_numpy()
    fond, cool = liking > 0.8, liking < -0.8
    assert visits[has_app & fond].mean() > 2 * visits[has_app & cool].mean()
    assert visits[~world.truth.address[-1, :, 1]].sum() == 0


# --- consistency -----------------------------------------------------------------------------------------------------


def test_no_marketing_is_sent_on_a_channel_after_its_opt_out(world: World) -> None:
    events = world.timeline[
        world.timeline.kind.isin(["opted_out", "opted_in"])
        | (world.timeline.kind.isin(["sent", "delivered"]) & (world.timeline.purpose == "marketing"))
    ]
    sent_after = checked = 0
    for _, own in events[events.customer_id.isin(world.kind("opted_out").customer_id)].groupby("customer_id"):
        out: set[str] = set()
        for kind, channel in zip(own.kind, own.channel, strict=True):
            concerned = set(world.truth.channel_ids) if channel is None else {channel}
            out = out | concerned if kind == "opted_out" else out - concerned if kind == "opted_in" else out
            sent_after += kind in ("sent", "delivered") and channel in out
            checked += 1
    assert checked > 2000
    assert sent_after == 0


def test_every_conversion_opens_a_holding_and_holdings_alternate(world: World) -> None:
    holdings = world.holdings.to_pandas()
    opened = holdings[holdings.action == "opened"]
    keys = ["customer_id", "product_id", "event_timestamp"]
    converted = world.kind("converted")
    assert len(converted) > 500
    assert len(converted.merge(opened, on=keys)) == len(converted)
    assert converted.decision_id.notna().all()
    assert not converted.decision_id.duplicated().any()
    assert len(opened) > 2 * len(converted)
    turn = holdings.sort_values("event_timestamp", kind="stable").groupby(["customer_id", "product_id"]).cumcount()
    assert (holdings.action == np.where(turn % 2 == 0, "opened", "closed")).all()


def test_the_events_of_a_message_happen_in_order(world: World) -> None:
    own = world.timeline[world.timeline.decision_id.notna()]
    at = own.pivot_table(index="decision_id", columns="kind", values="event_timestamp", aggfunc="min")
    assert not own.duplicated(["decision_id", "kind"]).any()
    for earlier, later in (
        ("decided", "sent"), ("sent", "delivered"), ("sent", "failed"), ("delivered", "opened"), ("opened", "clicked"),
        ("delivered", "clicked"), ("delivered", "replied"), ("clicked", "converted"), ("replied", "converted"),
        ("delivered", "opted_out"),
    ):  # fmt: skip
        both = at[[earlier, later]].dropna()
        assert len(both) > 10
        assert (both[earlier] < both[later]).all(), (earlier, later)
    assert not (at.delivered.notna() & at.failed.notna()).any()
    told = own[own.message_id.notna() & (own.kind != "opted_out")]
    for name in ("message_id", "channel", "content_id", "product_id"):
        assert told.groupby("decision_id")[name].nunique().max() == 1, name


def test_caps_and_quiet_hours_are_kept(world: World) -> None:
    sent = world.kind("sent").query("purpose == 'marketing'")
    for cap in CAPS:
        counted = sent[sent.channel == cap["channel"]] if "channel" in cap else sent
        later = counted.groupby("customer_id").event_timestamp.shift(-cap["limit"]) - counted.event_timestamp
        assert later.notna().any()
        assert later.min() >= pd.Timedelta(days=cap["days"]), cap["id"]
    hour = sent.event_timestamp.dt.tz_convert("Asia/Shanghai").dt.hour
    assert hour.between(9, 19).all()
    met = world.kind("delivered").query("channel == 'branch'").event_timestamp.dt.tz_convert("Asia/Shanghai").dt.hour
    assert met.between(9, 17).all()


def test_the_tables_are_sorted_lie_in_the_calendar_and_follow_the_first_profile(world: World) -> None:
    first = world.customers.groupby("customer_id").event_timestamp.min()
    assert len(first) == CUSTOMERS
    assert world.timeline.event_id.is_unique
    assert world.timeline.event_id.is_monotonic_increasing
    for table in (world.timeline, world.holdings.to_pandas(), world.transactions.to_pandas(), world.customers):
        assert table.event_timestamp.is_monotonic_increasing
        assert table.event_timestamp.between(START, world.end, inclusive="left").all()
        assert (table.event_timestamp >= table.customer_id.map(first)).all()


def test_a_customer_month_is_as_busy_as_that_of_a_bank(world: World) -> None:
    known = world.seconds(world.customers.groupby("customer_id").event_timestamp.min())
    months = ((world.truth.month_starts[-1] - known) / DAY / MONTH_DAYS).sum()
    assert 8 < len(world.transactions) / months < 15
    assert 2 < len(world.decisions) / months < 4
    assert world.chosen.channel.isna().mean() > 0.15
    assert set(world.kind("sent").purpose) == {"marketing", "service"}
    assert set(world.timeline.kind) == {
        "decided", "sent", "delivered", "failed", "opened", "clicked", "replied", "visited", "called", "converted",
        "opted_out", "opted_in", "complained",
    }  # fmt: skip
    assert set(world.kind("sent").channel) == set(world.truth.channel_ids)


def test_the_balance_runs_with_the_amounts(world: World) -> None:
    for name in ("c00000000", "c00000007"):
        own = world.transactions.filter(pa.compute.equal(world.transactions["customer_id"], name)).to_pandas()
        np.testing.assert_allclose(own.balance.diff().iloc[1:], own.amount.iloc[1:], atol=0.02)


def test_attributes_have_four_types_gaps_and_a_history(world: World) -> None:
    schema = pq.read_schema(world.folder / "customers.parquet")
    types = {str(schema.field(name).type) for name in schema.names}
    assert types == {"string", "timestamp[us, tz=UTC]", "double", "int64", "bool", "date32[day]"}
    gaps = world.customers.isna().mean()
    assert gaps[["birth_date", "gender", "income", "married", "homeowner", "risk_score"]].between(0.01, 0.5).all()
    assert gaps[["region", "segment", "language", "has_app"]].max() == 0
    last = world.customers.groupby("customer_id").tail(1).set_index("customer_id").sort_index()
    first = world.customers.groupby("customer_id").head(1).set_index("customer_id").sort_index()
    assert ((last.children > first.children) & (last.children <= 4)).mean() > 0.01
    assert ((last.region != first.region).mean()) > 0.01
    retired = last[(last.occupation == "retired") & (first.occupation != "retired")]
    assert len(retired) > 5
    assert set(retired.segment) == {"retired"}


def test_contents_fit_their_channels_and_use_only_known_variables(world: World) -> None:
    known = {"product_name", *world.customers.columns}
    longest_region = max(world.customers.region, key=len)
    for content in world.catalog.contents:
        product = next(product for product in world.catalog.products if product.id == content.product_id)
        text = content.template.replace("{{ product_name }}", product.name).replace("{{ region }}", longest_region)
        assert "{" not in text
        assert {"product_name", "region"} <= known
        for channel in world.catalog.channels:
            if content.channel in (None, channel.id) and channel.max_length is not None:
                assert len(text) <= channel.max_length, (content.id, channel.id)
    told = world.kind("decided").dropna(subset="channel")
    by_id = {content.id: content for content in world.catalog.contents}
    language = world.customers.groupby("customer_id").language.first()
    used = told.content_id.map(by_id)
    assert (used.map(lambda c: c.product_id) == told.product_id).all()
    assert (used.map(lambda c: c.language) == told.customer_id.map(language)).all()
    assert [c.channel in (None, channel) for c, channel in zip(used, told.channel, strict=True)].count(False) == 0
    per_product = pd.Series([c.product_id for c in world.catalog.contents if c.channel is None]).value_counts()
    assert set(per_product) == {4}  # two variants in two languages


def test_a_folder_without_a_simulation_has_no_truth(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a simulated bank"):
        load_truth(tmp_path)

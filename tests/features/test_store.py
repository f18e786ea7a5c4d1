"""History and online features through Feast, in a world of three customers whose every state is written down here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from feast.repo_operations import get_repo_files

from features import store
from features.build import store_states
from features.columns import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from features.definitions import SERVICES, check_names
from features.errors import InputError
from features.history import history
from features.home import Build
from features.offline import PointInTimeJob
from features.packed import OnlineStates
from features.packing import key_column
from features.schema import Column, States, View

PROFILE = View("profile", "customer", timedelta(days=30), (Column("income"), Column("Job", "text"), Column("kids")))
CONSENT = View("consent", "customer", timedelta(days=365), (Column("opted_out"),))
MARKET = View("market", "market", timedelta(days=60), (Column("share"), Column("mood", "text")))
VIEWS = (PROFILE, CONSENT, MARKET)
END = 20
"""The day until which features are materialised."""

# key, event day, day on which it became known, then the view's columns
PROFILE_ROWS = [
    ("ann", 0, 0, 1000.0, "clerk", 2.0**53 - 1),
    ("ann", 10, 10, None, "", 0.0),
    ("ann", 12, 25, 1200.0, "Prokuristin 王", 1.0),  # known only after END
    ("bob", 5, 5, 10.0, "first", None),
    ("bob", 5, 6, 20.0, "corrected", None),
    ("cat", 15, 22, 5.0, None, 3.0),  # the only one, and known only after END
]
CONSENT_ROWS = [("ann", 1, 1, 0.0), ("ann", 8, 8, 1.0), ("bob", 19, 19, 1.0)]
MARKET_ROWS = [("all", 0, 0, 0.1, "calm"), ("all", 9, 9, 0.2, None), ("all", 9, 11, 0.3, "späte Zahl")]


def day(number: float) -> datetime:
    return datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=number)


def table(view: View, rows: list[tuple[Any, ...]]) -> pa.Table:
    kinds = {"number": pa.float64(), "text": pa.string()}
    columns = {
        key_column(view): pa.array([row[0] for row in rows], pa.string()),
        EVENT_TIMESTAMP: pa.array([day(row[1]) for row in rows], pa.timestamp("us", "UTC")),
        CREATED_TIMESTAMP: pa.array([day(row[2]) for row in rows], pa.timestamp("us", "UTC")),
    }
    for index, column in enumerate(view.columns, start=3):
        columns[column.name] = pa.array([row[index] for row in rows], kinds[column.kind])
    return pa.table(columns)


def make(folder: Path, tables: dict[View, list[tuple[Any, ...]]], end: float) -> Build:
    build = Build(folder, "f" * 64, tuple(tables), day(end))
    store_states(build, [(view, table(view, rows)) for view, rows in tables.items()])
    store.apply(build)
    store.materialise(build, build.data_end)
    return build


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    tables = {PROFILE: PROFILE_ROWS, CONSENT: CONSENT_ROWS, MARKET: MARKET_ROWS}
    return make(tmp_path_factory.mktemp("world with a 'name'"), tables, END)


def spine(*rows: tuple[str, float]) -> pd.DataFrame:
    times = pd.Series([day(at) for _, at in rows], dtype="datetime64[us, UTC]")
    return pd.DataFrame({"customer_id": pd.Series([key for key, _ in rows], dtype=object), "as_of": times})


def incomes(states: States) -> list[float | None]:
    return [None if np.isnan(value) else value for value in states["profile"].numbers[:, 0]]


def days(states: States, view: str) -> list[float | None]:
    """Event day of each row's state."""
    return [None if np.isnan(at) else (at - day(0).timestamp()) / 86_400 for at in states[view].at]


def assert_same(one: States, other: States) -> None:
    assert list(one) == list(other)
    for name in one:
        np.testing.assert_array_equal(one[name].at, other[name].at, err_msg=name)
        np.testing.assert_array_equal(one[name].numbers, other[name].numbers, err_msg=name)
        assert one[name].texts.tolist() == other[name].texts.tolist(), name


def test_five_rows_come_back_as_five_in_order_though_some_know_nothing_yet(build: Build) -> None:
    states = history(build, spine(("bob", 4), ("ann", 3), ("nobody", 9), ("ann", -1), ("bob", 7)))
    assert incomes(states) == [None, 1000.0, None, None, 20.0]
    assert days(states, "profile") == [None, 0, None, None, 5]
    assert states["profile"].texts[:, 0].tolist() == [None, "clerk", None, None, "corrected"]


def test_equal_rows_of_a_spine_all_come_back(build: Build) -> None:
    states = history(build, spine(("ann", 3), ("bob", 7), ("ann", 3), ("ann", 3)))
    assert incomes(states) == [1000.0, 20.0, 1000.0, 1000.0]
    assert days(states, "market") == [0, 0, 0, 0]


def test_an_event_counts_from_its_very_moment(build: Build) -> None:
    second = 1 / 86_400
    states = history(build, spine(("ann", 8 - second), ("ann", 8), ("ann", 8 + second)))
    assert states["consent"].numbers[:, 0].tolist() == [0.0, 1.0, 1.0]


def test_a_missing_value_of_the_newest_state_is_missing_not_the_older_value(build: Build) -> None:
    states = history(build, spine(("ann", 11)))
    assert incomes(states) == [None]
    assert days(states, "profile") == [10]
    assert states["profile"].texts.tolist() == [[""]]


def test_integers_beyond_float32_and_other_alphabets_stay_exact(build: Build) -> None:
    states = history(build, spine(("ann", 3), ("ann", 26)))
    assert states["profile"].numbers[0, 1] == 9007199254740991
    assert states["profile"].texts[1, 0] == "Prokuristin 王"


def test_a_state_past_its_ttl_is_unknown_and_at_its_ttl_is_not(build: Build) -> None:
    states = history(build, spine(("bob", 35), ("bob", 35.001)))
    assert days(states, "profile") == [5, None]
    assert days(states, "consent") == [19, 19]


def test_of_equal_event_times_the_one_known_last_wins(build: Build) -> None:
    states = history(build, spine(("bob", 5.5), ("bob", 6)))
    assert incomes(states) == [10.0, 20.0]


def test_a_late_fact_is_invisible_until_it_was_known(build: Build) -> None:
    states = history(build, spine(("ann", 24), ("ann", 25), ("cat", 21), ("cat", 22)))
    assert incomes(states) == [None, 1200.0, None, 5.0]
    assert days(states, "profile") == [10, 12, None, 15]


def test_the_market_is_looked_up_at_each_time_whoever_asks(build: Build) -> None:
    states = history(build, spine(("ann", 10), ("nobody", 10), ("bob", 11), ("ann", -1), ("ann", 70)))
    np.testing.assert_array_equal(states["market"].numbers[:, 0], [0.2, 0.2, 0.3, np.nan, np.nan])
    assert states["market"].texts[:, 0].tolist() == [None, None, "späte Zahl", None, None]


def oracle(view: View, rows: list[tuple[Any, ...]], key: str, at: float) -> list[Any] | None:
    """The rule, written out: [event day, then the columns] of the newest state known at day `at`."""
    known = [row for row in rows if row[0] == key and row[1] <= at and row[2] <= at]
    newest = max(known, key=lambda row: (row[1], row[2]), default=None)
    fresh = newest is not None and at - newest[1] <= view.ttl / timedelta(days=1)
    return [newest[1], *newest[3:]] if newest is not None and fresh else None


def test_history_is_the_rule_for_every_customer_and_time(build: Build) -> None:
    rng = np.random.default_rng(3)
    asked = [(str(rng.choice(["ann", "bob", "cat", "nobody"])), int(rng.integers(-2, 120)) / 2) for _ in range(150)]
    states = history(build, spine(*asked))
    for view, rows in ((PROFILE, PROFILE_ROWS), (CONSENT, CONSENT_ROWS), (MARKET, MARKET_ROWS)):
        for index, (key, at) in enumerate(asked):
            expected = oracle(view, rows, "all" if view is MARKET else key, at)
            state = states[view.name]
            numbers, texts = iter(state.numbers[index].tolist()), iter(state.texts[index])
            found = [next(numbers) if column.kind == "number" else next(texts) for column in view.columns]
            found = [None if value != value else value for value in found]
            assert days(states, view.name)[index] == (None if expected is None else expected[0])
            assert found == ([None] * len(found) if expected is None else expected[1:])


def test_the_order_of_the_spine_does_not_matter(build: Build) -> None:
    rows = [(key, at) for key in ("ann", "bob", "cat") for at in range(0, 40, 3)]
    order = np.random.default_rng(5).permutation(len(rows))
    straight = history(build, spine(*rows))
    shuffled = history(build, spine(*[rows[index] for index in order]))
    assert_same({name: state.take(order) for name, state in straight.items()}, shuffled)


def test_times_in_another_zone_and_finer_units_are_the_same_moments(build: Build) -> None:
    asked = spine(("ann", 8), ("bob", 6))
    local = asked.assign(as_of=asked["as_of"].astype("datetime64[ns, UTC]").dt.tz_convert("Asia/Shanghai"))
    assert_same(history(build, local), history(build, asked))


def test_further_columns_of_a_spine_are_ignored_even_when_they_are_named_like_features(build: Build) -> None:
    asked = spine(("ann", 3)).assign(income=7.0, eligible="x")
    assert incomes(history(build, asked)) == [1000.0]


def test_an_empty_spine_has_an_empty_history(build: Build) -> None:
    states = history(build, spine())
    assert {name: state.numbers.shape for name, state in states.items()} == {
        "profile": (0, 2),
        "consent": (0, 1),
        "market": (0, 1),
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda asked: asked.drop(columns="as_of"), "as_of"),
        (lambda asked: asked.assign(as_of=asked["as_of"].dt.tz_localize(None)), "zone"),
        (lambda asked: asked.assign(as_of=pd.Series([pd.NaT] * 2, dtype="datetime64[us, UTC]")), "2 empty"),
        (lambda asked: asked.assign(customer_id=[1, 2]), "like 1"),
        (lambda asked: asked.assign(customer_id=["a", None]), "like None"),
    ],
)
def test_a_spine_that_is_not_one_is_refused(
    build: Build, change: Callable[[pd.DataFrame], pd.DataFrame], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        history(build, change(spine(("ann", 1), ("bob", 2))))


def test_what_serving_reads_is_what_history_says_at_the_end(build: Build) -> None:
    customers = ["bob", "nobody", "ann", "cat", "ann"]
    online = OnlineStates(build.online_path, VIEWS).read(customers)
    assert_same(online, history(build, spine(*[(customer, END) for customer in customers])))
    assert days(online, "profile") == [5, None, 10, None, 10]


def test_only_what_was_known_by_then_is_materialised(build: Build, tmp_path: Path) -> None:
    later = make(tmp_path, {PROFILE: PROFILE_ROWS}, 26)
    assert incomes(OnlineStates(build.online_path, VIEWS).read(["ann", "cat"])) == [None, None]
    assert incomes(OnlineStates(later.online_path, [PROFILE]).read(["ann", "cat"])) == [1200.0, 5.0]
    store.materialise(later, day(1))
    assert incomes(OnlineStates(later.online_path, [PROFILE]).read(["ann"])) == [1200.0], (
        "an old window undid a new one"
    )


def test_the_feast_sdk_reads_the_same_values(build: Build) -> None:
    client = store.feature_store(build)
    customers = ["ann", "nobody", "bob", "cat"]
    for service in SERVICES:
        answer = client.get_online_features(
            features=client.get_feature_service(service),
            entity_rows=[{"customer_id": customer, "market_id": "all"} for customer in customers],
        ).to_dict()
        states = OnlineStates(build.online_path, VIEWS).read(customers)
        for view in VIEWS:
            state = states[view.name]
            columns = {f"{view.name}__at": state.at} | dict(zip(view.numbers, state.numbers.T, strict=True))
            for name, values in columns.items():
                assert answer[name] == [None if np.isnan(value) else value for value in values], name
            for name, texts in zip(view.texts, state.texts.T, strict=True):
                assert answer[name] == texts.tolist(), name


def test_the_feast_sdk_knows_the_market_by_its_one_key(build: Build) -> None:
    rows = [{"market_id": "all"}, {"market_id": "elsewhere"}]
    answer = store.feature_store(build).get_online_features(features=["market:share"], entity_rows=rows).to_dict()
    assert answer["share"] == [0.3, None]


def test_what_the_feast_sdk_writes_is_guarded_and_read_without_it(tmp_path: Path) -> None:
    written = make(tmp_path, {CONSENT: CONSENT_ROWS}, END)
    client = store.feature_store(written)
    for at, value in ((30, 0.0), (29, 1.0)):
        row = {"customer_id": ["ann"], EVENT_TIMESTAMP: [day(at)], CREATED_TIMESTAMP: [day(40 - at)]}
        client.write_to_online_store("consent", pd.DataFrame({**row, "opted_out": [value], "consent__at": [0.0]}))
    states = OnlineStates(written.online_path, [CONSENT]).read(["ann"])
    assert states["consent"].numbers.tolist() == [[0.0]]
    assert days(states, "consent") == [30]


def test_a_home_that_was_moved_still_has_its_history(build: Build, tmp_path: Path) -> None:
    shutil.copytree(build.folder, tmp_path / "moved" / "here")
    shutil.move(tmp_path / "moved" / "here", tmp_path / "there")
    moved = replace(build, folder=tmp_path / "there")
    assert incomes(history(moved, spine(("ann", 3)))) == [1000.0]
    sources = [view.batch_source.path for view in store.feature_store(moved).list_feature_views()]
    assert {Path(path).parent for path in sources} == {tmp_path / "there" / "views"}


def test_history_does_without_feast_which_takes_seconds_to_import() -> None:
    script = (
        "import sys, features.history; print([name for name in ('feast', 'ibis', 'duckdb') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_feasts_own_history_is_ours_market_and_all(build: Build) -> None:
    asked = spine(*[(key, at / 2) for key in ("ann", "bob", "cat", "nobody") for at in range(-2, 80, 3)])
    frame = asked.rename(columns={"as_of": EVENT_TIMESTAMP}).assign(market_id="all")
    features = [f"{view.name}:{name}" for view in VIEWS for name in (f"{view.name}__at", *view.numbers, *view.texts)]
    with store.own_duckdb():
        job = store.feature_store(build).get_historical_features(frame, features, filter_by_created_timestamp=True)
        told = job.to_arrow()
    assert isinstance(job, PointInTimeJob)
    for name, state in history(build, asked).items():
        [view] = [view for view in VIEWS if view.name == name]
        np.testing.assert_array_equal(told.column(f"{name}__at").to_numpy(), state.at)
        for values, column in zip(state.numbers.T, view.numbers, strict=True):
            np.testing.assert_array_equal(told.column(column).to_numpy(), values)
        for texts, column in zip(state.texts.T, view.texts, strict=True):
            assert told.column(column).to_pylist() == texts.tolist()


def test_feast_prints_nothing_where_json_is_written(build: Build, capfd: pytest.CaptureFixture[str]) -> None:
    store.apply(build)
    store.materialise(build, build.data_end)
    history(build, spine(("ann", 3)))
    assert capfd.readouterr().out == ""


def test_feasts_scan_of_the_package_finds_the_definitions_alone() -> None:
    assert [path.name for path in get_repo_files(Path(store.__file__).parent)] == ["definitions.py"]


@pytest.mark.parametrize("names", [["rn"], ["salary_y"], ["income", "Income"], ["customer_id"], ["profile__at"]])
def test_names_that_break_feasts_join_are_refused(names: list[str]) -> None:
    view = View("profile", "customer", timedelta(days=1), tuple(Column(name) for name in names))
    with pytest.raises(InputError, match="unique"):
        check_names([view])


def test_a_view_that_never_expires_is_refused() -> None:
    with pytest.raises(InputError, match="ttl"):
        check_names([View("profile", "customer", timedelta(0), (Column("income"),))])


def test_views_without_rows_and_without_numbers_work(tmp_path: Path) -> None:
    words = View("words", "customer", timedelta(days=30), (Column("word", "text"),))
    bare = make(tmp_path, {words: [("ann", 1, 1, "hello")], CONSENT: []}, END)
    asked = spine(("ann", END), ("bob", END))
    assert_same(OnlineStates(bare.online_path, bare.views).read(["ann", "bob"]), history(bare, asked))
    assert history(bare, asked)["words"].texts.tolist() == [["hello"], [None]]

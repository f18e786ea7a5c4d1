"""Every online store keeps these promises: what is newest, who is unknown, what is refused, and that Feast agrees."""

from __future__ import annotations

import itertools
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features import packed, redis_states, store
from features.build import store_states
from features.columns import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from features.errors import ArtefactError, InputError, NotBuilt
from features.history import history
from features.home import Build
from features.online_answer import Answer
from features.online_states import holds, open_states
from features.packed import OnlineStates, PackedStates
from features.packing import key_column
from features.redis_states import RedisStates
from features.schema import Column, View

MONTH = timedelta(days=30)
PROFILE = View(
    "profile", "customer", MONTH, (Column("income"), Column("job", "text"), Column("age"), Column("city", "text"))
)
CONSENT = View("consent", "customer", MONTH, (Column("opted_out"),))
WORDS = View("words", "customer", MONTH, (Column("word", "text"),))
MARKET = View("market", "market", MONTH, (Column("share"), Column("mood", "text")))
VIEWS = (PROFILE, CONSENT, MARKET)


class Place(Protocol):
    """Somewhere that states can be kept."""

    url: str
    """As settings and Feast's configuration name it."""

    def define(self, views: Sequence[View]) -> None: ...
    def forget(self, names: Sequence[str]) -> None: ...
    def open(self, views: Sequence[View]) -> PackedStates: ...
    def damage(self) -> None:
        """Cut the end off every row."""
        ...

    def writer(self) -> str:
        """Python that opens VIEWS as `states`, in another process."""
        ...


@dataclass
class InFile:
    path: Path
    url: str = ""

    def define(self, views: Sequence[View]) -> None:
        packed.define(self.path, views)

    def forget(self, names: Sequence[str]) -> None:
        packed.forget(self.path, names)

    def open(self, views: Sequence[View]) -> PackedStates:
        return OnlineStates(self.path, views)

    def damage(self) -> None:
        with sqlite3.connect(self.path) as connection:
            connection.execute("UPDATE states SET numbers = substr(numbers, 1, length(numbers) - 8)")

    def writer(self) -> str:
        return f"states = __import__('features.packed').packed.OnlineStates(pathlib.Path({str(self.path)!r}), [view])"


@dataclass
class OnRedis:
    url: str
    prefix: str = "nextbest:test:"

    def define(self, views: Sequence[View]) -> None:
        redis_states.define(self.url, self.prefix, views)

    def forget(self, names: Sequence[str]) -> None:
        redis_states.forget(self.url, self.prefix, names)

    def open(self, views: Sequence[View]) -> PackedStates:
        return RedisStates(self.url, self.prefix, views)

    def damage(self) -> None:
        client: Any = redis_states.connect(self.url)
        for key in client.keys(f"{self.prefix}c:*"):
            client.set(key, client.get(key)[:-1])

    def writer(self) -> str:
        return (
            "states = __import__('features.redis_states').redis_states"
            f".RedisStates({self.url!r}, {self.prefix!r}, [view])"
        )


PLACES: dict[str, tuple[str, Callable[[Any], Place]]] = {
    "file": ("tmp_path", lambda folder: InFile(folder / "online.db")),
    "redis": ("redis_url", OnRedis),
}
"""By name: the fixture that gives it its place, and what to do there. A new store is added here."""


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    fixture, make = PLACES[request.param]
    return make(request.getfixturevalue(fixture))


@pytest.fixture
def online(place: Place) -> PackedStates:
    place.define(VIEWS)
    return place.open(VIEWS)


def day(number: float) -> datetime:
    return datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=number)


def states(view: View, *rows: tuple[Any, ...]) -> pa.Table:
    """Rows of (key, event, created, then the view's columns); times are days, or microseconds since 1970 if int64."""
    kinds = {"number": pa.float64(), "text": pa.string()}
    time = pa.timestamp("us", "UTC")

    def times(place: int) -> pa.Array:
        given = [row[place] for row in rows]
        if given and isinstance(given[0], np.int64):
            return pa.array([int(value) for value in given], pa.int64()).cast(time)
        return pa.array([None if value is None else day(value) for value in given], time)

    columns = {
        key_column(view): pa.array([row[0] for row in rows], pa.string()),
        EVENT_TIMESTAMP: times(1),
        CREATED_TIMESTAMP: times(2),
    }
    for index, column in enumerate(view.columns, start=3):
        columns[column.name] = pa.array([row[index] for row in rows], kinds[column.kind])
    return pa.table(columns)


def opted_out(online: PackedStates, *customers: str) -> list[float | None]:
    said = online.read(customers)["consent"].numbers[:, 0].tolist()
    return [None if value != value else value for value in said]


def test_a_state_comes_back_as_it_was_written(online: PackedStates) -> None:
    rows = (("a", 1, 2, 2.0**53 - 1, "Zoë 王", None, ""), ("b", 3, 3, -0.5, None, 24.0, "x"))
    online.write(PROFILE, states(PROFILE, *rows))
    state = online.read(["b", "a"])["profile"]
    assert state.at.tolist() == [day(3).timestamp(), day(1).timestamp()]
    np.testing.assert_array_equal(state.numbers, [[-0.5, 24.0], [9007199254740991.0, np.nan]])
    assert state.texts.tolist() == [[None, "x"], ["Zoë 王", ""]]
    assert (state.numbers.dtype, state.texts.dtype) == (np.float64, np.object_)


def test_integers_beyond_float32_stay_exact(online: PackedStates) -> None:
    table = states(CONSENT, ("a", 1, 1, None))
    online.write(CONSENT, table.set_column(3, "opted_out", pa.array([2**24 + 1], pa.int64())))
    assert opted_out(online, "a") == [16777217.0]


def test_an_unknown_customer_is_unknown_in_every_customer_view(online: PackedStates) -> None:
    online.write(PROFILE, states(PROFILE, ("a", 1, 1, 1.0, "x", 2.0, "y")))
    read = online.read(["nobody", "a"])
    for view in (PROFILE, CONSENT):
        assert np.isnan(read[view.name].at[0])
        assert np.isnan(read[view.name].numbers[0]).all()
    assert read["profile"].texts[0].tolist() == [None, None]
    assert np.isnan(read["consent"].at[1])
    assert read["profile"].texts[1].tolist() == ["x", "y"]


def test_customers_may_be_asked_in_any_order_any_number_of_times(online: PackedStates) -> None:
    online.write(CONSENT, states(CONSENT, *[(f"c{i}", 1, 1, float(i)) for i in range(5)]))
    assert opted_out(online, "c3", "c0", "nobody", "c3", "c4") == [3.0, 0.0, None, 3.0, 4.0]
    assert [len(state.at) for state in online.read([]).values()] == [0, 0, 0]


def test_more_customers_than_one_query_takes_are_read_in_order(online: PackedStates) -> None:
    online.write(CONSENT, states(CONSENT, *[(f"c{i}", 1, 1, float(i)) for i in range(9_000)]))
    asked = np.random.default_rng(1).permutation(9_000)
    assert online.read([f"c{i}" for i in asked])["consent"].numbers[:, 0].tolist() == asked.tolist()


@pytest.mark.parametrize("key", ["", "Zoë 王", "a:b*?[x]", "x" * 2_000, "a\nb", "c'; --"])
def test_any_text_is_a_key(online: PackedStates, key: str) -> None:
    online.write(CONSENT, states(CONSENT, (key, 1, 1, 1.0), ("other", 1, 1, 2.0)))
    assert opted_out(online, key, "other") == [1.0, 2.0]


def test_the_market_is_the_same_for_everybody(online: PackedStates) -> None:
    online.write(MARKET, states(MARKET, ("all", 1, 1, 0.25, "calm")))
    state = online.read(["a", "b", "a"])["market"]
    assert state.numbers.tolist() == [[0.25]] * 3
    assert state.texts.tolist() == [["calm"]] * 3
    assert state.at.tolist() == [day(1).timestamp()] * 3


def test_a_customer_called_all_is_not_the_market(online: PackedStates) -> None:
    online.write(CONSENT, states(CONSENT, ("all", 1, 1, 1.0)))
    online.write(MARKET, states(MARKET, ("all", 2, 2, 0.5, None)))
    read = online.read(["b", "all"])
    assert read["market"].numbers.tolist() == [[0.5], [0.5]]
    np.testing.assert_array_equal(read["consent"].numbers, [[np.nan], [1.0]])


def test_a_late_event_never_undoes_an_opt_out(online: PackedStates) -> None:
    online.write(CONSENT, states(CONSENT, ("a", 5, 5, 1.0)))
    online.write(CONSENT, states(CONSENT, ("a", 4, 9, 0.0)))
    assert opted_out(online, "a") == [1.0]
    assert online.read(["a"])["consent"].at.tolist() == [day(5).timestamp()]


def test_of_equal_events_the_one_known_last_wins(online: PackedStates) -> None:
    for created, said, newest in ((6, 1.0, 1.0), (5, 2.0, 1.0), (7, 3.0, 3.0)):
        online.write(CONSENT, states(CONSENT, ("a", 5, created, said)))
        assert opted_out(online, "a") == [newest]


def test_a_correction_with_equal_times_replaces_the_state(online: PackedStates) -> None:
    online.write(CONSENT, states(CONSENT, ("a", 5, 5, 1.0)))
    online.write(CONSENT, states(CONSENT, ("a", 5, 5, 2.0)))
    assert opted_out(online, "a") == [2.0]


def test_one_block_may_hold_several_states_of_a_customer(online: PackedStates) -> None:
    online.write(CONSENT, states(CONSENT, ("a", 5, 5, 1.0), ("a", 4, 6, 0.0), ("b", 1, 1, 0.0), ("a", 5, 6, 3.0)))
    assert opted_out(online, "a", "b") == [3.0, 0.0]


# Microseconds: neighbours that float64 cannot tell apart, and times before 1970 and after 2255.
EXACT = [-(2**55), -(2**53) - 1, -1, 0, 1, 2**32 - 1, 2**32, 2**53, 2**53 + 1, 2**55 + 1, 2**55 + 2]


@pytest.mark.parametrize(("early", "late"), list(itertools.pairwise(EXACT)))
def test_times_are_compared_to_the_microsecond_however_far_they_are(
    online: PackedStates, early: int, late: int
) -> None:
    early, late, zero = np.int64(early), np.int64(late), np.int64(0)
    online.write(CONSENT, states(CONSENT, ("event", late, zero, 1.0), ("created", zero, late, 1.0)))
    online.write(CONSENT, states(CONSENT, ("event", early, zero, 0.0), ("created", zero, early, 0.0)))
    assert opted_out(online, "event", "created") == [1.0, 1.0]
    online.write(CONSENT, states(CONSENT, ("back", early, zero, 1.0), ("again", zero, early, 1.0)))
    online.write(CONSENT, states(CONSENT, ("back", late, zero, 0.0), ("again", zero, late, 0.0)))
    assert opted_out(online, "back", "again") == [0.0, 0.0]


TIMES = st.integers(0, 3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.sampled_from("abc"), TIMES, TIMES), min_size=1, max_size=12),
    batch=st.integers(1, 12),
    other=st.booleans(),
)
def test_whatever_the_order_of_writes_the_newest_state_is_kept(
    place: Place, rows: list[tuple[str, int, int]], batch: int, other: bool
) -> None:
    place.define(VIEWS)
    place.forget(["consent"])
    place.define(VIEWS)
    online = place.open(VIEWS)
    if other:  # another view's rows of the same keys, before and behind
        online.write(PROFILE, states(PROFILE, *[(key, 1, 1, 1.0, key, 2.0, key * 3) for key in "abc"]))
    for start in range(0, len(rows), batch):
        part = [(key, event, created, 10.0 * event + created) for key, event, created in rows[start : start + batch]]
        online.write(CONSENT, states(CONSENT, *part))
    for key in {key for key, _, _ in rows}:
        event, created = max((event, created) for there, event, created in rows if there == key)
        assert opted_out(online, key) == [10.0 * event + created]
        if other:
            assert online.read([key])["profile"].texts.tolist() == [[key, key * 3]]


def test_a_text_may_grow_and_shrink_beside_other_views(online: PackedStates) -> None:
    online.write(CONSENT, states(CONSENT, ("a", 1, 1, 1.0)))
    for at, job in enumerate(("x", "x" * 500, "", None, "y"), start=2):
        online.write(PROFILE, states(PROFILE, ("a", at, at, 1.0, job, 2.0, "z")))
        online.write(CONSENT, states(CONSENT, ("a", at, at, float(at))))
        read = online.read(["a"])
        assert read["profile"].texts.tolist() == [[job, "z"]]
        assert read["consent"].numbers.tolist() == [[float(at)]]


@pytest.mark.parametrize("row", [(None, 1, 1, 1.0), ("b", None, 1, 1.0)])
def test_a_write_with_a_state_of_nobody_or_of_no_time_is_refused_whole(
    online: PackedStates, row: tuple[Any, ...]
) -> None:
    with pytest.raises(InputError, match=r"1 have no key|1 no time"):
        online.write(CONSENT, states(CONSENT, ("a", 1, 1, 1.0), row))
    assert opted_out(online, "a") == [None]


def test_without_a_created_time_the_event_became_known_when_it_happened(online: PackedStates) -> None:
    online.write(CONSENT, states(CONSENT, ("a", 5, None, 1.0)))
    online.write(CONSENT, states(CONSENT, ("a", 5, 4, 0.0)))
    assert opted_out(online, "a") == [1.0]


def test_a_reader_sees_what_was_written_after_it_opened(place: Place, online: PackedStates) -> None:
    assert opted_out(online, "a") == [None]
    place.open(VIEWS).write(CONSENT, states(CONSENT, ("a", 1, 1, 1.0)))
    assert opted_out(online, "a") == [1.0]


def test_a_view_may_be_asked_alone(place: Place, online: PackedStates) -> None:
    online.write(PROFILE, states(PROFILE, ("a", 1, 1, 1.0, "x", 2.0, "y")))
    online.write(CONSENT, states(CONSENT, ("a", 1, 1, 1.0)))
    read = place.open([CONSENT]).read(["a"])
    assert list(read) == ["consent"]
    assert read["consent"].numbers.tolist() == [[1.0]]


def test_views_without_numbers_work(place: Place) -> None:
    place.define([WORDS])
    online = place.open([WORDS])
    online.write(WORDS, states(WORDS, ("a", 1, 1, "hello"), ("b", 1, 1, None)))
    assert online.read(["a", "b", "c"])["words"].texts.tolist() == [["hello"], [None], [None]]
    assert np.isnan(online.read(["a", "b", "c"])["words"].at).tolist() == [False, False, True]


OTHERS = [
    View("consent", "customer", MONTH, (Column("opted_out"), Column("more"))),
    View("consent", "customer", MONTH, (Column("opted_out", "text"),)),
    View("consent", "market", MONTH, (Column("opted_out"),)),
    View("consents", "customer", MONTH, (Column("opted_out"),)),
    View("profile", "customer", MONTH, (PROFILE.columns[2], *PROFILE.columns[1::-1], PROFILE.columns[3])),
]


@pytest.mark.parametrize("other", OTHERS, ids=["wider", "of texts", "of the market", "unknown", "swapped"])
def test_other_columns_than_were_written_are_refused_on_opening(
    place: Place, online: PackedStates, other: View
) -> None:
    with pytest.raises(ArtefactError, match="build the features again"):
        place.open([MARKET, other])


def test_a_place_without_a_store_says_what_to_do(place: Place) -> None:
    with pytest.raises(NotBuilt, match="nextbest features build"):
        place.open(VIEWS)


def test_a_damaged_row_is_an_error_not_a_shifted_one(place: Place, online: PackedStates) -> None:
    online.write(CONSENT, states(CONSENT, ("a", 1, 1, 1.0)))
    place.damage()
    with pytest.raises(ArtefactError, match="build the features again"):
        online.read(["a"])


def test_defining_the_same_views_again_keeps_their_rows(place: Place, online: PackedStates) -> None:
    online.write(CONSENT, states(CONSENT, ("a", 1, 1, 1.0)))
    place.define([*VIEWS, WORDS])
    assert opted_out(place.open(VIEWS), "a") == opted_out(online, "a") == [1.0]


def test_defining_a_view_with_other_columns_drops_its_rows_and_no_others(place: Place, online: PackedStates) -> None:
    online.write(CONSENT, states(CONSENT, ("a", 1, 1, 1.0), ("b", 1, 1, 1.0)))
    online.write(PROFILE, states(PROFILE, ("a", 1, 1, 1.0, "x", 2.0, "y")))
    online.write(MARKET, states(MARKET, ("all", 1, 1, 0.5, None)))
    place.define([OTHERS[0], MARKET])
    read = place.open([OTHERS[0], MARKET, PROFILE]).read(["a", "b"])
    assert np.isnan(read["consent"].at).all()
    assert read["profile"].texts[0].tolist() == ["x", "y"]
    assert read["market"].numbers.tolist() == [[0.5], [0.5]]
    place.define([CONSENT])
    assert opted_out(place.open(VIEWS), "a", "b") == [None, None], "the first rows are back"


def test_a_forgotten_view_is_gone(place: Place, online: PackedStates) -> None:
    online.write(CONSENT, states(CONSENT, ("a", 1, 1, 1.0)))
    place.forget(["consent", "never there"])
    with pytest.raises(ArtefactError, match="nothing"):
        place.open([CONSENT])
    place.open([PROFILE])
    place.define([CONSENT])
    assert opted_out(place.open(VIEWS), "a") == [None]


def test_many_threads_read_at_once(online: PackedStates) -> None:
    online.write(CONSENT, states(CONSENT, *[(f"c{i}", 1, 1, float(i)) for i in range(50)]))
    wrong: list[object] = []

    def read(offset: int) -> None:
        try:
            for i in range(40):
                found = opted_out(online, f"c{(i + offset) % 50}")
                if found != [float((i + offset) % 50)]:
                    wrong.append(found)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=read, args=(offset,)) for offset in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


WRITER = """
import pathlib, sys
from datetime import timedelta
import numpy as np, pyarrow as pa
from features.schema import Column, View
view = View("consent", "customer", timedelta(days=30), (Column("opted_out"),))
{opening}
print("ready", flush=True)
for turn in range(1, 13):
    times = pa.array(np.full(4_000, turn), pa.int64()).cast(pa.timestamp("us", "UTC"))
    table = pa.table({{"customer_id": [f"c{{i:05d}}" for i in range(4_000)], "event_timestamp": times,
                     "created_timestamp": times, "opted_out": np.full(4_000, float(turn))}})
    states.load(view, (table.slice(start, 500) for start in range(0, 4_000, 500)))
"""


def test_reading_while_another_process_materialises_never_fails_and_never_goes_back(
    place: Place, online: PackedStates
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER.format(opening=place.writer())], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    seen: list[float] = [0.0]
    while process.poll() is None:
        [value] = opted_out(online, "c03999")
        seen.append(value or 0.0)
    assert process.returncode == 0
    assert seen == sorted(seen)
    assert opted_out(online, "c00000", "c03999") == [12.0, 12.0]
    assert len(set(seen)) > 2, "nothing was read meanwhile"


# Through Feast: a build of its own per store.

END = 20
ROWS = {
    PROFILE: [
        ("ann", 0, 0, 1000.0, "clerk", 2.0**53 - 1, None),
        ("ann", 12, 25, 1200.0, "late", 1.0, "known only after the end"),
        ("bob", 5, 5, 10.0, "first", None, "x"),
        ("bob", 5, 6, 20.0, "corrected", None, "Zoë 王"),
    ],
    CONSENT: [("ann", 1, 1, 0.0), ("ann", 8, 8, 1.0), ("bob", 19, 19, 1.0)],
    MARKET: [("all", 0, 0, 0.1, "calm"), ("all", 9, 11, 0.3, "späte Zahl")],
}


@pytest.fixture(scope="module", params=PLACES)
def fed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Build, str]:
    """A build that Feast has materialised, and the URL of its online store."""
    url = request.getfixturevalue("redis_server").new_database() if request.param == "redis" else ""
    build = Build(tmp_path_factory.mktemp(request.param), "f" * 64, VIEWS, day(END))
    store_states(build, [(view, states(view, *rows)) for view, rows in ROWS.items()])
    store.apply(build, url)
    assert not url or not holds(build, url), "nothing is materialised yet"
    store.materialise(build, build.data_end, online=url)
    return build, url


CUSTOMERS = ["bob", "nobody", "ann", "cat", "ann"]


def test_what_feast_materialised_is_what_is_read_without_it(fed: tuple[Build, str]) -> None:
    build, url = fed
    assert holds(build, url)
    online = open_states(build, url).read(CUSTOMERS)
    at = pd.Series([day(END)] * len(CUSTOMERS), dtype="datetime64[us, UTC]")
    spine = pd.DataFrame({"customer_id": pd.Series(CUSTOMERS, dtype=object), "as_of": at})
    for name, state in history(build, spine).items():
        np.testing.assert_array_equal(online[name].at, state.at)
        np.testing.assert_array_equal(online[name].numbers, state.numbers)
        assert online[name].texts.tolist() == state.texts.tolist()
    assert online["profile"].numbers[:, 0].tolist()[::2] == [20.0, 1000.0, 1000.0]


def test_feasts_sdk_reads_the_same_values(fed: tuple[Build, str]) -> None:
    build, url = fed
    client = store.feature_store(build, url)
    rows = [{"customer_id": customer, "market_id": "all"} for customer in CUSTOMERS]
    features = client.get_feature_service("next_best_product_v1")
    answer = client.get_online_features(features=features, entity_rows=rows).to_dict()
    for view, state in zip(VIEWS, open_states(build, url).read(CUSTOMERS).values(), strict=True):
        columns = {f"{view.name}__at": state.at} | dict(zip(view.numbers, state.numbers.T, strict=True))
        for name, values in columns.items():
            assert answer[name] == [None if np.isnan(value) else value for value in values], name
        for name, texts in zip(view.texts, state.texts.T, strict=True):
            assert answer[name] == texts.tolist(), name
    assert answer["customer_id"] == CUSTOMERS


def test_feasts_sdk_knows_the_market_by_its_one_key(fed: tuple[Build, str]) -> None:
    rows = [{"market_id": "all"}, {"market_id": "elsewhere"}]
    answer = store.feature_store(*fed).get_online_features(features=["market:share"], entity_rows=rows).to_dict()
    assert answer["share"] == [0.3, None]


def test_what_feasts_sdk_writes_is_guarded_and_an_old_window_undoes_nothing(fed: tuple[Build, str]) -> None:
    build, url = fed
    client = store.feature_store(build, url)
    for at, value in ((30, 7.0), (29, 8.0)):
        row = {"customer_id": ["dan"], EVENT_TIMESTAMP: [day(at)], CREATED_TIMESTAMP: [day(40 - at)]}
        client.write_to_online_store("consent", pd.DataFrame({**row, "opted_out": [value], "consent__at": [0.0]}))
    online = open_states(build, url)
    assert opted_out(online, "dan", "ann") == [7.0, 1.0]
    store.materialise(build, day(2), online=url)
    assert opted_out(online, "dan", "ann") == [7.0, 1.0]


PRESENT, NOT_FOUND = FieldStatus.PRESENT, FieldStatus.NOT_FOUND
MARKET_KEYS = ["all", "elsewhere", "all", "all", "all"]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    "features",
    [
        "next_best_product_v1",
        ["consent:opted_out", "profile:city", "profile:profile__at"],
        ["market:mood", "profile:income", "market:share"],
        ["market:mood"],
    ],
    ids=["service", "customer", "both", "market"],
)
def test_the_answer_in_one_round_trip_is_feasts_own(
    fed: tuple[Build, str], features: str | list[str], full: bool
) -> None:
    client = store.feature_store(*fed)
    asked: Any = client.get_feature_service(features) if isinstance(features, str) else features
    views = {"profile", "market"} if isinstance(features, str) else {name.split(":")[0] for name in features}
    keys = {"customer_id": CUSTOMERS} if views - {"market"} else {}
    keys |= {"market_id": MARKET_KEYS} if "market" in views else {}
    rows = [dict(zip(keys, values, strict=True)) for values in zip(*keys.values(), strict=True)]
    ours = client.get_online_features(features=asked, entity_rows=rows, full_feature_names=full)
    provider = client._get_provider()
    theirs = OnlineStore.get_online_features(
        provider.online_store, client.config, asked, rows, client.registry, client.project, full
    )
    assert isinstance(ours, Answer)
    assert ours.to_dict() == theirs.to_dict()
    assert list(ours.to_dict()) == list(theirs.to_dict())
    assert ours.to_df().equals(theirs.to_df())
    assert ours.to_dict(include_event_timestamps=True) == theirs.to_dict(include_event_timestamps=True)
    assert ours.proto == theirs.proto
    by_column = client.get_online_features(features=asked, entity_rows=keys, full_feature_names=full)
    assert by_column.to_dict() == ours.to_dict()


def test_the_message_of_an_answer_is_of_the_moment_of_the_read(fed: tuple[Build, str]) -> None:
    build, url = fed
    client = store.feature_store(build, url)
    rows = [{"customer_id": "eve"}, {"customer_id": "nobody"}]
    answer = client.get_online_features(features=["consent:opted_out"], entity_rows=rows)
    open_states(build, url).write(CONSENT, states(CONSENT, ("eve", 1, 1, 1.0)))
    assert answer.to_dict()["opted_out"] == [None, None]
    assert [list(vector.statuses) for vector in answer.proto.results] == [[PRESENT, PRESENT], [NOT_FOUND, NOT_FOUND]]


def test_keys_that_are_no_texts_are_left_to_feast(fed: tuple[Build, str]) -> None:
    build, url = fed
    open_states(build, url).write(CONSENT, states(CONSENT, ("7", 1, 1, 5.0)))
    answer = store.feature_store(build, url).get_online_features(
        features=["consent:opted_out"], entity_rows=[{"customer_id": 7}]
    )
    assert not isinstance(answer, Answer)
    assert answer.to_dict() == {"customer_id": ["7"], "opted_out": [5.0]}

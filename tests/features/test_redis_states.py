"""The packed online store on Redis: one round trip, and nothing that was lost ever looks like an unknown customer."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from features import packed, store
from features.build import build_features, store_states
from features.columns import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from features.errors import ArtefactError, InputError, NotBuilt, StoreUnavailable
from features.history import history
from features.home import Build, Home
from features.online_states import holds, keep_only, open_states
from features.packed import OnlineStates
from features.progress import SILENT
from features.redis_states import RedisStates, connect, define, forget, remove
from features.schema import Column, View
from serving.settings import Settings

CONSENT = View("consent", "customer", timedelta(days=30), (Column("opted_out"),))
WORDS = View("words", "customer", timedelta(days=30), (Column("word", "text"),))
VIEWS = (CONSENT, WORDS)
PREFIX = "nextbest:test:"
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


def refusals(*customers: str) -> pa.Table:
    at = pa.array([NOON] * len(customers), pa.timestamp("us", "UTC"))
    columns = {"customer_id": list(customers), EVENT_TIMESTAMP: at, CREATED_TIMESTAMP: at}
    return pa.table(columns | {"opted_out": [1.0] * len(customers)})


def opened(url: str, *customers: str) -> RedisStates:
    """A store in which these customers have opted out, loaded whole."""
    define(url, PREFIX, VIEWS)
    states = RedisStates(url, PREFIX, VIEWS)
    states.load(CONSENT, [refusals(*customers)])
    states.load(WORDS, [])
    return states


def commands(url: str) -> int:
    """How many commands the server has carried out, this one aside."""
    client: Any = connect(url)
    return int(client.info("stats")["total_commands_processed"])


@pytest.mark.parametrize("customers", [1, 50, 1_000])
def test_whatever_is_asked_of_up_to_a_thousand_customers_is_one_command(own_redis_server: Any, customers: int) -> None:
    url = own_redis_server.new_database()
    states = opened(url, *[f"c{i}" for i in range(customers)])
    asked = [f"c{i}" for i in range(customers)]
    states.read(asked)  # the connection is there
    alone = commands(url)
    alone = commands(url) - alone
    before = commands(url)
    read = states.read(asked)
    assert commands(url) - before - alone == 1
    assert read["consent"].numbers[:, 0].tolist() == [1.0] * customers


def test_a_block_is_written_in_one_command(own_redis_server: Any) -> None:
    url = own_redis_server.new_database()
    states = opened(url, "a")
    alone = commands(url)
    alone = commands(url) - alone
    before = commands(url)
    states.write(CONSENT, refusals(*[f"c{i}" for i in range(250)]))
    # Each key is a GET and a SET inside of the one script.
    assert commands(url) - before - alone <= 1 + 2 * 250


def test_a_server_that_is_gone_is_an_error_for_everybody_and_no_unknown_customer(own_redis_server: Any) -> None:
    url = own_redis_server.new_database()
    states = opened(url, "a")
    own_redis_server.stop()
    for customers in (["a"], ["nobody"], []):
        with pytest.raises(StoreUnavailable, match="must answer"):
            states.read(customers)
    with pytest.raises(StoreUnavailable):
        states.write(CONSENT, refusals("b"))
    with pytest.raises(StoreUnavailable):
        RedisStates(url, PREFIX, VIEWS)


def test_a_server_that_comes_back_empty_is_an_error_until_it_is_filled_again(own_redis_server: Any) -> None:
    url = own_redis_server.new_database()
    states = opened(url, "a")
    own_redis_server.stop()
    own_redis_server.start()
    for customer in ("a", "nobody"):
        with pytest.raises(ArtefactError, match="lost some of them"):
            states.read([customer])
    assert opened(url, "a").read(["a"])["consent"].numbers.tolist() == [[1.0]]
    assert states.read(["a"])["consent"].numbers.tolist() == [[1.0]]


def test_a_server_that_comes_back_with_old_data_is_an_error(redis_url: str) -> None:
    """As a snapshot from the middle of loading: the views are there, and one of them is not marked as whole."""
    states = opened(redis_url, "a")
    connect(redis_url).setbit(f"{PREFIX}loaded", 2, 0)
    with pytest.raises(ArtefactError, match="lost some of them"):
        states.read(["a"])


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random"])
def test_a_server_that_may_evict_customers_is_refused(own_redis_server: Any, policy: str) -> None:
    url = own_redis_server.new_database()
    opened(url, "a")
    connect(url).config_set("maxmemory-policy", policy)
    with pytest.raises(InputError, match=f"is {policy}; set it to noeviction"):
        RedisStates(url, PREFIX, VIEWS)
    with pytest.raises(InputError, match="keep every key"):
        define(url, PREFIX, VIEWS)


def test_nothing_is_left_of_views_that_were_forgotten(redis_url: str) -> None:
    opened(redis_url, "a", "b")
    forget(redis_url, PREFIX, ["consent"])
    client: Any = connect(redis_url)
    assert [key for key in client.scan_iter() if b":c:" in key] == []


def test_no_key_expires(redis_url: str) -> None:
    opened(redis_url, "a")
    client: Any = connect(redis_url)
    assert {client.ttl(key) for key in client.scan_iter()} == {-1}


def test_a_password_is_never_shown(own_redis_server: Any) -> None:
    own_redis_server.stop()
    with pytest.raises(StoreUnavailable) as caught:
        RedisStates("redis://user:geheim@127.0.0.1:1/0", PREFIX, VIEWS)
    assert "geheim" not in str(caught.value)
    assert "127.0.0.1:1" in str(caught.value)
    with pytest.raises(InputError) as wrong:
        connect("mysql://user:geheim@host/0")
    assert "geheim" not in str(wrong.value)
    with pytest.raises(InputError, match="NEXTBEST_ONLINE_URL") as setting:
        Settings.from_environment({"NEXTBEST_ONLINE_URL": "mysql://user:geheim@host/0"}, Path())
    assert "geheim" not in str(setting.value)
    assert "geheim" not in repr(Settings(Path(), "", online_url="redis://user:geheim@host/0"))


def test_builds_lie_side_by_side_and_one_is_removed_without_the_other(redis_url: str) -> None:
    first = opened(redis_url, "a", "b")
    define(redis_url, "nextbest:other*:", VIEWS)
    other = RedisStates(redis_url, "nextbest:other*:", VIEWS)
    other.load(CONSENT, [refusals("b")])
    assert np.isnan(other.read(["a"])["consent"].at).all()
    remove(redis_url, "nextbest:other*:")
    assert first.read(["a"])["consent"].numbers.tolist() == [[1.0]]
    with pytest.raises(ArtefactError, match="lost some of them"):
        other.read(["b"])
    client: Any = connect(redis_url)
    assert all(key.startswith(PREFIX.encode()) for key in client.scan_iter())


def test_serving_reads_without_feast_and_pandas() -> None:
    script = """
import features.redis_states, features.online_states, sys
print([name for name in ('feast', 'pandas', 'ibis') if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_build_that_is_there_in_part_is_not_opened(tmp_path: Path, redis_url: str) -> None:
    build = Build(tmp_path / "abc", "f" * 64, VIEWS, NOON)
    assert not holds(build, redis_url)
    define(redis_url, "nextbest:abc:", VIEWS)
    RedisStates(redis_url, "nextbest:abc:", VIEWS).load(CONSENT, [refusals("a")])
    assert not holds(build, redis_url)
    with pytest.raises(NotBuilt, match="only in part"):
        open_states(build, redis_url)
    RedisStates(redis_url, "nextbest:abc:", VIEWS).load(WORDS, [])
    assert holds(build, redis_url)
    assert open_states(build, redis_url).read(["a"])["consent"].numbers.tolist() == [[1.0]]


def test_a_load_that_fails_in_between_leaves_the_view_unmarked(redis_url: str) -> None:
    define(redis_url, PREFIX, VIEWS)
    states = RedisStates(redis_url, PREFIX, VIEWS)
    with pytest.raises(RuntimeError):
        states.load(CONSENT, _failing(refusals("a")))
    assert not RedisStates(redis_url, PREFIX, VIEWS).loaded


def _failing(table: pa.Table) -> Any:
    yield table
    raise RuntimeError("the offline store is gone")


def test_features_are_built_into_redis_and_a_build_is_brought_where_it_is_not_yet(
    small_bank_folder: Path, tmp_path: Path, redis_url: str
) -> None:
    home = Home(tmp_path / "home")
    build = build_features(small_bank_folder, home, SILENT, None, redis_url)
    assert not build.online_path.exists()
    with pytest.raises(NotBuilt, match="no online store"):
        open_states(build)
    first = open_states(build, redis_url).read(["c1", "nobody"])
    assert build_features(small_bank_folder, home) == build  # the same features, now in a file as well
    for name, state in open_states(build).read(["c1", "nobody"]).items():
        np.testing.assert_array_equal(state.at, first[name].at)
        np.testing.assert_array_equal(state.numbers, first[name].numbers)
        assert state.texts.tolist() == first[name].texts.tolist()
    remove(redis_url, f"nextbest:{build.folder.name}:")
    assert build_features(small_bank_folder, home, SILENT, None, redis_url) == build
    assert holds(build, redis_url)


def test_history_of_a_home_that_was_moved_makes_no_empty_store(tmp_path: Path) -> None:
    """An empty file would look like a bank without customers to a server that is started without the URL."""
    import pandas as pd

    build = Build(tmp_path / "here", "f" * 64, (CONSENT,), NOON)
    store_states(build, [(CONSENT, refusals("a"))])
    store.apply(build, None)
    moved = replace(build, folder=build.folder.rename(tmp_path / "there"))
    at = pd.Series([NOON], dtype="datetime64[us, UTC]")
    store.feature_store(moved, None)  # applies the definitions again
    states = history(moved, pd.DataFrame({"customer_id": pd.Series(["a"], dtype=object), "as_of": at}))
    assert states["consent"].numbers.tolist() == [[1.0]]
    assert not moved.online_path.exists()


def test_a_file_is_opened_where_there_is_no_url(tmp_path: Path) -> None:
    build = Build(tmp_path, "f" * 64, VIEWS, NOON)
    packed.define(build.online_path, VIEWS)
    assert isinstance(open_states(build), OnlineStates)


def test_of_a_homes_builds_the_last_two_stay_on_the_server(tmp_path: Path, redis_url: str) -> None:
    for name in ("first", "second", "third"):
        (tmp_path / name).mkdir()
        define(redis_url, f"nextbest:{name}:", [CONSENT])
        RedisStates(redis_url, f"nextbest:{name}:", [CONSENT]).load(CONSENT, [refusals("a")])
    keep_only(tmp_path, {"third", "second"}, redis_url)
    client: Any = connect(redis_url)
    assert {key.split(b":")[1] for key in client.scan_iter()} == {b"second", b"third"}
    with pytest.raises(NotBuilt):
        RedisStates(redis_url, "nextbest:first:", [CONSENT])

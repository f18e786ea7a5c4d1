"""Batch scoring into a file: the lines that blocks have, whatever happens on the way."""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.assemble import assemble, row_schema
from features.catalog import Catalog, Channel, Product
from features.columns import AS_OF, CREATED_TIMESTAMP, CUSTOMER_ID, EVENT_TIMESTAMP, Table
from features.errors import InputError
from features.history import history
from features.home import Build, Home
from features.schema import Bool, Float32, Float64, Rows, RowSchema, stacked
from serving.batch import score_blocks
from serving.batch_file import score_file
from serving.batch_states import states_for_rows, states_in_parts
from serving.calibration import IDENTITY, Calibration
from serving.question import Question

NOON = datetime(2024, 5, 31, 12, tzinfo=UTC)
CATALOG = Catalog("EUR", "UTC", (Product("card", "Card", holdable=True), Product("loan", "Loan")), (Channel("a", "A"),))
SCHEMA = RowSchema(("card", "loan"), (True, False), ("a",), (), (), "UTC", ("n",), ("n",), ("n",))
WHO = [f"c{number * 37 % 100:02d}" for number in range(50)]
BLOCK = 6


@dataclass(frozen=True)
class FakeBuild:
    catalog: Catalog = CATALOG
    fingerprint: str = "features"


@dataclass(frozen=True)
class FakeModel:
    """What a customer's number says, and half of it."""

    question: Question = field(default_factory=lambda: Question("m", ("card", "loan"), "product", "joint", True, 90.0))
    row_schema: RowSchema = SCHEMA
    calibration: Calibration = IDENTITY

    def probabilities(self, rows: Rows, available: Bool) -> Float64:
        return np.where(available, rows.customer / 200.0 * np.array([1.0, 0.5]), np.nan)


def rows_of(build: Any, model: Any, entities: pd.DataFrame) -> list[Rows]:
    """Customers know their number; every tenth holds the card. In two parts, as real ones come in several."""
    number: Float32 = entities["customer_id"].str[1:].astype("float32").to_numpy()[:, None]
    held = np.concatenate([number % 10 == 0, number < 0], axis=1)
    n = len(number)
    rows = Rows(number, np.zeros((n, 2, 1), np.float32), np.zeros((n, 1, 1), np.float32), held, held[:, :1], SCHEMA)
    return [rows.take(slice(0, 2)), rows.take(slice(2, None))]


class Source:
    """Rows, and how often they were asked for; from call `fails` on it fails."""

    def __init__(self, fails: int = 1_000) -> None:
        self.asked = 0
        self._fails = fails

    def __call__(self, build: Any, model: Any, part: pd.DataFrame) -> list[Rows]:
        self.asked += 1
        if self.asked >= self._fails:
            raise RuntimeError("half-way")
        return rows_of(build, model, part)


def entities(customers: list[str] = WHO) -> pd.DataFrame:
    times = pd.Series([NOON] * len(customers)).astype("datetime64[us, UTC]")
    return pd.DataFrame({"customer_id": customers, "as_of": times})


def run(out: Path, source: Any = rows_of, origin: str = "origin", threads: int = 1, who: list[str] = WHO) -> int:
    build: Any = FakeBuild()
    model: Any = FakeModel()
    return score_file(build, model, entities(who), out, origin, block=BLOCK, threads=threads, source=source)


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    """The file of a run that nothing interrupted."""
    out = tmp_path / "whole.parquet"
    run(out)
    return out.read_bytes()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "whole.parquet")


@pytest.mark.parametrize("threads", [1, 3])
def test_the_file_has_the_lines_of_the_blocks_in_the_order_of_the_entities(tmp_path: Path, threads: int) -> None:
    build: Any = FakeBuild()
    model: Any = FakeModel()
    lines = run(tmp_path / "scores.parquet", threads=threads)
    found = pd.read_parquet(tmp_path / "scores.parquet")
    expected = pd.concat(list(score_blocks(build, model, entities(), source=rows_of)), ignore_index=True)
    pd.testing.assert_frame_equal(found, expected)
    assert lines == len(expected)
    assert names(tmp_path) == ["scores.parquet"]


def test_what_a_customer_is_eligible_for_goes_with_the_customer_through_all_parts(tmp_path: Path) -> None:
    build: Any = FakeBuild()
    model: Any = FakeModel()
    numbers = [int(name[1:]) for name in WHO]
    asked = entities()
    asked["eligible"] = [frozenset({"card"} if number % 3 else {"loan"}) for number in numbers]
    score_file(build, model, asked, tmp_path / "scores.parquet", "origin", block=BLOCK, threads=2, source=rows_of)
    found = pd.read_parquet(tmp_path / "scores.parquet")
    expected = {(f"c{number:02d}", "card" if number % 3 else "loan") for number in numbers}
    expected -= {(f"c{number:02d}", "card") for number in numbers if number % 10 == 0}
    assert set(zip(found["customer_id"], found["product_id"], strict=True)) == expected


def test_without_entities_there_is_a_file_without_lines(tmp_path: Path) -> None:
    assert run(tmp_path / "scores.parquet", who=[]) == 0
    assert list(pd.read_parquet(tmp_path / "scores.parquet")) == ["customer_id", "as_of", "product_id", "score", "rank"]


def test_a_run_that_failed_leaves_no_file_and_the_next_does_only_what_is_left(tmp_path: Path, whole: bytes) -> None:
    out = tmp_path / "scores.parquet"
    with pytest.raises(RuntimeError, match="half-way"):
        run(out, Source(fails=4))
    assert not out.exists()
    again = Source()
    run(out, again)
    assert again.asked == 9 - 3
    assert out.read_bytes() == whole
    assert names(tmp_path) == ["scores.parquet"]


def test_a_run_for_something_else_takes_nothing_up(tmp_path: Path, whole: bytes) -> None:
    out = tmp_path / "scores.parquet"
    with pytest.raises(RuntimeError):
        run(out, Source(fails=4))
    again = Source()
    run(out, again, origin="another model")
    assert again.asked == 9
    assert out.read_bytes() == whole


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_part_is_scored_again(tmp_path: Path, whole: bytes, damage: str) -> None:
    out = tmp_path / "scores.parquet"
    with pytest.raises(RuntimeError):
        run(out, Source(fails=4))
    part = next(tmp_path.rglob("000001.npz"))
    content = part.read_bytes()
    middle = content.index(b"scores.npy") + 200
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    part.write_bytes({"cut": content[:-8], "flipped": flipped, "empty": b""}[damage])
    again = Source()
    run(out, again)
    assert again.asked == 7
    assert out.read_bytes() == whole


def test_two_runs_do_not_write_the_same_file_at_once(tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    with pytest.raises(RuntimeError):
        run(out, Source(fails=4))
    with (tmp_path / ".scores.parquet.parts" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another one does"):
            run(out)
    run(out)
    assert out.exists()


class Stuck(Source):
    """Never comes to an end with the sixth block."""

    def __call__(self, *asked: Any) -> Any:
        if self.asked == 5:
            time.sleep(600)
        return super().__call__(*asked)


def test_a_killed_run_is_taken_up_and_gives_the_same_file(
    tmp_path: Path, whole: bytes, killed_after_five_parts: Callable[[str, Path], None]
) -> None:
    out = tmp_path / "scores.parquet"
    killed_after_five_parts("test_batch_file", out)
    assert not out.exists()
    again = Source()
    run(out, again)
    assert again.asked == 9 - 5
    assert out.read_bytes() == whole


def same_rows(one: Rows, other: Rows) -> None:
    for name in ("customer", "product", "channel", "held", "opted_out"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_rows_at_the_end_of_the_data_are_those_of_the_history(simulated_home: Home) -> None:
    build = simulated_home.build()
    known = build.bank.tables[Table.CUSTOMERS][CUSTOMER_ID].unique().to_pylist()
    for later in (timedelta(0), timedelta(days=400)):
        asked = entities([*known[::-1], "stranger"])
        asked[AS_OF] = pd.Series([build.data_end + later] * len(asked)).astype("datetime64[us, UTC]")
        at = np.full(len(asked), (build.data_end + later).timestamp())
        schema = row_schema(build.bank)
        assert states_for_rows(build, asked).keys() < {view.name for view in build.views}  # not the history's
        same_rows(*(assemble(of(build, asked), at, schema) for of in (states_for_rows, history)))
        parts = list(states_in_parts(build, asked, 7))
        assert [part.start for part, _ in parts] == list(range(0, len(asked), 7))
        rows = stacked([assemble(states, at[part], schema) for part, states in parts])
        same_rows(rows, assemble(history(build, asked), at, schema))


def test_what_is_told_after_the_end_of_the_data_is_told_and_customers_still_come_from_the_store(
    simulated_home: Home, tmp_path: Path
) -> None:
    """The hour's take-ups are told at its end, later than the last event: so it is of nearly every bank."""
    folder = tmp_path / "build"
    shutil.copytree(simulated_home.build().folder, folder)
    build = Build.open(folder)
    [market] = [view for view in build.views if view.entity == "market"]
    known = build.bank.tables[Table.CUSTOMERS][CUSTOMER_ID].unique().to_pylist()
    states = pq.read_table(build.view_path(market))
    hour = pa.scalar(build.data_end + timedelta(minutes=30), pa.timestamp("us", "UTC"))
    more = states.slice(states.num_rows - 1)
    for name in market.numbers:
        more = more.set_column(more.schema.get_field_index(name), states.schema.field(name), pa.array([41.0]))
    for name in (EVENT_TIMESTAMP, CREATED_TIMESTAMP):
        more = more.set_column(more.schema.get_field_index(name), states.schema.field(name), pa.array([hour.as_py()]))
    pq.write_table(pa.concat_tables([states, more.cast(states.schema)]), build.view_path(market))
    asked = entities([*known, "stranger"])
    later = [timedelta(minutes=20 * (row % 3)) for row in range(len(asked))]
    asked[AS_OF] = pd.Series([build.data_end + wait for wait in later]).astype("datetime64[us, UTC]")
    at = np.array([(build.data_end + wait).timestamp() for wait in later])
    schema = row_schema(build.bank)
    expected = assemble(history(build, asked), at, schema)
    for view in build.views:
        if view.entity == "customer":  # what lies before the statistics at the end: no history can be read any more
            with build.view_path(view).open("r+b") as file:
                file.seek(4)
                file.write(b"\0" * 64)
    parts = [assemble(states, at[part], schema) for part, states in states_in_parts(build, asked, 50)]
    same_rows(stacked(parts), expected)
    told = [states[market.name].numbers[:, 0] == 41.0 for _, states in states_in_parts(build, asked, 50)]
    assert np.concatenate(told).tolist() == [wait >= timedelta(minutes=30) for wait in later]


def test_who_asks_before_the_end_of_the_data_is_told_what_was_known_then(simulated_home: Home) -> None:
    build = simulated_home.build()
    known = build.bank.tables[Table.CUSTOMERS][CUSTOMER_ID].unique().to_pylist()[:20]
    asked = entities(known)
    asked[AS_OF] = pd.Series([build.data_end - timedelta(days=60)] * len(asked)).astype("datetime64[us, UTC]")
    told, expected = states_for_rows(build, asked), history(build, asked)
    for name, state in expected.items():
        np.testing.assert_array_equal(told[name].at, state.at)
        np.testing.assert_array_equal(told[name].numbers, state.numbers)

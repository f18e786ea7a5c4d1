"""The row a model is trained on and the row it scores online are one row."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from features.assemble import assemble, row_schema
from features.build import build_features
from features.history import history
from features.home import Build, Home
from features.packed import OnlineStates
from features.schema import Rows

PARTS = ("customer", "product", "channel", "held", "opted_out")
TABLES = ("customers", "holdings", "transactions", "timeline")


@pytest.fixture(scope="module")
def build(simulated_home: Home) -> Build:
    return simulated_home.build()


def customers_of(build: Build) -> list[str]:
    ids = build.bank.tables["customers"]["customer_id"].unique().to_pylist()  # type: ignore[index]
    return [*sorted(ids)[:120], "never heard of"]


def offline_rows(build: Build, customers: list[str], moment: datetime) -> Rows:
    as_of = pd.Series([pd.Timestamp(moment)] * len(customers)).astype("datetime64[us, UTC]")
    spine = pd.DataFrame({"customer_id": customers, "as_of": as_of})
    return assemble(history(build, spine), np.full(len(customers), moment.timestamp()), row_schema(build.bank))


def online_rows(build: Build, schema_of: Build, customers: list[str], moment: datetime) -> Rows:
    states = OnlineStates(build.online_path, build.views).read(customers)
    return assemble(states, np.full(len(customers), moment.timestamp()), row_schema(schema_of.bank))


def assert_same_rows(offline: Rows, online: Rows) -> None:
    for part in PARTS:
        np.testing.assert_allclose(getattr(offline, part), getattr(online, part), rtol=1e-6, atol=1e-6, err_msg=part)


def test_online_rows_equal_offline_rows_at_the_end_of_the_data(build: Build) -> None:
    customers, moment = customers_of(build), build.data_end + timedelta(hours=5)
    offline = offline_rows(build, customers, moment)
    assert_same_rows(offline, online_rows(build, build, customers, moment))
    assert offline.held.any(), "somebody holds something, or this world proves nothing"
    assert offline.opted_out.any(), "somebody opted out, or this world proves nothing"


@pytest.mark.parametrize("days_before", [30, 75])
def test_a_store_fed_until_a_moment_serves_what_history_tells_of_that_moment(
    build: Build, simulated_bank: Path, tmp_path: Path, days_before: int
) -> None:
    moment = build.data_end - timedelta(days=days_before)
    for table in TABLES:
        rows = pq.read_table(simulated_bank / f"{table}.parquet").to_pandas()
        folder = tmp_path / "bank"
        folder.mkdir(exist_ok=True)
        rows[rows.event_timestamp <= moment].to_parquet(folder / f"{table}.parquet", index=False)
    (tmp_path / "bank" / "catalog.toml").write_bytes((simulated_bank / "catalog.toml").read_bytes())
    fed = build_features(tmp_path / "bank", Home(tmp_path / "home"))
    customers = customers_of(build)
    assert_same_rows(offline_rows(build, customers, moment), online_rows(fed, build, customers, moment))

"""A fact from after the question, or from after `--until`, changes no feature, no label and no score."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.assemble import row_schema
from features.build import build_features
from features.home import Build, Home
from serving.batch import rows_of, score_entities
from serving.choice import ChoiceModel
from training.dataset import dataset
from training.families import FAMILIES
from training.fit_calibration import fit_calibration
from training.plan import MODELS, Order, make_plan

HIDDEN_DAYS = 45
PARTS = ("customer", "product", "channel", "held", "opted_out")


def add_future(folder: Path, moment: pd.Timestamp) -> None:
    """Facts of all tables after `moment`: known customers change, new ones come, everybody buys and refuses."""
    customers = pq.read_table(folder / "customers.parquet").to_pandas()
    later = customers.drop_duplicates("customer_id").copy()
    later["event_timestamp"] = moment + timedelta(seconds=1)
    later["region"] = "a value never seen before"
    strangers = later.head(20).assign(customer_id=[f"stranger-{number}" for number in range(20)])
    added = {"customers": pd.concat([later, strangers])}
    people = list(later.customer_id.head(100)) + list(strangers.customer_id)
    products = pq.read_table(folder / "holdings.parquet").to_pandas().product_id.unique()
    moments = [moment + timedelta(hours=hour) for hour in range(len(people))]
    common = {"customer_id": people, "event_timestamp": moments}
    product = [products[number % len(products)] for number in range(len(people))]
    added["holdings"] = pd.DataFrame({**common, "product_id": product, "action": "opened"})
    added["transactions"] = pd.DataFrame({**common, "amount": 1e6, "category": "lottery", "balance": 1e6})
    timeline = pq.read_table(folder / "timeline.parquet").to_pandas()
    ids = [f"future-{number}" for number in range(len(people))]
    kinds = ["converted", "opted_out", "visited", "complained"]
    added["timeline"] = pd.DataFrame(
        {
            **dict.fromkeys(timeline),
            **common,
            "event_id": ids,
            "kind": [kinds[number % 4] for number in range(len(people))],
            "channel": timeline.channel.dropna().iloc[0],
            "product_id": product,
        }
    )
    for name, rows in added.items():
        rows = rows[rows.event_timestamp > moment]
        table = pq.read_table(folder / f"{name}.parquet")
        more = pa.Table.from_pandas(rows[table.column_names], schema=table.schema, preserve_index=False)
        pq.write_table(pa.concat_tables([table, more]), folder / f"{name}.parquet")


@pytest.fixture(scope="module")
def builds(
    simulated_bank: Path, simulated_home: Home, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Build, Build, pd.Timestamp]:
    """The bank, the bank with an injected future, and the moment after which it was injected."""
    calm = simulated_home.build()
    moment = pd.Timestamp(calm.data_end) - timedelta(days=HIDDEN_DAYS)
    folder = tmp_path_factory.mktemp("told") / "bank"
    shutil.copytree(simulated_bank, folder, ignore=shutil.ignore_patterns("truth"))
    add_future(folder, moment)
    return calm, build_features(folder, Home(tmp_path_factory.mktemp("home"))), moment


@pytest.mark.parametrize("model", MODELS)
def test_facts_after_until_change_no_row_no_label_and_no_score(
    builds: tuple[Build, Build, pd.Timestamp], model: str
) -> None:
    calm, told, moment = builds
    learned = []
    for build in (calm, told):
        plan, known = make_plan(Order(model, until=moment.to_pydatetime(), horizon_days=14.0), build.bank)
        data = dataset(build, plan.question, plan.spine(known, plan.end), row_schema(known, plan.end_time))
        prior = FAMILIES["prior"].fit(plan.question, data.examples, data.examples, 3)
        like = replace(prior, rounds=15, params={**prior.params, "learning_rate": 0.1})
        fitted = FAMILIES["lightgbm"].refit(plan.question, data.examples, like, 3)
        calibration = fit_calibration(plan.question, fitted.scorer, data.examples)
        choice = ChoiceModel(plan.question, fitted.scorer, calibration, data.rows.schema)
        people = sorted(set(data.spine.customer_id))[:80]
        entities = pd.DataFrame({"customer_id": people, "as_of": [moment] * len(people)})
        entities["as_of"] = entities.as_of.astype("datetime64[us, UTC]")
        learned.append((data, score_entities(build, choice, entities), rows_of(build, choice, entities)))
    (first, first_scores, first_rows), (second, second_scores, second_rows) = learned
    assert len(first) > 100, "enough rows to prove something"
    assert first.rows.schema == second.rows.schema
    for name in ("customer_id", "as_of", "closes", "offered", "outside", "taken", "previous"):
        np.testing.assert_array_equal(getattr(first.spine, name), getattr(second.spine, name), err_msg=name)
    np.testing.assert_array_equal(first.available, second.available)
    for part in PARTS:
        np.testing.assert_array_equal(getattr(first.rows, part), getattr(second.rows, part), err_msg=part)
        np.testing.assert_array_equal(getattr(first_rows, part), getattr(second_rows, part), err_msg=part)
    pd.testing.assert_frame_equal(first_scores, second_scores, check_exact=True)

"""Lists of what could be bought, made up from a real set's launch dates: kept to the letter, and worth knowing.

A product's launch is its first sale; from then on it may be bought. Beside it a stricter world: of what is launched,
each product is at hand with a probability of its own, drawn anew for every purchase with a fixed seed. Purchases of
what was not at hand are left out, so what is left are choices among what was, and popularity counts availability too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from features.build import build_features
from features.home import Build, Home
from features.progress import SILENT
from serving.batch import score_entities
from serving.choice import ChoiceModel
from training import metrics
from training.contenders import fit, judge_all
from training.evaluate import POPULARITY, PRIOR, Judgement
from training.plan import NEXT_BEST_PRODUCT, Order
from training.prepared import Prepared, prepare

pytestmark = [pytest.mark.proof, pytest.mark.timeout(900)]

LAUNCHED, AT_HAND = "launched", "at hand"
HORIZON_DAYS = 1.0
SEED = 20200701
SCORED = 3000
"""Entities of the last tenth that are scored as a batch."""
FAMILIES = (PRIOR, "counts")


@dataclass(frozen=True)
class Learned:
    world: str
    entities: pd.DataFrame
    prepared: Prepared
    models: dict[str, ChoiceModel]
    test: Judgement


def purchases(folder: Path) -> pd.DataFrame:
    """One entity per customer and moment of purchase, 1 µs before it: `bought` lists what was."""
    events = pq.read_table(folder / "timeline.parquet").to_pandas()
    events = events[(events.kind == "converted") & events.product_id.notna()]
    moments = events.groupby(["event_timestamp", "customer_id"]).product_id.agg(list).reset_index(name="bought")
    moments["as_of"] = (moments.event_timestamp - pd.Timedelta(microseconds=1)).astype("datetime64[us, UTC]")
    return moments[["customer_id", "as_of", "bought"]]


def launched(moments: pd.DataFrame) -> pd.DataFrame:
    """`eligible`: what had been sold at least once by `as_of`. Purchases of nothing that had are left out."""
    first = moments.explode("bought").groupby("bought").as_of.min()
    lists = [frozenset(product for product, at in first.items() if at < moment) for moment in moments.as_of]
    return with_a_choice(moments.assign(eligible=lists))


def at_hand(moments: pd.DataFrame, products: Sequence[str]) -> pd.DataFrame:
    """`eligible`: of what was launched, each with its own probability, between a fifth and all."""
    draw = np.random.default_rng(SEED)
    rate = dict(zip(products, draw.permutation(np.linspace(0.2, 1.0, len(products))), strict=True))
    lists = [
        frozenset(product for product in sorted(offered) if draw.random() < rate[product])
        for offered in moments.eligible
    ]
    return with_a_choice(moments.assign(eligible=lists))


def with_a_choice(moments: pd.DataFrame) -> pd.DataFrame:
    """Rows whose purchase was among what was eligible, all of it."""
    kept = [set(bought) <= eligible for bought, eligible in zip(moments.bought, moments.eligible, strict=True)]
    return moments[kept].reset_index(drop=True)


@pytest.fixture(scope="module")
def build(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    folder = real_data / "insurance_purchases"
    if not folder.is_dir():
        pytest.skip("insurance_purchases does not lie beside this checkout")
    return build_features(folder, Home(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module", params=[LAUNCHED, AT_HAND])
def learned(request: pytest.FixtureRequest, build: Build, real_data: Path) -> Learned:
    """Both worlds, learned from by the cheap families."""
    entities = launched(purchases(real_data / "insurance_purchases"))
    if request.param == AT_HAND:
        entities = at_hand(entities, build.catalog.product_ids)
    rows = entities[["customer_id", "as_of", "eligible"]]
    prepared = prepare(Order(NEXT_BEST_PRODUCT, entities=rows, horizon_days=HORIZON_DAYS), build)
    contenders = {name: fit(name, prepared.parts, 0, SILENT) for name in FAMILIES}
    test = judge_all(contenders, prepared.parts["train"], prepared.test, 0)
    for name in contenders:
        gap = test.difference(name, POPULARITY)[metrics.HR_AT_3]
        print(f"{request.param}: {name} {test.judged[name].values[metrics.HR_AT_3]:.4f}, {gap.told()} over popularity")
    return Learned(request.param, entities, prepared, {name: one.model for name, one in contenders.items()}, test)


def test_no_ineligible_product_is_ranked(learned: Learned, build: Build) -> None:
    newest = learned.entities.tail(len(learned.entities) // 10).tail(SCORED)
    for model in learned.models.values():
        scores = score_entities(build, model, newest[["customer_id", "as_of", "eligible"]])
        lists = {(one.customer_id, one.as_of): one.eligible for one in newest.itertuples()}
        asked = zip(scores.customer_id, scores.as_of, scores.product_id, strict=True)
        assert sum(product not in lists[customer, at] for customer, at, product in asked) == 0
        assert len(scores) == newest.eligible.map(len).sum(), "and every eligible product is"


def test_what_was_learned_stands_beside_popularity_masked_by_the_same_lists(learned: Learned) -> None:
    """Surely better where availability differs; where nearly everything could be bought, never surely worse."""
    gap = learned.test.difference("counts", POPULARITY)[metrics.HR_AT_3]
    assert gap.above_zero if learned.world == AT_HAND else not gap.below_zero


def test_popularity_divided_by_availability_beats_popularity_where_availability_differs(learned: Learned) -> None:
    gap = learned.test.difference(PRIOR, POPULARITY)[metrics.HR_AT_3]
    assert gap.above_zero if learned.world == AT_HAND else not gap.below_zero

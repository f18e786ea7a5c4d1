"""The content model: what is expected of each content, what may be sent to whom, and files that are verified."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import pytest

from features.catalog import Catalog, Channel, Content, Product
from features.errors import ArtefactError
from features.schema import Attribute, Rows, RowSchema
from serving.content_batch import frame_of
from serving.content_model import BOOSTER_FILE, Arms, ContentModel, content_lines, line_width, unfit
from serving.sendable import products_of, sendable

CATALOG = Catalog(
    "EUR",
    "UTC",
    (Product("card", "Card", holdable=True, margin=100.0), Product("loan", "Loan", margin=50.0)),
    (Channel("sms", "SMS", "outbound", 1.0), Channel("app", "App", "both"), Channel("web", "Web", "inbound")),
    (
        Content("card en", "en", "Card", product_id="card"),
        Content("card de", "de", "Karte", product_id="card"),
        Content("loan sms", "en", "Loan", product_id="loan", channel="sms"),
        Content("hello", "en", "Hello", channel="app"),
        Content("site", "en", "Site", channel="web"),
    ),
    ({"id": "r", "kind": "reach", "channel": "app", "attribute": "has_app"},),
)
SCHEMA = RowSchema(
    products=("card", "loan"),
    holdable=(True, False),
    channels=("sms", "app", "web"),
    attributes=(Attribute("has_app", "flag"), Attribute("language", "text")),
    vocabularies=(("language", ("en", "de")),),
    time_zone="UTC",
    customer_names=("has_app", "language = en", "language = de"),
    product_names=("popularity",),
    channel_names=("touches",),
)
RATE = np.array([0.1, 0.1, 0.3, 0.0, 0.0, 0.02])


def rows(*customers: tuple[float, float, float], held: bool = False, opted_out: tuple[str, ...] = ()) -> Rows:
    """Customers of has_app, reads English, reads German."""
    n = len(customers)
    out = np.array([[channel in opted_out for channel in SCHEMA.channels]] * n)
    product = np.zeros((n, 2, 1), np.float32)
    return Rows(
        np.array(customers, np.float32), product, np.zeros((n, 3, 1), np.float32),
        np.array([[held, held]] * n), out, SCHEMA,
    )  # fmt: skip


def arms() -> Arms:
    tried = np.array([True, True, True, False, True, True])
    worth = np.array([100.0, 100.0, 50.0, 10.0, 10.0, 10.0])
    cost = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    names = tuple(content.id for content in CATALOG.contents)
    return Arms(names, products_of(CATALOG), tried, RATE, worth, cost, "EUR")


def trees() -> lightgbm.Booster:
    """Who has the app takes the card far more often."""
    people = rows(*[(float(one % 2), 1.0, 0.0) for one in range(400)])
    arm = np.arange(400) // 2 % 2 * 5
    lines = content_lines(people, products_of(CATALOG), np.arange(400), arm)
    taken = (people.customer[:, 0] == 1) & (arm == 0)
    settings = {"objective": "binary", "min_data_in_leaf": 5, "verbosity": -1, "num_threads": 1, "learning_rate": 0.5}
    data = lightgbm.Dataset(lines, taken.astype(float), init_score=arms().logit[arm])
    return lightgbm.Booster(model_str=lightgbm.train(settings, data, 20).model_to_string())


EN, DE, NO_APP, UNKNOWN = (1.0, 1.0, 0.0), (1.0, 0.0, 1.0), (0.0, 1.0, 0.0), (np.nan, 0.0, 0.0)


def may(found: Rows, **options: object) -> list[set[str]]:
    allowed = sendable(found, CATALOG, **options)  # type: ignore[arg-type]
    return [{content.id for content, yes in zip(CATALOG.contents, one, strict=True) if yes} for one in allowed]


def test_a_content_is_sent_in_the_language_that_serving_would_choose_on_a_channel_that_reaches() -> None:
    # there is nothing about the loan in German, and no greeting: serving then speaks the catalogue's first language
    assert may(rows(EN, DE, NO_APP, UNKNOWN)) == [
        {"card en", "loan sms", "hello"},
        {"card de", "loan sms", "hello"},
        {"card en", "loan sms"},
        {"card en", "loan sms"},
    ]


def test_held_products_refused_channels_and_products_that_are_not_eligible_are_not_written_about() -> None:
    assert may(rows(EN, held=True)) == [{"loan sms", "hello"}]
    assert may(rows(EN, opted_out=("sms",))) == [{"card en", "hello"}]
    assert may(rows(NO_APP, opted_out=("sms",))) == [set()]
    assert may(rows(EN), eligible=[frozenset({"loan"})]) == [{"loan sms", "hello"}]


def test_a_constant_model_expects_the_same_of_everybody_and_nothing_of_what_cannot_be_sent() -> None:
    model = ContentModel(arms(), SCHEMA)
    people = rows(EN, DE)
    found = model.rewards(people, model.available(people, CATALOG))
    # 0.1 × 100 − 1; 0.3 × 50 − 1; never tried, inbound only or in another language: its cost; no contact 0.02 × 10
    np.testing.assert_allclose(found, [[9.0, -1.0, 14.0, 0.0, 0.0, 0.2], [-1.0, 9.0, 14.0, 0.0, 0.0, 0.2]])


def test_trees_tell_customers_apart_beyond_the_margin_only() -> None:
    people = rows((1.0, 1.0, 0.0), (0.0, 1.0, 0.0))
    model = ContentModel(arms(), SCHEMA, trees())
    allowed = model.available(people, CATALOG)
    found = model.rewards(people, allowed)
    assert found[0, 0] > 50.0 > 0.0 > found[1, 0]
    kept = replace(model, margin=1e6).rewards(people, allowed)
    np.testing.assert_allclose(kept, ContentModel(arms(), SCHEMA).rewards(people, allowed))


def test_scores_are_best_first_and_no_contact_wins_ties() -> None:
    model = ContentModel(arms(), SCHEMA)
    as_of = pd.Series(pd.to_datetime(["2024-01-01", "2024-01-02"], utc=True)).astype("datetime64[us, UTC]")
    entities = pd.DataFrame({"customer_id": ["a", "b"], "as_of": as_of})
    rewards = np.array([[1.0, 3.0, 2.0, 0.0, 0.0, 0.0], [0.0] * 6])
    found = frame_of(entities, model, rewards)
    assert found["content_id"].tolist()[:4] == ["card de", "loan sms", "card en", None]
    assert found["content_id"].tolist()[6] is None
    assert found["rank"].tolist() == [1, 2, 3, 4, 5, 6] * 2
    assert found["customer_id"].tolist() == ["a"] * 6 + ["b"] * 6


@pytest.mark.parametrize("personal", [False, True])
def test_a_saved_model_answers_as_before(tmp_path: Path, personal: bool) -> None:
    model = ContentModel(arms(), SCHEMA, trees() if personal else None, margin=0.5)
    model.save(tmp_path / "model")
    loaded = ContentModel.load(tmp_path / "model")
    people = rows(EN, DE, NO_APP, UNKNOWN)
    allowed = model.available(people, CATALOG)
    np.testing.assert_array_equal(loaded.rewards(people, allowed), model.rewards(people, allowed))
    assert (loaded.family, loaded.margin) == (model.family, 0.5)


def test_a_damaged_or_senseless_file_is_refused(tmp_path: Path) -> None:
    ContentModel(arms(), SCHEMA, trees()).save(tmp_path / "model")
    file = tmp_path / "model" / BOOSTER_FILE
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ArtefactError, match="SHA-256"):
        ContentModel.load(tmp_path / "model")
    for wrong in (
        replace(arms(), rate=np.append(RATE[:-1], 1.5)),
        replace(arms(), product=np.array([0, 7, 1, -1, -1])),
        replace(arms(), cost=np.full(3, 1.0)),
    ):
        folder = tmp_path / f"wrong {id(wrong)}"
        ContentModel(wrong, SCHEMA).save(folder)
        with pytest.raises(ArtefactError, match="train again"):
            ContentModel.load(folder)


def test_trees_that_read_another_number_of_columns_are_refused(tmp_path: Path) -> None:
    lines = np.random.default_rng(0).normal(size=(200, line_width(SCHEMA) - 1))
    other = lightgbm.train({"verbosity": -1, "num_threads": 1}, lightgbm.Dataset(lines, lines[:, 0]), 3)
    ContentModel(arms(), SCHEMA, other).save(tmp_path / "model")
    with pytest.raises(ArtefactError, match="columns"):
        ContentModel.load(tmp_path / "model")


def test_rows_or_a_catalogue_of_another_kind_are_refused() -> None:
    model = ContentModel(arms(), SCHEMA)
    assert unfit(model, SCHEMA, CATALOG) is None
    assert "contents" in str(unfit(model, SCHEMA, replace(CATALOG, contents=CATALOG.contents[:2])))
    assert "channels" in str(unfit(model, replace(SCHEMA, channels=("sms",)), CATALOG))
    other = replace(rows(EN), schema=replace(SCHEMA, time_zone="Asia/Shanghai"))
    with pytest.raises(ArtefactError, match="train again on the present features"):
        model.rewards(other, np.ones((1, 6), np.bool_))


def test_a_bank_without_products_has_lines_too() -> None:
    schema = replace(SCHEMA, products=(), holdable=())
    bare = Rows(np.zeros((2, 3), np.float32), np.zeros((2, 0, 1), np.float32), np.zeros((2, 3, 1), np.float32),
                np.zeros((2, 0), bool), np.zeros((2, 3), bool), schema)  # fmt: skip
    lines = content_lines(bare, np.array([-1, -1]), np.array([0, 1]), np.array([1, 2]))
    assert np.isnan(lines[:, 3]).all()
    assert lines[:, -1].tolist() == [1.0, 2.0]

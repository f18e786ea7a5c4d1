"""More rows for the ladder: who judges which rows, that noise is not promoted, and that a small edge is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from features.errors import InputError
from features.progress import SILENT, Progress
from features.schema import Attribute, Float64, Rows, RowSchema
from serving.question import Question
from training.cross_fit import MOST_PAIRS, cross_fitted
from training.dataset import Dataset
from training.evaluate import Judgement
from training.ladder import Evidence, Ladder, climb
from training.metrics import HR_AT_3, LOG_LOSS
from training.plan import Order, Plan
from training.prepared import Prepared
from training.spine import Spine
from training.split import Split, by_customer, by_time

HOUR = 3_600_000_000
M = 8
FAMILIES = ("counts", "lightgbm", "torch", "ensemble")
ORDER = Order("next-best-product")


def world(customers: int, seed: int, edge: float = 0.0, by: str = "customer", each: int = 2) -> Prepared:
    """Customers who take by popularity alone, but a share `edge` of the times what they like best: column 0.

    The other columns are noise, one per family and candidate: what fakes of that family add to what they know.
    """
    draw, n = np.random.default_rng(seed), customers * each
    liked = np.repeat(draw.integers(M, size=customers), each)
    popular = np.exp(-0.25 * np.arange(M))
    choice = np.where(draw.random(n) < edge, liked, draw.choice(M, n, p=popular / popular.sum()))
    noise = draw.normal(size=(n, len(FAMILIES) * M))
    columns = np.concatenate([liked[:, None], noise], axis=1).astype(np.float32)
    names = ("liked", *(f"{family} {one}" for family in FAMILIES for one in range(M)))
    products = tuple(f"p{one}" for one in range(M))
    schema = RowSchema(products, (False,) * M, (), (Attribute("liked", "liked"),), (), "UTC", names, (), ())
    rows = Rows(
        columns, np.zeros((n, M, 0), np.float32), np.zeros((n, 0, 0), np.float32), np.zeros((n, M), bool),
        np.zeros((n, 0), bool), schema,
    )  # fmt: skip
    who = np.repeat(np.array([f"c{one}" for one in range(customers)], dtype=object), each)
    at = draw.permutation(n).astype(np.int64) * HOUR
    every = np.ones((n, M), dtype=bool)
    spine = Spine(
        who, at, at + 5 * HOUR, np.full(n, "entity", dtype=object), every, np.zeros(n, np.bool_),
        np.arange(M) == choice[:, None], np.full(n, -1, dtype=np.int64),
    )  # fmt: skip
    question = Question("next-best-product", products, "product", "joint", False, 1.0)
    data = Dataset(question, spine, rows, every)
    split = by_customer(who) if by == "customer" else by_time(at, spine.closes, spine.sort)
    parts = {name: data.take(getattr(split, name)) for name in ("train", "valid", "test")}
    return Prepared(Plan(ORDER, question, "entities", 0, 1, 1, 1), schema, data, split, parts, None)


def fakes(
    asked: str, parts: Mapping[str, Dataset], seed: int, progress: Progress, knows: float = 0.0, noise: float = 0.2
) -> dict[str, Any]:
    """The prior counts; the others add noise of their own to it, and know what is liked if `knows` is above 0."""
    popular = np.log(parts["train"].taken.sum(axis=0) + 1.0)

    def contender(place: int | None) -> Any:
        def probabilities(rows: Rows, available: np.ndarray) -> Float64:
            said = np.tile(popular, (len(rows), 1))
            if place is not None:
                said = said + noise * rows.customer[:, 1 + place * M : 1 + (place + 1) * M]
                said = said + knows * (rows.customer[:, :1] == np.arange(M))
            shares = np.exp(said)
            return np.asarray(shares / shares.sum(axis=1, keepdims=True), dtype=np.float64)

        return SimpleNamespace(model=SimpleNamespace(probabilities=probabilities))

    return {"prior": contender(None), **{name: contender(place) for place, name in enumerate(FAMILIES)}}


def ladders(prepared: Prepared, fit: Callable[..., Any]) -> tuple[Ladder, Ladder]:
    """Where valid alone decides, and where more rows may be asked."""
    parts = prepared.parts
    contenders = fit("all", parts, 0, SILENT)

    def judged(part: Dataset) -> Judgement:
        said = {name: one.model.probabilities(part.rows, part.available) for name, one in contenders.items()}
        return Judgement.of_rows(said, part, 0, (HR_AT_3,))

    valid, test = judged(parts["valid"]), judged(parts["test"])
    more = partial(cross_fitted, prepared, ORDER, tuple(contenders), HR_AT_3, SILENT, fit)
    return climb("all", valid, test, HR_AT_3), climb("all", valid, test, HR_AT_3, more)


def judged_by_fakes(prepared: Prepared, fit: Callable[..., Any] = fakes, order: Order = ORDER) -> Evidence:
    return cross_fitted(prepared, order, ("prior", *FAMILIES), HR_AT_3, SILENT, fit)


def seen_by(prepared: Prepared) -> list[tuple[Dataset, Dataset]]:
    """What the families of each fold learn from and stop on."""
    seen = []

    def watching(asked: str, parts: Mapping[str, Dataset], seed: int, progress: Progress) -> dict[str, Any]:
        seen.append((parts["train"], parts["valid"]))
        return fakes(asked, parts, seed, progress)

    judged_by_fakes(prepared, watching)
    return seen


def names_of(data: Dataset) -> set[tuple[str, int]]:
    return set(zip(data.customer_id.tolist(), data.spine.as_of.tolist(), strict=True))


def test_learners_that_know_no_more_than_the_prior_are_not_promoted_in_57_of_60_worlds() -> None:
    worlds = [ladders(world(320, seed), fakes)[1] for seed in range(60)]
    assert sum(one.judged_on != "the validation rows" for one in worlds) > 50, "valid alone can hardly ever tell"
    assert sum(one.family == "prior" for one in worlds) >= 57


@pytest.mark.parametrize("by", ["customer", "time"])
def test_a_small_edge_that_valid_alone_does_not_show_is_promoted_on_more_rows(by: str) -> None:
    knowing = partial(fakes, knows=3.0, noise=0.05)
    both = [ladders(world(800, seed, edge=0.15, by=by), knowing) for seed in range(15)]
    alone, asked = (sum(one.family != "prior" for one in each) for each in zip(*both, strict=True))
    assert alone <= 8
    assert asked >= 12


def test_by_customer_every_row_of_train_and_valid_is_judged_by_what_other_customers_taught() -> None:
    prepared = world(400, 0)
    known = names_of(prepared.parts["train"]) | names_of(prepared.parts["valid"])
    people = {name for name, _ in known}
    for train, valid in seen_by(prepared):
        taught, stopped = set(train.customer_id), set(valid.customer_id)
        assert not taught & stopped
        judged = people - taught - stopped
        assert judged, "some customers taught nothing and stopped nothing: they are judged"
        assert names_of(train) | names_of(valid) <= known, "a test row taught"
    assert judged_by_fakes(prepared).judged.rows == len(known)


def test_by_time_three_blocks_are_judged_by_what_was_known_before_each() -> None:
    prepared = world(400, 0, by="time")
    assert prepared.split.borders is not None
    judged = []

    def watching(asked: str, parts: Mapping[str, Dataset], seed: int, progress: Progress) -> dict[str, Any]:
        found = fakes(asked, parts, seed, progress)
        taught = max(parts["train"].spine.closes.max(), parts["valid"].spine.closes.max())
        assert parts["train"].spine.closes.max() <= parts["valid"].spine.as_of.min()
        inside = found["prior"].model.probabilities

        def probabilities(rows: Rows, available: np.ndarray) -> Float64:
            judged.append((taught, rows))
            return np.asarray(inside(rows, available))

        return {**found, "prior": SimpleNamespace(model=SimpleNamespace(probabilities=probabilities))}

    evidence = judged_by_fakes(prepared, watching)
    place = {
        tuple(row): at for row, at in zip(prepared.data.rows.customer.tolist(), prepared.data.spine.as_of, strict=True)
    }
    assert len(judged) == 3
    for taught, rows in judged:
        moments = [place[tuple(row)] for row in rows.customer.tolist()]
        assert taught <= min(moments)
        assert max(moments) < prepared.split.borders[1], "a test row was judged"
    share = evidence.judged.rows / (len(prepared.parts["train"]) + len(prepared.parts["valid"]))
    assert 0.55 < share < 0.65, "what two of five blocks teach is asked of nothing before"


def test_the_same_order_gives_the_same_evidence() -> None:
    one, other = (judged_by_fakes(world(400, 3)) for _ in range(2))
    assert one.judged.differences == other.judged.differences
    assert (
        one.how
        == other.how
        == f"{one.judged.rows:,} rows in 4 folds of customers, each judged by what the others taught"
    )


def test_the_log_loss_is_told_beside_the_metric_that_decides() -> None:
    assert set(judged_by_fakes(world(400, 3)).judged.difference("counts", "prior")) == {HR_AT_3, LOG_LOSS}


def test_a_family_that_some_fold_could_not_fit_is_no_rung() -> None:
    times = iter(range(10))

    def failing(asked: str, parts: Mapping[str, Dataset], seed: int, progress: Progress) -> dict[str, Any]:
        found = fakes(asked, parts, seed, progress)
        return found if next(times) else {name: one for name, one in found.items() if name != "ensemble"}

    assert judged_by_fakes(world(400, 3), failing).judged.families == ("prior", "counts", "lightgbm", "torch")


def test_what_is_too_large_too_small_or_tuned_is_not_cross_fitted() -> None:
    with pytest.raises(InputError, match="tuned"):
        judged_by_fakes(world(400, 3), order=replace(ORDER, tune=3))
    with pytest.raises(InputError, match=r"from 500 take-ups on .* however these are 1[0-9]{2} and"):
        judged_by_fakes(world(80, 3))
    small, rows = world(80, 3), MOST_PAIRS // M + 1
    again, none = np.zeros(rows, np.int64), np.zeros(0, np.int64)
    split = Split(np.arange(rows), none, none, 0, None)
    with pytest.raises(InputError, match=r"up to 1,500,000 pairs .* and 1,500,008"):
        judged_by_fakes(replace(small, data=small.data.take(again), split=split))

"""Side by side: baselines by counting, what is judged on which rows, and when a family is promoted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from features.schema import Rows, RowSchema
from serving.question import Question
from training import metrics
from training.bootstrap import Interval
from training.dataset import Dataset
from training.evaluate import Judgement, baselines, clearly_better, compare, judge, primary_metric
from training.spine import Spine

Make = Callable[..., Dataset]


@pytest.fixture
def dataset() -> Make:
    """`dataset(taken, ...)`: rows of one customer each, in which the given candidates (positions) were taken."""

    def make(
        taken: Sequence[set[int]], candidates: int = 4, block: Any = "product", link: Any = "joint",
        sort: Sequence[str] | None = None, previous: Sequence[int] | None = None, available: Any = None,
    ) -> Dataset:  # fmt: skip
        n = len(taken)
        names = tuple(f"p{number}" for number in range(candidates))
        sorts = np.array(sort or ["entity"] * n, dtype=object)
        outside = (sorts != "occasion") & (sorts != "touch")
        marked = np.array([[number in row for number in range(candidates)] for row in taken])
        shown = np.ones((n, candidates), dtype=bool) if available is None else np.asarray(available)
        question = Question("m", names, block, link, bool(outside.any()), 7.0)
        schema = RowSchema(names, (False,) * candidates, names, (), (), "UTC", ("x",), ("x",), ("x",))
        blank = np.zeros((n, candidates, 1), np.float32)
        rows = Rows(np.zeros((n, 1), np.float32), blank, blank, np.zeros_like(marked), np.zeros_like(marked), schema)
        moments = np.arange(n, dtype=np.int64)
        ids = np.array([f"c{number}" for number in range(n)], dtype=object)
        before = np.array(previous or [-1] * n, dtype=np.int64)
        spine = Spine(ids, moments, moments + 1, sorts, shown, outside, marked, before)
        return Dataset(question, spine, rows, shown)

    return make


def test_taken_together_shares_one_choice_and_nothing_is_the_outside_option(dataset: Make) -> None:
    examples = dataset([{0, 1}, {2}, set()]).examples
    assert examples.chosen.tolist() == [[0.5, 0.5, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1]]
    assert examples.weight.tolist() == [1, 1, 1]


def test_popularity_is_the_order_of_raw_counts_masked(dataset: Make) -> None:
    learned = dataset([{1}, {1}, {1}, {3}, {3}, {0}])
    asked = dataset([{1}, {3}], available=[[True] * 4, [True, False, True, True]])
    popular = baselines(learned, asked)["popularity"]
    assert np.argsort(-popular[0], kind="stable").tolist() == [1, 3, 0, 2]
    assert np.isnan(popular[1]).tolist() == [False, True, False, False]
    assert np.nanargmax(popular[1]) == 3


def test_the_previous_channel_rule_counts_what_followed_each_channel(dataset: Make) -> None:
    taken = [{0}] * 900 + [{1}] * 100 + [{1}] * 1000
    learned = dataset(taken, 2, "channel", sort=["touch"] * 2000, previous=[0] * 1000 + [1] * 1000)
    asked = dataset([{0}, {0}, {0}], 2, "channel", sort=["touch"] * 3, previous=[0, 1, -1])
    rules = baselines(learned, asked)
    assert rules["previous_channel"][:, 0] == pytest.approx([0.9, 0.01, 0.45], abs=0.01)
    assert rules["constant"][:, 0] == pytest.approx([0.45] * 3, abs=0.001)


def test_rankings_are_judged_on_occasions_and_chances_on_snapshots(dataset: Make) -> None:
    data = dataset([{0}, {1}, {3}, set()], sort=["occasion", "occasion", "snapshot", "snapshot"])
    first = np.tile([0.4, 0.3, 0.2, 0.1], (4, 1))
    found = judge(first, data)
    assert found.values[metrics.HR_AT_1] == 0.5
    assert np.isnan(found.per_row[metrics.HR_AT_1]).tolist() == [False, False, True, True]
    assert np.isnan(found.per_row[metrics.LOG_LOSS]).tolist() == [True, True, False, False]
    by_hand = -np.log([0.6, 0.7, 0.8, 0.1, 0.6, 0.7, 0.8, 0.9]).mean()
    assert found.values[metrics.LOG_LOSS] == pytest.approx(by_hand)


def test_names_in_mlflow_say_what_was_compared(dataset: Make) -> None:
    data = dataset([{number % 4} for number in range(60)])
    good = np.where(data.spine.taken, 0.9, 0.1)
    flat = np.full((60, 4), 0.25)
    names = compare("m", {"m": good, "popularity": flat}, data, 0, ("popularity",)).flat("m", "test")
    assert names["test/hr_at_1"] == 1.0
    assert names["test/hr_at_1_minus_popularity"] == pytest.approx(0.75)
    assert names["test/hr_at_1_minus_popularity_low"] < 0.75 < names["test/hr_at_1_minus_popularity_high"]
    assert names["test/popularity/hr_at_1"] == 0.25
    assert names["test/rows"] == 60


@pytest.mark.parametrize(
    ("candidates", "block", "metric"),
    [(8, "product", metrics.HR_AT_3), (4, "product", metrics.MAP_AT_7), (1, "product", metrics.LOG_LOSS),
     (8, "channel", metrics.LOG_LOSS)],
)  # fmt: skip
def test_the_metric_that_decides_fits_the_question(dataset: Make, candidates: int, block: str, metric: str) -> None:
    assert primary_metric(dataset([{0}] * 5, candidates, block)) == metric


def test_lower_is_better_for_losses() -> None:
    difference = Interval(0.5, 0.4, 0.6)
    assert clearly_better(metrics.HR_AT_3, difference)
    assert not clearly_better(metrics.LOG_LOSS, difference)
    assert clearly_better(metrics.LOG_LOSS, difference.negated)


def test_a_judgement_says_of_every_pair_what_comparing_the_two_says(dataset: Make) -> None:
    draw = np.random.default_rng(0)
    data = dataset([{int(number)} for number in draw.integers(4, size=200)])
    said = {name: draw.random((200, 4)) for name in ("prior", "one", "other")}
    counting = {"popularity": draw.random((200, 4))}
    judgement = Judgement.of(said, counting, data, 3)
    alone = compare("other", {**said, **counting}, data, 3, ("prior", "one", "popularity"))
    for rival in ("prior", "one", "popularity"):
        assert judgement.difference("other", rival) == alone.differences[rival]
    back = judgement.difference("one", "other")[metrics.HR_AT_1]
    assert back == alone.differences["one"][metrics.HR_AT_1].negated
    shown = judgement.comparison("other")
    assert set(shown.differences) == {"prior", "popularity"}
    assert shown.flat("other", "test").items() <= alone.flat("other", "test").items()

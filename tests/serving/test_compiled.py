"""Compiled models say what their libraries say; what cannot be compiled, or says otherwise, is left to the library."""

from __future__ import annotations

import threading
from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.schema import Float32, Float64
from serving.booster_text import NotCompiled, read_trees, turning
from serving.compiled_trees import TreeWalk, compiled
from serving.scorers import pair_matrix

WIDTH, DEPTH = 6, 3


class Forest:
    """Trees over pair lines of made-up customers: splits on all kinds of columns, some cells missing."""

    def __init__(self, candidates: int, seed: int = 0, rounds: int = 12, **options: Any) -> None:
        draw = np.random.default_rng(seed)
        self.prior = np.log(draw.dirichlet(np.full(candidates + 1, 5.0))).astype(np.float32)
        self.customer, self.candidates = self.blocks(draw, 4000 // candidates + 2)
        lines = self.lines(self.customer, self.candidates)
        known = np.nan_to_num(lines)
        target = (
            known[:, 0] * np.cos(lines[:, -1]) + known[:, WIDTH] + known[:, 1] * known[:, WIDTH + 1] + known[:, 3] % 2
        )
        data = lightgbm.Dataset(lines, target, categorical_feature=options.pop("categorical", [lines.shape[1] - 1]))
        settings = {"num_leaves": 15, "verbosity": -1, "num_threads": 1, "min_data_per_group": 1, "cat_smooth": 1}
        self.booster = lightgbm.train({**settings, **options}, data, rounds)

    def blocks(self, draw: np.random.Generator, rows: int) -> tuple[Float32, Float32]:
        customer = draw.normal(size=(rows, WIDTH)).astype(np.float32)
        candidates = draw.exponential(size=(rows, len(self.prior) - 1, DEPTH)).astype(np.float32)
        for block in (customer, candidates):
            block[draw.random(block.shape) < 0.2] = np.nan
            block[draw.random(block.shape) < 0.2] = 0.0
        customer[:, 2] = 1.0  # never missing while learning
        customer[:, 3] = draw.integers(0, 5, rows)
        candidates[:, :, 2] = draw.integers(0, 2, candidates.shape[:2])
        return customer, candidates

    def lines(self, customer: Float32, candidates: Float32) -> Float32:
        n, m = candidates.shape[:2]
        return pair_matrix(customer, candidates, self.prior, np.repeat(np.arange(n), m), np.tile(np.arange(m), n))

    def told(self, customer: Float32, candidates: Float32) -> Float64:
        """What LightGBM says, float64 [n, m]."""
        raw = self.booster.predict(self.lines(customer, candidates), raw_score=True, num_threads=1)
        return np.asarray(raw).reshape(candidates.shape[:2])

    def compiled(self) -> TreeWalk:
        return compiled(self.booster, WIDTH, DEPTH, self.prior)


@pytest.mark.parametrize("candidates", [1, 2, 24, 63, 64, 65, 130])
def test_compiled_trees_say_what_lightgbm_says_to_the_last_bit(candidates: int) -> None:
    forest = Forest(candidates)
    customer, both = forest.blocks(np.random.default_rng(1), 300 // candidates + 5)
    np.testing.assert_array_equal(forest.compiled().sums(customer, both), forest.told(customer, both))


CELLS = st.one_of(
    st.sampled_from([0.0, -0.0, 1e-36, -1e-36, 1e-35, -1e-35, 1e-44, 3.4e38, -3.4e38, np.inf, -np.inf, np.nan]),
    st.floats(width=32),
)


@pytest.fixture(scope="module")
def forest() -> Forest:
    return Forest(5, seed=3, rounds=20)


@pytest.fixture(scope="module")
def walk(forest: Forest) -> TreeWalk:
    return forest.compiled()


@settings(max_examples=60, deadline=None)
@given(cells=st.lists(CELLS, min_size=WIDTH + 5 * DEPTH, max_size=WIDTH + 5 * DEPTH))
def test_whatever_a_row_holds_the_sums_are_the_same(forest: Forest, walk: TreeWalk, cells: list[float]) -> None:
    block = np.array(cells, dtype=np.float32)
    customer, candidates = block[None, :WIDTH], block[WIDTH:].reshape(1, 5, DEPTH)
    np.testing.assert_array_equal(walk.sums(customer, candidates), forest.told(customer, candidates))


def test_both_sides_of_every_threshold_are_told_apart_as_lightgbm_does(forest: Forest, walk: TreeWalk) -> None:
    splits = [split for tree in read_trees(forest.booster.model_to_string(), 11, 10) for split in tree.splits]
    for split in (one for one in splits if one.column < WIDTH):
        at = np.float32(split.turn)
        customer = np.zeros((3, WIDTH), np.float32)
        customer[:, split.column] = np.nextafter(at, np.float32(-np.inf)), at, np.nextafter(at, np.float32(np.inf))
        candidates = np.zeros((3, 5, DEPTH), np.float32)
        np.testing.assert_array_equal(walk.sums(customer, candidates), forest.told(customer, candidates))


def test_a_threshold_becomes_the_last_float32_that_goes_left() -> None:
    tiny = np.float32(1e-35)
    thresholds = np.array([0.1, 1.0, 0.0, -1e-36, -float(tiny), 1e300, -1e300])
    below = np.float32(0.1) if float(np.float32(0.1)) <= 0.1 else np.nextafter(np.float32(0.1), np.float32(0))
    just_under = np.nextafter(-tiny, np.float32(-np.inf))
    most = np.finfo(np.float32).max
    expected = np.array([below, 1.0, tiny, just_under, just_under, most, -np.inf], dtype=np.float32)
    np.testing.assert_array_equal(turning(thresholds), expected)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"categorical": [3, 10]}, "another column"),
        ({"zero_as_missing": True}, "zeros count as missing"),
        ({"linear_tree": True}, "linear"),
        ({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, "not one sum"),
    ],
)
def test_trees_that_do_more_than_is_known_are_left_to_lightgbm(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotCompiled, match=reason):
        Forest(5, **options).compiled()


def test_trees_of_one_leaf_are_constants() -> None:
    forest = Forest(3, min_data_in_leaf=10**6)
    customer, candidates = forest.blocks(np.random.default_rng(1), 4)
    np.testing.assert_array_equal(forest.compiled().sums(customer, candidates), forest.told(customer, candidates))


def test_rows_of_another_shape_are_refused(walk: TreeWalk) -> None:
    with pytest.raises(ValueError, match="however"):
        walk.sums(np.zeros((1, WIDTH + 1), np.float32), np.zeros((1, 5, DEPTH), np.float32))
    with pytest.raises(ValueError, match="however"):
        walk.sums(np.zeros((2, WIDTH), np.float32), np.zeros((1, 5, DEPTH), np.float32))


def test_no_rows_have_no_sums(walk: TreeWalk) -> None:
    assert walk.sums(np.zeros((0, WIDTH), np.float32), np.zeros((0, 5, DEPTH), np.float32)).shape == (0, 5)


def test_threads_do_not_disturb_each_other(forest: Forest, walk: TreeWalk) -> None:
    draw = np.random.default_rng(7)
    blocks = [forest.blocks(draw, 200) for _ in range(4)]
    expected = [forest.told(*block) for block in blocks]
    found: dict[int, list[Float64]] = {}

    def ask(number: int) -> None:
        found[number] = [walk.sums(*blocks[number]) for _ in range(20)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, sums in found.items():
        for one in sums:
            np.testing.assert_array_equal(one, expected[number])
    assert len(found) == 4

"""Trees that learn anew from more rows: what they ask stays, what their leaves say is fitted again.

Tree after tree, each leaf gets the Newton step of the pairs that fall into it now, shrunk as when the tree was grown:
-rate * sum of gradients / (sum of second derivatives + lambda), Friedman 2001, "Greedy function approximation", and
LightGBM's own `refit` without decay, which knows no objective of one's own. The trees were stopped by rows that they
had not seen, and are not grown deeper into what is now in sight. Costs about a tenth of growing them anew.
"""

from __future__ import annotations

from collections.abc import Iterator

import lightgbm
import numpy as np
import numpy.typing as npt

from features.schema import Float32, Float64
from serving.scorers import PAIR_CELLS, Layout, blocks
from training.examples import Examples
from training.pairs import MaskedSoftmax, Pairs, PairSequence

LEAF_BYTES = 500_000_000
"""Of memory for the leaves that pairs fall into; trees are looked at so many at a time."""

Leaves = npt.NDArray[np.unsignedinteger]


def leaves_again(
    trees: lightgbm.Booster,
    examples: Examples,
    layout: Layout,
    prior: Float32,
    pairs: Pairs,
    rate: float,
    l2: float,
    threads: int,
) -> lightgbm.Booster:
    """A copy of the trees whose leaves learned from these examples. rate: of learning; prior: [m + 1], theirs."""
    lines = PairSequence(examples, layout, prior, pairs)
    softmax = MaskedSoftmax(pairs, float(prior[-1]))
    utilities = prior[pairs.candidate].astype(np.float64)
    again = lightgbm.Booster(model_str=trees.model_to_string())
    sizes = [tree["num_leaves"] for tree in again.dump_model()["tree_info"]]
    for number, leaf in enumerate(fallen(trees, lines, sizes, PAIR_CELLS // len(layout.pair_names) + 1, threads)):
        first, second = softmax.gradient(utilities)
        steps = newton(leaf, sizes[number], first, second, rate, l2)
        for place, step in enumerate(steps.tolist()):
            again.set_leaf_output(number, place, step)
        utilities += steps[leaf]
    return lightgbm.Booster(model_str=again.model_to_string())


def newton(leaf: Leaves, size: int, first: Float64, second: Float64, rate: float, l2: float) -> Float64:
    """What each of `size` leaves says, float64 [size]. leaf, first, second: [k], of every pair."""
    slope, curvature = (np.bincount(leaf, weights=values, minlength=size) for values in (first, second))
    return np.asarray(-rate * slope / (curvature + l2))


def fallen(
    trees: lightgbm.Booster, lines: PairSequence, sizes: list[int], at_once: int, threads: int
) -> Iterator[Leaves]:
    """The leaf of each pair [k], tree after tree. sizes: leaves of each tree; at_once: pairs made at a time."""
    kind = np.min_scalar_type(max(sizes, default=1))
    most = max(1, LEAF_BYTES // max(len(lines) * kind.itemsize, 1))
    for begin in range(0, len(sizes), most):
        count = min(most, len(sizes) - begin)
        leaves = np.empty((count, len(lines)), dtype=kind)
        for part in blocks(len(lines), at_once):
            found = trees.predict(
                lines[part], start_iteration=begin, num_iteration=count, pred_leaf=True, num_threads=threads
            )
            leaves[:, part] = np.asarray(found).reshape(-1, count).T
        yield from leaves

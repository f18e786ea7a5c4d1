"""The trees in LightGBM's own text format, as splits and leaves.

A split sends a value to the left where `value <= turn`, in float32. LightGBM compares in float64, takes what is not
farther from 0 than 1e-35 for 0, and what is missing for 0 where a column never missed a value when it was learned; all
of this is settled here, in `turn` and `nan_left` (src/io/tree.h of LightGBM, `NumericalDecision`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.schema import Float32, Float64

_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_MISSING = {0: "never", 1: "zero", 2: "nan"}
_NEAR_ZERO = np.float32(1e-35)


class NotCompiled(Exception):
    """Why trees are left to LightGBM."""


@dataclass(frozen=True)
class Split:
    """left, right: places among the tree's splits, or ~place among its leaves.

    categories: the categories that go left, as bits; None where the split is by value.
    """

    column: int
    turn: float
    nan_left: bool
    left: int
    right: int
    categories: int | None = None

    def goes_left(self, prior: Float32, first: int, by_prior: bool) -> int:
        """Which of the candidates first, first + 1, … of these priors go left, as bits."""
        if self.categories is not None:
            return (self.categories >> first) & ((1 << len(prior)) - 1)
        values = prior if by_prior else np.arange(first, first + len(prior), dtype=np.float32)
        return sum(1 << place for place, value in enumerate(values) if value <= self.turn)


@dataclass(frozen=True)
class Tree:
    """root: place of the first split, or ~place of the only leaf."""

    splits: tuple[Split, ...]
    leaves: tuple[float, ...]

    @property
    def root(self) -> int:
        return 0 if self.splits else ~0


def read_trees(text: str, columns: int, candidate: int) -> list[Tree]:
    """The trees of a booster over `columns` columns, of which only `candidate` may be split by category.

    NotCompiled where a tree does something that is not known here.
    """
    header, *parts = text.split("\nTree=")
    known = dict(line.partition("=")[::2] for line in header.splitlines())
    if known.get("num_tree_per_iteration") != "1" or "average_output" in known:
        raise NotCompiled("the trees are not one sum")
    return [_tree(part.partition("\n\n")[0], columns, candidate) for part in parts]


def _tree(text: str, columns: int, candidate: int) -> Tree:
    known = dict(line.partition("=")[::2] for line in text.splitlines())
    if known.get("is_linear", "0") != "0":
        raise NotCompiled("leaves are linear functions")
    leaves = tuple(map(float, known["leaf_value"].split()))
    if len(leaves) != int(known["num_leaves"]):
        raise NotCompiled("a tree has another number of leaves than it says")
    if len(leaves) == 1:
        return Tree((), leaves)
    kinds, column, left, right = (
        list(map(int, known[name].split())) for name in ("decision_type", "split_feature", "left_child", "right_child")
    )
    threshold = list(map(float, known["threshold"].split()))
    turns = turning(np.array(threshold)).tolist()
    splits = []
    for place, kind in enumerate(kinds):
        missing = _MISSING.get(kind >> 2)
        categories = None
        if not 0 <= column[place] < columns:
            raise NotCompiled("a split is on a column that there is not")
        if kind & _CATEGORICAL:
            if column[place] != candidate:
                raise NotCompiled("a split is by categories of another column than the candidate")
            categories = _categories(known, int(threshold[place]))
        elif missing not in ("never", "nan"):
            raise NotCompiled("zeros count as missing")
        nan_left = bool(kind & _DEFAULT_LEFT) if missing == "nan" else threshold[place] >= 0
        splits.append(Split(column[place], turns[place], nan_left, left[place], right[place], categories))
    tree = Tree(tuple(splits), leaves)
    _check_once(tree)
    return tree


def _categories(known: dict[str, str], number: int) -> int:
    """The set of categories of that number, as bits: words of 32, lowest first."""
    first, last = map(int, known["cat_boundaries"].split()[number : number + 2])
    words = known["cat_threshold"].split()[first:last]
    return sum(int(word) << (32 * place) for place, word in enumerate(words))


def _check_once(tree: Tree) -> None:
    """NotCompiled unless each split but the first, and each leaf, is one child: then no walk goes round in circles."""
    children = sorted(child for split in tree.splits for child in (split.left, split.right))
    if children != list(range(-len(tree.leaves), 0)) + list(range(1, len(tree.splits))):
        raise NotCompiled("splits and leaves do not make one tree")


def turning(threshold: Float64) -> Float32:
    """The largest float32 that goes left at each threshold."""
    if np.isnan(threshold).any():
        raise NotCompiled("a threshold is not a number")
    with np.errstate(over="ignore"):
        turn = threshold.astype(np.float32)
    down = np.float32(-np.inf)
    turn = np.where(turn.astype(np.float64) > threshold, np.nextafter(turn, down), turn)
    zero = float(_NEAR_ZERO)
    turn = np.where((threshold >= 0) & (threshold < zero), _NEAR_ZERO, turn)
    return np.where((threshold >= -zero) & (threshold < 0), np.nextafter(-_NEAR_ZERO, down), turn).astype(np.float32)

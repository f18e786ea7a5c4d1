"""Trees of LightGBM made ready for the compiled walk, and the proof that it says the same.

A `TreeWalk` holds the trees as the arrays that `serving.compiled_kernel` reads. What never changes of a candidate
(which one it is, its prior) makes a split on it a fixed set of candidates; every other split keeps its column and, as
float32, the value at which LightGBM's comparison turns.

None of this is trusted: `compiled` gives a walk away only if it says the same as LightGBM, bit for bit, of rows on both
sides of the trees' own thresholds, of missing values, and of values as large and as small as there are.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property

import lightgbm
import numpy as np
import numpy.typing as npt

from features.schema import Float32, Float64
from serving.booster_text import NotCompiled, Split, Tree, read_trees
from serving.compiled_kernel import (
    CANDIDATE,
    CANDIDATE_NAN_LEFT,
    CUSTOMER,
    CUSTOMER_NAN_LEFT,
    FIXED,
    LEAF,
    NODE,
    PLACES,
    Walk,
    address,
    kernel,
)

MOST_COLUMNS = 1024
"""Of a candidate; each takes 256 bytes of the walk's stack."""
PROBED_PAIRS = 4_000
LEAST_PROBED = 16
"""Rows that a walk is proved on: enough for so many pairs, and no fewer than these."""
_EXTREMES = np.array([0.0, 1e-36, -1e-36, 1e-35, -1e-35, 3.4e38, -3.4e38, np.nan], dtype=np.float32)

Nodes = npt.NDArray[np.void]
Starts = npt.NDArray[np.int32]


@dataclass(frozen=True)
class TreeWalk:
    """Trees over pair lines: a customer's `width` columns, a candidate's `depth`, its prior, its position.

    chunks: for up to 64 candidates each, the nodes of all trees, and where each tree begins.
    deepest: how many sets of candidates may have to be put aside in one tree.
    """

    width: int
    depth: int
    candidates: int
    deepest: int
    chunks: tuple[tuple[Nodes, Starts], ...]

    @cached_property
    def _walk(self) -> Walk:
        return kernel()

    @cached_property
    def _placed(self) -> list[tuple[int, int, int, int]]:
        """Of each chunk its first candidate, where its nodes and starts lie, and how many trees there are."""
        return [
            (number * PLACES, address(nodes), address(starts), len(starts))
            for number, (nodes, starts) in enumerate(self.chunks)
        ]

    def sums(self, customer: Float32, candidates: Float32) -> Float64:
        """The sum of the trees' leaves, float64 [n, m]. customer: [n, C]; candidates: [n, m, K]."""
        n, m = len(customer), self.candidates
        if customer.shape[1] != self.width or candidates.shape != (n, m, self.depth):
            raise ValueError(
                f"the trees read blocks [n, {self.width}] and [n, {m}, {self.depth}], however they are given "
                f"{customer.shape} and {candidates.shape}"
            )
        customer = np.ascontiguousarray(customer, dtype=np.float32)
        candidates = np.ascontiguousarray(candidates, dtype=np.float32)
        sums = np.empty((n, m))
        rows, columns, told = address(customer), address(candidates), address(sums)
        for first, nodes, starts, trees in self._placed:
            self._walk(
                n,
                rows,
                self.width,
                columns + 4 * first * self.depth,
                m * self.depth,
                self.depth,
                min(PLACES, m - first),
                nodes,
                starts,
                trees,
                self.deepest,
                told + 8 * first,
                m,
            )
        return sums


def compiled(booster: lightgbm.Booster, width: int, depth: int, prior: Float32) -> TreeWalk:
    """The booster's trees as a walk that was proved; NotCompiled says why they are left to LightGBM.

    width, depth: columns of the customer and of a candidate. prior: [m + 1].
    """
    m = len(prior) - 1
    if depth > MOST_COLUMNS:
        raise NotCompiled(f"candidates have {depth} columns, more than {MOST_COLUMNS}")
    trees = read_trees(booster.model_to_string(), width + depth + 2, width + depth + 1)
    chunks = tuple(
        _flat(trees, width, depth, prior[first : min(first + PLACES, m)], first) for first in range(0, m, PLACES)
    )
    walk = TreeWalk(width, depth, m, max((len(tree.leaves) for tree in trees), default=1), chunks)
    _prove(walk, booster, trees, prior)
    return walk


def _flat(trees: list[Tree], width: int, depth: int, prior: Float32, first: int) -> tuple[Nodes, Starts]:
    """Nodes in the order in which the walk meets them, the left child next, for candidates first … first + len(prior).

    Where a fixed split parts nobody, its one side stands in its place.
    """
    everybody = (1 << len(prior)) - 1
    nodes: list[tuple[int, int, int, int]] = []
    starts = []
    for tree in trees:
        starts.append(len(nodes))
        to_do = [(tree.root, everybody, -1)]  # node, who can come to it, the node whose right child it is
        while to_do:
            place, who, parent = to_do.pop()
            if place >= 0 and (split := tree.splits[place]).column >= width + depth:
                left = split.goes_left(prior, first, split.column == width + depth)
                sides = (who & left, who & ~left)
                if not (sides[0] and sides[1]):
                    to_do.append((split.left if sides[0] else split.right, who, parent))
                    continue
                kind, column, payload = FIXED, 0, left
            elif place >= 0:
                sides = (who, who)
                kind, column, payload = _numeric(split, width)
            else:
                kind, column, payload = LEAF, 0, _bits("<d", "<Q", tree.leaves[~place])
            if parent >= 0:
                nodes[parent] = (*nodes[parent][:2], len(nodes), nodes[parent][3])
            if place >= 0:
                to_do += [(split.right, sides[1], len(nodes)), (split.left, sides[0], -1)]
            nodes.append((kind, column, 0, payload - (1 << 64) if payload >> 63 == 1 else payload))
    return np.array(nodes, dtype=NODE), np.array(starts, dtype=np.int32)


def _bits(of: str, as_: str, value: float) -> int:
    bits: int = struct.unpack(as_, struct.pack(of, value))[0]
    return bits


def _numeric(split: Split, width: int) -> tuple[int, int, int]:
    payload = _bits("<f", "<I", split.turn)
    if split.column < width:
        return CUSTOMER_NAN_LEFT if split.nan_left else CUSTOMER, split.column, payload
    return CANDIDATE_NAN_LEFT if split.nan_left else CANDIDATE, split.column - width, payload


def _prove(walk: TreeWalk, booster: lightgbm.Booster, trees: list[Tree], prior: Float32) -> None:
    """NotCompiled unless the walk and LightGBM say the same of rows made of what the trees compare with."""
    from serving.scorers import pair_matrix

    n, m = max(LEAST_PROBED, PROBED_PAIRS // walk.candidates), walk.candidates
    draw = np.random.default_rng(0)
    cells = draw.normal(size=(n, walk.width + m * walk.depth)).astype(np.float32)
    cells[::2] *= 100.0
    cells[draw.random(cells.shape) < 0.1] = np.nan
    turns: dict[int, list[float]] = {}
    for tree in trees:
        for split in tree.splits:
            turns.setdefault(split.column, []).append(split.turn)
    for place in range(cells.shape[1]):
        column = place if place < walk.width else walk.width + (place - walk.width) % walk.depth
        own = np.array(turns.get(column, [0.0]), dtype=np.float32)
        near = np.concatenate([own, np.nextafter(own, np.float32(np.inf)), _EXTREMES])
        some = draw.random(n) < 0.7
        cells[some, place] = draw.choice(near, int(some.sum()))
    customer = np.ascontiguousarray(cells[:, : walk.width])
    candidates = cells[:, walk.width :].reshape(n, m, walk.depth)
    row, candidate = np.repeat(np.arange(n), m), np.tile(np.arange(m), n)
    lines = pair_matrix(customer, candidates, prior, row, candidate)
    told = np.asarray(booster.predict(lines, raw_score=True, num_threads=1)).reshape(n, m)
    wrong = int((walk.sums(customer, candidates) != told).sum())
    if wrong:
        raise NotCompiled(f"compiled trees must say what LightGBM says, however {wrong} of {told.size} sums differ")

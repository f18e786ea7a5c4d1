"""States that join: the fold of two halves of a history, each folded alone, is the fold of the whole.

A state is a moment and numbers of three kinds, and each kind has a join that asks for no order of arrival:

- decayed sums, each as of the moment of its state; a sum S of moment s is S·exp(−(t − s)/tau) at the later moment t,
  so both are brought to the later one and added. An event that comes late adds what is left of it by then;
- newest times: the later of two;
- kept pairs (time, code): the newest K of a kind, by time and then by code, so that equal times need no order either.

An event is the state of a history of one event. So history is folded with the join that live updates use.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from features.folds import Codes, decay, ranks
from features.schema import Float64, Int64

PAIR = 2
"""Numbers of a kept pair: its time and its code."""


class Fold(NamedTuple):
    """States of n histories.

    at: float64 [n, clocks], seconds since 1970 UTC of the newest event of each clock; NaN: none yet.
    numbers: float64 [n, layout.width]; where nothing happened, sums are 0 and times and codes NaN.
    """

    at: Float64
    numbers: Float64


@dataclass(frozen=True)
class Layout:
    """What the numbers of a state are, in their order: sums, newest times, then the kept pairs kind by kind.

    taus: seconds per sum; infinity: a plain count. kept: (kinds, K) per block: the newest K pairs of each kind.
    clock: of each sum, which moment it is as of; several layouts make one state with a clock each.
    """

    taus: tuple[float, ...]
    times: int
    kept: tuple[tuple[int, int], ...] = ()
    clock: tuple[int, ...] = ()

    @property
    def sums(self) -> int:
        return len(self.taus)

    @cached_property
    def width(self) -> int:
        return self.sums + self.times + sum(PAIR * kinds * most for kinds, most in self.kept)

    def pair(self, block: int, kind: int) -> int:
        """The position of the newest pair's time of a kind in a block; its code is the number after it."""
        before = sum(PAIR * kinds * most for kinds, most in self.kept[:block])
        return self.sums + self.times + before + PAIR * kind * self.kept[block][1]

    def nothing(self, count: int) -> Float64:
        """Numbers [count, width] of histories without events."""
        numbers = np.full((count, self.width), np.nan)
        numbers[:, : self.sums] = 0.0
        return numbers

    @cached_property
    def tau(self) -> Float64:
        return np.array(self.taus, dtype=np.float64)

    @cached_property
    def clock_of_sum(self) -> Int64:
        return np.array(self.clock or (0,) * self.sums, dtype=np.int64)


def join(layout: Layout, one: Fold, other: Fold) -> Fold:
    """The states of n histories, each in two halves; whichever comes first. Sums agree but for the last digits."""
    at = np.fmax(one.at, other.at)
    numbers = np.empty_like(one.numbers)
    sums, times = layout.sums, layout.sums + layout.times
    if sums:
        numbers[:, :sums] = _faded(layout, one, at) + _faded(layout, other, at)
    np.fmax(one.numbers[:, sums:times], other.numbers[:, sums:times], out=numbers[:, sums:times])
    start = times
    for kinds, most in layout.kept:
        stop = start + PAIR * kinds * most
        halves = [_pairs(half.numbers[:, start:stop], kinds, most) for half in (one, other)]
        newest = -np.sort(-np.concatenate(halves, axis=2), axis=2)[:, :, :most]
        _pairs(numbers[:, start:stop], kinds, most)[:] = newest
        start = stop
    return Fold(at, numbers)


def _faded(layout: Layout, fold: Fold, at: Float64) -> Float64:
    """The sums [n, s] as of the moments `at`."""
    # fmax makes the missing age of a history without events 0: its sums are 0 whatever they are multiplied with.
    age = np.fmax(at - fold.at, 0.0)[:, layout.clock_of_sum]
    return np.asarray(fold.numbers[:, : layout.sums] * decay(age, layout.tau))


def _pairs(numbers: Float64, kinds: int, most: int) -> np.ndarray:
    """The pairs as complex [n, kinds, most], a view: numpy sorts complex numbers by the one part, then by the other,
    and missing ones to the end."""
    return numbers.view(np.complex128).reshape(len(numbers), kinds, most)


def joined(layout: Layout, folds: Fold) -> Fold:
    """One state [1, ...] of histories [n >= 1, ...] of the same entity, half with half, so in log2(n) steps."""
    while len(folds.at) > 1:
        half = (len(folds.at) + 1) // 2
        rest = len(folds.at) - half
        both = join(layout, Fold(*(part[:rest] for part in folds)), Fold(*(part[half:] for part in folds)))
        folds = Fold(*(np.concatenate([done, part[rest:half]]) for done, part in zip(both, folds, strict=True)))
    return folds


def history(layout: Layout, entity: Codes, at: Float64, numbers: Float64) -> tuple[Codes, Float64, Float64]:
    """The states of many entities after each of their moments: entity [k], at [k] seconds, numbers [k, width].

    entity: [n] codes 0…m-1; at: [n] seconds; numbers: [n, width], each event as a state; events in any order.
    """
    order = np.lexsort((at, entity))
    entity, at, numbers = entity[order], at[order], numbers[order]
    if not len(entity):
        return entity, at, numbers
    moments = at[:, None]
    for now in ranks(entity):
        before = Fold(moments[now - 1], numbers[now - 1])
        numbers[now] = join(layout, before, Fold(moments[now], numbers[now])).numbers
    last = np.r_[(entity[1:] != entity[:-1]) | (at[1:] != at[:-1]), True]
    return entity[last], at[last], numbers[last]


def together(layouts: Sequence[Layout]) -> tuple[Layout, tuple[Int64, ...]]:
    """One layout of several, with a clock each, and of each the positions of its numbers in the whole."""
    whole = Layout(
        tuple(tau for layout in layouts for tau in layout.taus),
        sum(layout.times for layout in layouts),
        tuple(block for layout in layouts for block in layout.kept),
        tuple(clock for clock, layout in enumerate(layouts) for _ in layout.taus),
    )
    return whole, tuple(_places(layouts))


def _places(layouts: Sequence[Layout]) -> Iterator[Int64]:
    sums = 0
    times = sum(layout.sums for layout in layouts)
    pairs = times + sum(layout.times for layout in layouts)
    for layout in layouts:
        kept = layout.width - layout.sums - layout.times
        parts = ((sums, layout.sums), (times, layout.times), (pairs, kept))
        yield np.concatenate([np.arange(start, start + count) for start, count in parts])
        sums, times, pairs = sums + layout.sums, times + layout.times, pairs + kept

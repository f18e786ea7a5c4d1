"""The linear relaxation of an allocation and its prices, by HiGHS.

Whole where it fits (interior point, then crossover to a vertex: a few seconds for half a million columns). Beyond, by
prices: those of a sample of the customers tell which customers are undecided, only these go to the solver with what
the decided ones leave over, and the prices it finds are judged by the dual bound over everybody, which holds for any
prices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from features.errors import NextbestError
from features.progress import SILENT, Progress
from features.schema import Float64
from serving.allocation import Duals, Int64, Problem, bound, choices, free_of_charge

WHOLE = 500_000
"""Columns up to which the LP is solved as a whole."""
INTEGRAL = 2_000
"""Columns up to which the best plan itself is searched for; beyond, rounding costs next to nothing."""
SECONDS = 20.0
"""That such a search may take."""
CLOSE = 1e-5
"""Relative gap between bound and LP value at which prices are as good as exact."""
ROUNDS = 8


@dataclass(frozen=True)
class Relaxed:
    """x: float64 [c], shares of columns chosen, all constraints kept; duals: its prices; bound: on every plan."""

    x: Float64
    duals: Duals
    bound: float


@dataclass(frozen=True)
class _Rows:
    """The constraints matrix · x ≤ most, and which of them are whose."""

    matrix: Any
    most: Float64
    channels: Int64
    budget: int
    limits: tuple[tuple[slice, Int64], ...]


def relax(problem: Problem, progress: Progress = SILENT, whole: int = WHOLE) -> Relaxed:
    """The linear relaxation, exact up to `whole` columns; beyond, by prices, with a valid bound all the same."""
    if len(problem) > whole:
        return _by_prices(problem, progress, whole)
    with progress.step(f"solve the LP over {len(problem):,} possible contacts"):
        x, duals = _solve(problem)
        return Relaxed(x, duals, bound(problem, duals))


def best(problem: Problem) -> Float64 | None:
    """The best plan, float64 [c] of zeros and ones, by branch and bound; None where that takes too long."""
    rows = _rows(problem)
    done = milp(
        -problem.value,
        integrality=np.ones(len(problem), dtype=np.int64),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(rows.matrix, -np.inf, rows.most) if len(rows.most) else (),
        options={"mip_rel_gap": 0.0, "time_limit": SECONDS},
    )
    return np.round(done.x) if done.status == 0 else None


def _solve(problem: Problem) -> tuple[Float64, Duals]:
    """The LP's vertex solution and its duals."""
    if not len(problem):
        return np.empty(0), free_of_charge(problem)
    rows = _rows(problem)
    if not len(rows.most):
        return np.ones(len(problem)), free_of_charge(problem)
    done = linprog(-problem.value, A_ub=rows.matrix, b_ub=rows.most, bounds=(0, 1), method="highs-ipm")
    if done.status != 0 or done.x is None:
        raise NextbestError(f"HiGHS found no solution of the campaign's LP: {done.message}")
    prices = np.maximum(-done.ineqlin.marginals, 0.0)
    capacity = np.zeros(len(problem.cost))
    capacity[rows.channels] = prices[: len(rows.channels)]
    limits = free_of_charge(problem).limits
    for dual, (where, keys) in zip(limits, rows.limits, strict=True):
        dual[keys] = prices[where]
    return np.clip(done.x, 0, 1), Duals(capacity, float(prices[rows.budget]) if rows.budget >= 0 else 0.0, limits)


def _rows(problem: Problem) -> _Rows:
    """Only the constraints that could bind."""
    columns = np.arange(len(problem))
    reach = np.bincount(problem.channel, minlength=len(problem.cost))
    channels = np.flatnonzero(reach > problem.capacity)
    blocks = [_block(np.searchsorted(channels, problem.channel), columns, len(channels), channels, problem.channel)]
    most = [problem.capacity[channels]]
    budgeted = float(problem.cost[problem.channel].sum()) > problem.budget
    if budgeted:
        blocks.append(sparse.csr_matrix(problem.cost[problem.channel][None, :]))
        most.append(np.array([problem.budget]))
    twice = problem.contacts.max(initial=0) > 1
    keyed = [(problem.customer, problem.contacts)]
    keyed += [(problem.offer, np.ones(int(problem.offer.max(initial=0)) + 1, dtype=np.int64))] if twice else []
    places: list[tuple[slice, Int64]] = []
    for key, allowed in (*keyed, *((limit.key, limit.most) for limit in problem.limits)):
        used = np.bincount(key[key >= 0], minlength=len(allowed))
        binding = np.flatnonzero(used > allowed[: len(used)])
        start = sum(len(part) for part in most)
        places.append((slice(start, start + len(binding)), binding))
        blocks.append(_block(np.searchsorted(binding, key), columns, len(binding), binding, key))
        most.append(allowed[binding].astype(np.float64))
    matrix = sparse.vstack(blocks).tocsr()
    budget = len(channels) if budgeted else -1
    return _Rows(matrix, np.concatenate(most), channels, budget, tuple(places[len(keyed) :]))


def _block(row: Int64, column: Int64, rows: int, keys: Int64, key: Int64) -> Any:
    """One row of ones per entry of `keys` (sorted), over the columns with that key."""
    mine = (row < rows) & (keys[np.minimum(row, rows - 1)] == key) if rows else np.zeros(len(key), dtype=np.bool_)
    return sparse.csr_matrix((np.ones(int(mine.sum())), (row[mine], column[mine])), shape=(rows, len(column)))


def _by_prices(problem: Problem, progress: Progress, whole: int) -> Relaxed:
    """Sample → prices → the undecided customers → better prices, until bound and value meet (a form of sifting)."""
    with progress.step(f"price {len(problem):,} possible contacts", ROUNDS) as advance:
        first, second = (_sampled(problem, half, whole // 2) for half in (0, 1))
        middle = (_vector(first) + _vector(second)) / 2
        duals = Duals(middle[:-1], float(middle[-1]), free_of_charge(problem).limits)
        width = 2 * np.abs(_vector(first) - _vector(second)) + 0.01 * middle
        found: Relaxed | None = None
        for _ in range(ROUNDS):
            x, duals = _undecided(problem, duals, width, whole)
            value = float(problem.value @ x)
            limit = bound(problem, duals)
            if found is None or value > float(problem.value @ found.x):
                found = Relaxed(x, duals, min(limit, found.bound) if found else limit)
            else:
                found = replace(found, bound=min(limit, found.bound))
            advance(1)
            if found.bound - float(problem.value @ found.x) <= CLOSE * found.bound:
                break
            width = width / 2
    assert found is not None
    return found


def _sampled(problem: Problem, half: int, columns: int) -> Duals:
    """Prices of a share of the customers with the same share of capacity and budget; two halves have none in common."""
    share = min(0.5, columns / len(problem))
    lot = np.random.default_rng(0).random(len(problem.contacts))
    mine = (lot >= half * share) & (lot < (half + 1) * share)
    scaled = replace(problem, capacity=problem.capacity * share, budget=problem.budget * share)
    return _solve(scaled.take(mine[problem.customer]))[1]


def _undecided(problem: Problem, duals: Duals, width: Float64, columns: int) -> tuple[Float64, Duals]:
    """Solve for the customers whose choice changes when a price moves by its `width`, the others being settled."""
    settled = choices(problem, duals)
    doubtful = np.zeros(len(problem.contacts), dtype=np.bool_)
    for limit in problem.limits:
        used = np.bincount(limit.key[settled & (limit.key >= 0)], minlength=len(limit.most))
        over = limit.key[limit.key >= 0]
        doubtful[problem.customer[limit.key >= 0][used[over] > limit.most[over]]] = True
    vector = _vector(duals)
    for resource, sign in product(np.flatnonzero(width > 0), (-1.0, 1.0)):
        moved = vector.copy()
        moved[resource] = max(0.0, moved[resource] + sign * width[resource])
        other = Duals(moved[:-1], float(moved[-1]), duals.limits)
        doubtful[problem.customer[choices(problem, other) != settled]] = True
        if doubtful[problem.customer].sum() > columns:
            break
    open_ = doubtful[problem.customer]
    x = np.where(open_, 0.0, settled.astype(np.float64))
    messages, money = problem.spent(x)
    left = replace(
        problem, capacity=np.maximum(problem.capacity - messages, 0), budget=max(problem.budget - money, 0.0)
    )
    if (messages > problem.capacity).any() or money > problem.budget:  # settled too much: give all back
        x[:] = 0.0
        left, open_ = problem, settled | open_
    x[open_], better = _solve(left.take(open_))
    return x, better


def _vector(duals: Duals) -> Float64:
    """float64 [H + 1]: the prices of capacity, then of the budget."""
    return np.append(duals.capacity, duals.budget)

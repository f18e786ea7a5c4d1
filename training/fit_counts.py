"""Back-off counts: which keys to count by, how far to believe them, and the counts themselves.

Starting from the prior, the key is added that promises most on the later part of the training examples, counted on the
earlier part; then the next, counted against what is expected by then. A key is one fact, or a fact within a key that
is there already. How many of the keys are used is chosen by the validation examples; counts are of all examples then.

Of every key a lower bound of its gain is known from sums over its cells alone, which makes trying hundreds cheap: with
r = (W + s) / (E + s) from the earlier part, and W', E' of the later one,

    gain >= sum over cells of W' ln r - E' (r - 1),      as ln(1 + x) <= x.

W: choices counted, E: expected ones, s: the key's strength, of STRENGTHS the one with the greatest bound.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from features.progress import SILENT, Progress
from features.schema import Bool, Float32, Float64
from serving.choice import Question
from serving.count_keys import Codes, Fact, Key, combined
from serving.counts_scorer import CountsScorer
from serving.question import masked_log_softmax
from serving.scorers import Layout
from training.count_facts import facts_of, told
from training.examples import Examples, log_loss
from training.families import Fitted, require_examples
from training.fit_prior import choose_half_life, forgetting, half_life_of, log_popularity, prior_params

MOST_KEYS = 12
STRENGTHS = (1.0, 4.0, 16.0, 64.0)
WEAKER = 4.0
"""A key is tried at its strength, and at that over this."""
LATER = 0.3
"""Share of the training examples, the newest, on which keys are tried."""
TRIED_PAIRS = 400_000
"""Pairs of a row and an option on which keys are tried; beyond it, rows evenly spaced."""
ERRORS = 1.0
"""Standard errors by which a key's gain must lie above zero on the later part."""
TRIES = 4
"""Keys of the greatest promise that are tried in earnest before none is added any more."""
STEPS, TOLERANCE = 6, 0.01
"""Newton steps of a table at most, and the mean step at which it stays."""
PARTNERS = 12
"""Facts that are tried within each key: those that promise most alone."""
RENEWED = 12


def fit(question: Question, train: Examples, valid: Examples, seed: int = 0, progress: Progress = SILENT) -> Fitted:
    """Choose keys within `train`, count on all of it; `valid` chooses how many keys. Deterministic."""
    require_examples(question, training=train, validation=valid)
    started = time.perf_counter()
    half_life = choose_half_life(train, valid)
    layout = Layout.of(question, train.rows.schema)
    with progress.step("counts", MOST_KEYS) as advance:
        search = Search.of(layout, train, half_life)
        while len(search.keys) < MOST_KEYS and search.add():
            advance(1)
    scorer = _all_counted(layout, train, tuple(search.keys), half_life)
    best = _fewest_losses(scorer, valid)
    return _fitted(scorer, best, half_life, len(train), started, tuple(search.gains))


def refit(question: Question, train: Examples, like: Fitted, seed: int = 0) -> Fitted:
    """Count on `train` by the first `rounds` keys of `like`."""
    require_examples(question, training=train)
    started = time.perf_counter()
    if not isinstance(like.scorer, CountsScorer):
        raise ValueError(f"counts are refitted like counts, however {like.scorer.family} was given")
    half_life = half_life_of(like)
    scorer = _all_counted(like.scorer.layout, train, like.scorer.keys[: like.rounds], half_life)
    return _fitted(scorer, len(scorer.keys), half_life, len(train), started, ())


def _all_counted(layout: Layout, train: Examples, keys: tuple[Key, ...], half_life: float | None) -> CountsScorer:
    """The tables of all keys, each counted against what those before it make expected."""
    prior = log_popularity(train, half_life)
    train = forgetting(train, half_life)
    customer, candidates = layout.customer(train.rows), layout.candidates(train.rows)
    utilities = np.tile(prior, (len(train), 1))
    tables = []
    for key in keys:
        table, utilities = counted(key, key.codes(customer, candidates), train, utilities)
        tables.append(table)
    return CountsScorer(layout, prior, keys, tables)


def counted(key: Key, codes: Codes, examples: Examples, utilities: Float32) -> tuple[Float32, Float32]:
    """The key's table, and the utilities [n, m + 1] with what it says; codes: of the key, [n] or [n, m].

    ln((W + s) / (E + s)) is where the likelihood with its gamma prior is greatest, as long as everything can be chosen:
    then saying more of one option says as much less of the others. Where something cannot, that is only the first step,
    and diagonal Newton steps follow (as in `pairs.MaskedSoftmax`, p (1 - p) k / (k - 1) with k options available).
    """
    strength = key.strength
    cells = Cells.of(key, codes, examples)
    chosen = cells.summed(examples.chosen)
    expected = cells.summed(_probabilities(utilities, examples))
    table = np.log((chosen + strength) / (expected + strength))
    k = examples.available.sum(axis=1, keepdims=True)
    factor = np.where(k > 1, k / np.maximum(k - 1, 1), 1.0)  # [n, 1]
    for _ in range(STEPS):
        probabilities = _probabilities(utilities + key.looked_up(table, codes), examples)
        slope = chosen + strength - cells.summed(probabilities) - strength * np.exp(table)
        bend = cells.summed(probabilities * (1 - probabilities) * factor) + strength * np.exp(table)
        step = np.clip(slope / bend, -1.0, 1.0)
        table += step
        if not expected.any() or np.average(np.abs(step), weights=expected) < TOLERANCE:
            break
    said = table.astype(np.float32)
    return said, utilities + key.looked_up(said, codes)


@dataclass(frozen=True)
class Cells:
    """Which cell of a key's table each available option of a row counts in.

    used: bool [n, w], the first w options of the rows where they are available. cell: int64 [k], theirs. weight:
    float64 [n, 1], mean 1. shape: of the table.
    """

    used: Bool
    cell: Codes
    weight: Float64
    shape: tuple[int, int]

    @classmethod
    def of(cls, key: Key, codes: Codes, examples: Examples) -> Cells:
        shape = key.shape(examples.available.shape[1] - 1)
        used = examples.available[:, : (shape[1] if key.of_customer else codes.shape[1])]
        cell = (codes[:, None] if key.of_customer else codes) * shape[1]
        if key.by_candidate:
            cell = cell + np.arange(used.shape[1])
        weight = examples.weight[:, None].astype(np.float64) / _mean(examples.weight)
        return cls(used, np.broadcast_to(cell, used.shape)[used], weight, shape)

    def summed(self, values: Float32 | Float64) -> Float64:
        """Weighted sums of [n, m + 1] per cell."""
        mass = (values[:, : self.used.shape[1]] * self.weight)[self.used]
        size = self.shape[0] * self.shape[1]
        return np.bincount(self.cell, weights=mass, minlength=size).astype(np.float64).reshape(self.shape)


def _fewest_losses(counted: CountsScorer, valid: Examples) -> int:
    """With how many of its keys the log-loss on `valid` is lowest; 0 = the prior alone."""
    customer, candidates = counted.layout.customer(valid.rows), counted.layout.candidates(valid.rows)
    utilities = np.tile(counted.prior, (len(valid), 1))
    losses = [log_loss(utilities, valid)]
    for key, table in zip(counted.keys, counted.tables, strict=True):
        utilities += key.looked_up(table, key.codes(customer, candidates))
        losses.append(log_loss(utilities, valid))
    return int(np.argmin(losses))


def _probabilities(utilities: Float32 | Float64, examples: Examples) -> Float64:
    return np.exp(masked_log_softmax(utilities, examples.available))


def _mean(weight: Float32) -> float:
    """Mean of the weights above 0: what one choice counts for, so that strengths have a meaning."""
    return float(weight[weight > 0].mean()) if (weight > 0).any() else 1.0


@dataclass
class Part:
    """Examples on which keys are tried, with what is expected of them by the keys so far.

    codes: of every fact, in order: [n] or [n, m]. utilities: float32 [n, m + 1]. weight: float64 [n], mean 1.
    """

    examples: Examples
    codes: list[Codes]
    utilities: Float32
    weight: Float64

    @classmethod
    def of(cls, layout: Layout, examples: Examples, facts: list[Fact], prior: Float32) -> Part:
        customer, candidates = layout.customer(examples.rows), layout.candidates(examples.rows)
        codes = [fact.codes(customer, candidates) for fact in facts]
        weight = examples.weight.astype(np.float64) / _mean(examples.weight)
        return cls(examples, codes, np.tile(prior, (len(examples), 1)), weight)

    @property
    def residual(self) -> tuple[Float64, Float64]:
        """Weighted choices and expected choices, float64 [n, m + 1] each."""
        expected = _probabilities(self.utilities, self.examples)
        return self.examples.chosen * self.weight[:, None], expected * self.weight[:, None]

    def code(self, chosen: tuple[int, ...], facts: list[Fact]) -> Codes:
        return combined([(facts[one], self.codes[one]) for one in chosen])

    def losses(self, utilities: Float32) -> Float64:
        """Weighted log-loss of each row, float64 [n]."""
        log_shares = masked_log_softmax(utilities, self.examples.available)
        chosen = self.examples.chosen
        return np.asarray(-(chosen * np.where(chosen > 0, log_shares, 0.0)).sum(axis=1) * self.weight)


@dataclass(frozen=True)
class Promise:
    """A key, of which facts, and the lower bound of its gain in nats on the later part."""

    gain: float
    facts: tuple[int, ...]
    key: Key


class Search:
    """Greedy choice of keys within the training examples."""

    def __init__(self, layout: Layout, facts: list[Fact], earlier: Part, later: Part) -> None:
        self.layout = layout
        self.facts = facts
        self.earlier = earlier
        self.later = later
        self.keys: list[Key] = []
        self.gains: list[float] = []
        self._used: list[tuple[int, ...]] = []
        self._sizes = np.array([fact.size for fact in facts])
        self._hot = [_one_hot(part, facts) for part in (earlier, later)]
        self._within: dict[tuple[int, ...], float] = {}

    @classmethod
    def of(cls, layout: Layout, train: Examples, half_life: float | None) -> Search:
        examples = forgetting(train, half_life)
        facts = facts_of(layout, examples)
        order = np.arange(len(examples)) if examples.at is None else np.argsort(examples.at, kind="stable")
        border = len(order) - max(1, int(LATER * len(order)))
        width = examples.available.shape[1]
        step = max(1, -(-len(order) * width // TRIED_PAIRS))
        earlier, later = (examples.take(part[::step]) for part in (order[:border], order[border:]))
        if not len(earlier) or earlier.weight.sum() <= 0:
            earlier = later
        prior = log_popularity(earlier)
        return cls(layout, facts, Part.of(layout, earlier, facts, prior), Part.of(layout, later, facts, prior))

    def add(self) -> bool:
        """Add the key that gains most; False where none surely gains anything."""
        promises = sorted(self._promises(), key=lambda one: -one.gain)
        for promise in promises[:TRIES]:
            if promise.gain <= 0:
                break
            if self._tried(promise):
                return True
        return False

    def _tried(self, promise: Promise) -> bool:
        """Whether a key is added: counted in earnest, with its strength and a weaker one, which masks may ask for."""
        earlier, later, key = self.earlier, self.later, promise.key
        codes, later_codes = earlier.code(promise.facts, self.facts), later.code(promise.facts, self.facts)
        losses = later.losses(later.utilities)
        best = None
        for strength in (key.strength, key.strength / WEAKER):
            own = replace(key, strength=strength)
            table, nearer = counted(own, codes, earlier.examples, earlier.utilities)
            further = later.utilities + own.looked_up(table, later_codes)
            gain = losses - later.losses(further)
            if best is None or gain.sum() > best[0].sum():
                best = gain, own, nearer, further
        if best is None or best[0].sum() <= ERRORS * np.sqrt(len(losses)) * best[0].std():
            return False
        gain, own, earlier.utilities, later.utilities = best
        self.keys.append(own)
        self.gains.append(float(gain.mean()))
        self._used.append(promise.facts)
        return True

    def _promises(self) -> list[Promise]:
        """The promise of every fact alone, and within the keys that are there."""
        residuals = self.earlier.residual, self.later.residual
        found = self._of_customers(residuals)
        found += [self._of_pairs((one,), residuals) for one in range(len(self.facts)) if not self._plain(one)]
        partners = [one.facts[0] for one in sorted(found, key=lambda one: -one.gain)[:PARTNERS]]
        singles = {used[0] for used in self._used if len(used) == 1}
        pairs: set[tuple[int, ...]] = {
            tuple(sorted((one, other))) for one in singles for other in partners if one != other
        }
        # What promised little beside fewer keys promises no more beside many: only the best are asked again.
        again = sorted((pair for pair in pairs if pair in self._within), key=lambda pair: -self._within[pair])[:RENEWED]
        together = [self._of_pairs(pair, residuals) for pair in [*sorted(pairs - self._within.keys()), *again]]
        self._within |= {one.facts: one.gain for one in together}
        return found + together

    def _plain(self, one: int) -> bool:
        return self.facts[one].of_customer

    def _of_customers(self, residuals: tuple[tuple[Float64, Float64], ...]) -> list[Promise]:
        """Every fact of the customer at once: sums per code are one product of sparse matrices."""
        (chosen, expected), (later_chosen, later_expected) = (
            tuple(np.asarray(hot @ values) for values in both) for hot, both in zip(self._hot, residuals, strict=True)
        )
        starts = np.concatenate([[0], np.cumsum([fact.size for fact in self.facts if fact.of_customer])])
        places = [one for one in range(len(self.facts)) if self._plain(one)]
        best = np.full(len(places), -np.inf)
        strengths = np.full(len(places), STRENGTHS[0])
        for strength in STRENGTHS if places else ():
            gains = bound(chosen, expected, later_chosen, later_expected, strength)
            summed = np.add.reduceat(gains, starts[:-1])
            strengths[summed > best] = strength
            best = np.maximum(best, summed)
        return [
            Promise(float(best[place]), (one,), Key((self.facts[one],), True, float(strengths[place])))
            for place, one in enumerate(places)
        ]

    def _of_pairs(self, which: tuple[int, ...], residuals: tuple[tuple[Float64, Float64], ...]) -> Promise:
        """One key of any facts: alone or two together, for all candidates alike and, where it pays, for each."""
        facts = tuple(self.facts[one] for one in which)
        plain = all(fact.of_customer for fact in facts)
        sums: list[Float64] = []
        for part, both in zip((self.earlier, self.later), residuals, strict=True):
            codes = part.code(which, self.facts)
            width = both[0].shape[1] if plain else both[0].shape[1] - 1
            cell = (codes[:, None] if plain else codes) * width + np.arange(width)
            size = int(np.prod([fact.size for fact in facts])) * width
            for values in both:
                summed = np.bincount(cell.ravel(), weights=values[:, :width].ravel(), minlength=size)
                sums.append(summed.astype(np.float64).reshape(-1, width))
        promises = []
        for by_candidate in (True,) if plain else (False, True):
            tables = sums if by_candidate else [table.sum(axis=1, keepdims=True) for table in sums]
            for strength in STRENGTHS:
                gain = float(bound(tables[0], tables[1], tables[2], tables[3], strength).sum())
                promises.append(Promise(gain, which, Key(facts, by_candidate, strength)))
        return max(promises, key=lambda one: one.gain)


def bound(
    chosen: Float64, expected: Float64, later_chosen: Float64, later_expected: Float64, strength: float
) -> Float64:
    """The lower bound of the gain in nats per group, float64 [g]; see the module. Sums per group and option, [g, k].

    Utilities may be shifted together within a row, and are: so that the expected choices of a group stay as many.
    """
    ratio = (chosen + strength) / (expected + strength)
    if ratio.shape[1] > 1:
        total = (expected * ratio).sum(axis=1, keepdims=True)
        ratio = ratio * np.divide(expected.sum(axis=1, keepdims=True), total, out=np.ones_like(total), where=total > 0)
    return np.asarray((later_chosen * np.log(ratio) - later_expected * (ratio - 1)).sum(axis=1))


def _one_hot(part: Part, facts: list[Fact]) -> sparse.csr_matrix:
    """Codes of all facts of the customer as rows of zeros and ones, sparse [codes in all, n]."""
    plain = [(fact.size, codes) for fact, codes in zip(facts, part.codes, strict=True) if fact.of_customer]
    n = len(part.examples)
    starts = np.concatenate([[0], np.cumsum([size for size, _ in plain])])
    columns = np.stack([codes + start for (_, codes), start in zip(plain, starts[:-1], strict=True)], axis=1)  # [n, f]
    pointers = np.arange(n + 1) * columns.shape[1]
    hot = sparse.csr_matrix((np.ones(columns.size), columns.ravel(), pointers), (n, int(starts[-1])))
    return hot.T.tocsr()


def _fitted(
    counted: CountsScorer, best: int, half_life: float | None, rows: int, started: float, gains: tuple[float, ...]
) -> Fitted:
    scorer = CountsScorer(counted.layout, counted.prior, counted.keys[:best], counted.tables[:best])
    words = [" × ".join(fact.told(scorer.layout) for fact in key.facts) for key in scorer.keys]
    params = {**prior_params(half_life), "keys": best, "keyed_by": told(words)[:500], "rows_used": rows}
    return Fitted(scorer, best, time.perf_counter() - started, params, _importance(scorer, gains[:best]))


def _importance(scorer: CountsScorer, gains: tuple[float, ...]) -> dict[str, float] | None:
    """Each column's share of the gain of the keys that look at it."""
    if not gains:
        return None
    found: dict[str, float] = {}
    for key, gain in zip(scorer.keys, gains, strict=True):
        for fact in key.facts:
            names = scorer.layout.candidate_names if fact.kind == "own" else scorer.layout.customer_names
            for column in fact.columns:
                part = gain / len(key.facts) / len(fact.columns)
                found[names[column]] = found.get(names[column], 0.0) + part
    total = sum(found.values()) or 1.0
    return {name: value / total for name, value in found.items()}

"""Logs of a simulated bank whose policies and true rewards are known for every candidate of every decision.

Decisions are made for the bank's customers at ten in the morning, bank time, on the fifteenth of each of its last
months. A log is drawn like this: customers with replacement, all decisions of each; the logging policy takes one of the
`ACTIONS` at each; what follows is drawn from the truth. So a drawn customer is one independent unit, its decisions are
not, and the true value of a policy is a sum over the whole bank, without any noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from true_value import Messages

from features.schema import Float64, Int64
from features.simulate import simulate
from features.simulation.calendar import DAY, from_epoch
from features.simulation.catalog import CHANNELS, PRODUCTS, content_index
from features.simulation.logging_policy import SLOT_COUNT, TEMPLATE_OF_SLOT, business_no_contact
from features.simulation.truth import Truth
from features.simulation.truth_files import held_before, load_truth
from training.policies.decision_log import DecisionLog

DELIVERED, TAKE_UPS, MONEY = "delivered", "take-ups", "money"
REWARDS = (DELIVERED, TAKE_UPS, MONEY)
"""delivered: 1 where the message arrived, which in this bank depends on the action through its channel alone
(`Truth.reach`); take-ups: 1 where the message led to one; money: the margin of a take-up less the channel's cost."""
FOLDS = 5
_AT_ONCE = 500

ACTIONS = [(p, h, s) for p in range(len(PRODUCTS)) for h in range(len(CHANNELS)) for s in range(int(SLOT_COUNT[h]))]
"""Product, channel, place of the content; no contact is one more candidate, the last one."""
PRODUCT, CHANNEL, SLOT = np.array(ACTIONS).T
NONE = len(CHANNELS)
CHANNEL_OF = np.append(CHANNEL, NONE)  # [A] what MIPS takes for the action's feature
PRODUCT_OF = np.append(PRODUCT, len(PRODUCTS))  # [A]


@dataclass(frozen=True)
class KnownWorld:
    """D decisions of N customers, those of a customer side by side, with A candidates each.

    first, count: int64 [N], where a customer's decisions begin and how many there are. logged, target: float64 [D, A],
    two policies. arrives, takes_up: float64 [D, A], true probabilities of what follows. gains: [A], cost: [A], money.
    """

    first: Int64
    count: Int64
    logged: Float64
    target: Float64
    arrives: Float64
    takes_up: Float64
    gains: Float64
    cost: Float64

    def mean(self, reward: str) -> Float64:
        """Float64 [D, A]: the true mean of a reward."""
        if reward == DELIVERED:
            return self.arrives
        return self.takes_up if reward == TAKE_UPS else self.takes_up * self.gains - self.cost

    def value(self, reward: str) -> float:
        """What the target is truly worth per decision."""
        return float((self.target * self.mean(reward)).sum() / len(self.target))

    def value_by_channel(self, reward: str) -> float:
        """What MIPS estimates when the reward is taken to depend on the channel alone: its exact expectation.

        Σ_e π(e|x) × mean reward of the actions with that channel as the *logging* policy mixes them.
        """
        total = 0.0
        mean = self.mean(reward)
        for channel in range(NONE + 1):
            same = np.equal(CHANNEL_OF, channel)
            logged = self.logged[:, same].sum(axis=1)
            mixed = (self.logged[:, same] * mean[:, same]).sum(axis=1) / np.where(logged > 0, logged, 1.0)
            total += float((self.target[:, same].sum(axis=1) * mixed).sum())
        return total / len(self.target)

    def draw(self, customers: int, draw: np.random.Generator) -> Mapping[str, DecisionLog]:
        """Reward → the log of so many customers; the same decisions and reactions in each."""
        drawn = draw.integers(len(self.first), size=customers)
        count = self.count[drawn]
        unit = np.repeat(np.arange(customers), count)
        row = np.repeat(self.first[drawn] - np.cumsum(count) + count, count) + np.arange(count.sum())
        logged = self.logged[row]
        total = np.cumsum(logged, axis=1)
        taken = np.argmax(total > (draw.random(len(row)) * total[:, -1])[:, None], axis=1)
        arrived = draw.random(len(row)) < self.arrives[row, taken]
        chance = self.takes_up[row, taken] / np.maximum(self.arrives[row, taken], 1e-300)
        took_up = arrived & (draw.random(len(row)) < chance)
        rewards = {
            DELIVERED: arrived.astype(np.float64),
            TAKE_UPS: took_up.astype(np.float64),
            MONEY: took_up * self.gains[taken] - self.cost[taken],
        }
        width = self.logged.shape[1]
        shared = {
            "customer_id": np.char.mod("%d", unit).astype(object),
            "candidates": np.full(len(row), width),
            "taken": taken,
            "logged": logged.ravel(),
            "target": self.target[row].ravel(),
            "feature": np.tile(CHANNEL_OF, len(row)),
        }
        fold = unit % FOLDS
        return {
            name: DecisionLog(reward=reward, predicted=_predicted(reward, taken, fold), **shared)
            for name, reward in rewards.items()
        }


def known_world(folder: Path, customers: int, months: int, seed: int, moments: int = 3) -> KnownWorld:
    """Simulate a bank, and list what both policies do and what truly follows on the last `moments` months."""
    simulate(folder, customers, months, seed)
    truth = load_truth(folder)
    known = _known_since(folder, truth)
    who, when = [], []
    for month in range(months - moments, months):
        at = truth.month_starts[month] + 14 * DAY + 2 * 3600.0
        here = np.flatnonzero(known < at)
        who.append(here)
        when.append(np.full(len(here), at))
    order = np.argsort(np.concatenate(who), kind="stable")
    customer, at = np.concatenate(who)[order], np.concatenate(when)[order]
    held = held_before(pq.read_table(folder / "holdings.parquet"), truth, customer, at)
    tired = Messages.of(pq.read_table(folder / "timeline.parquet"), truth).tired(truth, customer, at)
    language = np.random.default_rng(seed).integers(2, size=len(known))
    noise = np.random.default_rng(seed + 1).normal(size=(len(known), len(PRODUCTS) + len(CHANNELS)))
    parts: list[tuple[Float64, ...]] = []
    for start in range(0, len(customer), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        parts.append(_listed(truth, customer[part], at[part], held[part], tired[part], language, noise))
    logged, target, arrives, takes_up = (np.concatenate(block) for block in zip(*parts, strict=True))
    present, first, count = np.unique(customer, return_index=True, return_counts=True)
    assert len(present) <= len(known)
    gains = np.append([float(PRODUCTS[p].margin or 0.0) for p in PRODUCT], 0.0)
    cost = np.append([CHANNELS[h].cost for h in CHANNEL], 0.0)
    return KnownWorld(first, count, logged, target, arrives, takes_up, gains, cost)


def _listed(truth: Truth, customer: Int64, at: Float64, held: np.ndarray, tired: Float64, language: Int64,
            noise: Float64) -> tuple[Float64, ...]:  # fmt: skip
    """Both policies and the truth of n decisions: float64 [n, A] each."""
    n, k = len(customer), len(ACTIONS)
    owner = np.repeat(np.arange(n), k)
    product, channel, slot = (np.tile(part, n) for part in (PRODUCT, CHANNEL, SLOT))
    content = content_index(product, TEMPLATE_OF_SLOT[channel, slot], language[customer[owner]])
    follows = truth.outcome(customer[owner], product, channel, content, at[owner], tired[owner], held[owner])
    arrives, takes_up = follows.reach.reshape(n, k), follows.take_up.reshape(n, k)
    possible = ~held[:, PRODUCT] & (arrives > 0)
    uniform = np.append(possible, np.ones((n, 1)), axis=1) / (1.0 + possible.sum(axis=1, keepdims=True))
    # As business goes: what sells to everybody, on cheap channels, seldom to those who had much mail.
    popular = truth.parameters.intensity[PRODUCT] ** 0.5 / (1.0 + np.array([CHANNELS[h].cost for h in CHANNEL]))
    usual = _contacts(possible * popular, business_no_contact(tired))
    # In question: an agent that has a noisy idea of needs and of liked channels.
    needs = truth.full_need(customer, at, held) + noise[customer, : len(PRODUCTS)]
    likes = truth.latents.preference[customer] + 0.5 * noise[customer, len(PRODUCTS) :]
    wanted = np.exp(0.6 * needs)[:, PRODUCT] * np.exp(0.6 * likes)[:, CHANNEL]
    agent = _contacts(possible * wanted, np.full(n, 0.2))
    nothing = np.zeros((n, 1))
    return (
        0.3 * uniform + 0.7 * usual,
        0.1 * uniform + 0.9 * agent,
        np.append(arrives, nothing, axis=1),
        np.append(takes_up, nothing, axis=1),
    )


def _contacts(weight: Float64, alone: Float64) -> Float64:
    """Float64 [n, A]: contacts in proportion to their weight [n, A − 1], none at all with probability `alone` [n]."""
    total = weight.sum(axis=1)
    alone = np.where(total > 0, alone, 1.0)
    share = weight * ((1.0 - alone) / np.where(total > 0, total, 1.0))[:, None]
    return np.append(share, alone[:, None], axis=1)


def _known_since(folder: Path, truth: Truth) -> Float64:
    """Float64 [N]: since when the bank knows each customer, seconds of the simulated calendar."""
    table = pq.read_table(folder / "customers.parquet", columns=["customer_id", "event_timestamp"])
    at = from_epoch(table["event_timestamp"].cast("int64").to_numpy() / 1e6)
    since = np.full(len(truth.customer_ids), np.inf)
    np.minimum.at(since, truth.rows_of(table["customer_id"].to_pylist()), at)
    return since


def _predicted(reward: Float64, taken: Int64, fold: Int64) -> Float64:
    """Float64 [n × A]: a plain model of the reward, channel mean × product mean / mean, of the other folds' customers.

    It is wrong about everybody (it knows no customer), as a model is; the correction of DR is there for that.
    """
    model = np.zeros((FOLDS, len(CHANNEL_OF)))
    for left_out in range(FOLDS):
        seen = fold != left_out
        contact = seen & (CHANNEL_OF[taken] != NONE)
        overall = reward[contact].mean()
        factors = []
        for names in (CHANNEL_OF, PRODUCT_OF):
            groups = int(names.max()) + 1
            total = np.bincount(names[taken[contact]], weights=reward[contact], minlength=groups)
            count = np.bincount(names[taken[contact]], minlength=groups)
            factors.append(((total + 50.0 * overall) / (count + 50.0))[names])
        model[left_out, :-1] = (factors[0] * factors[1] / (overall or 1.0))[:-1]
    return model[fold].ravel()

"""On a simulated bank, whose truth is known: what decisions are truly worth, under equal contact limits.

Each seed is a bank of its own, with models of its own, of which a group of customers is decided for, one after the
other in random order. Everybody has the same rules per customer (the served ones) and the same number of messages per
channel: the catalogue's capacities, which are meant for a million customers, brought to the size of the group. Where a
channel is used up, it is gone. The joint choice, the arms and the candidates are the served `Decider`'s; what is
compared with it is written here. The true value of an action is that of `true_value`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from scipy.optimize import linprog
from true_value import Messages, Numbers, interval, true_values

from features.arbitration import Arms
from features.build import build_features
from features.columns import Table
from features.home import Home
from features.importing import Bank
from features.schema import Bool, Float64, Int64
from features.simulate import simulate
from features.simulation.calendar import from_epoch
from features.simulation.truth import Truth
from features.simulation.truth_files import held_before, load_truth
from serving.decide import Decider
from serving.decision import Action, Ask, Decision
from serving.opening import open_serving
from serving.policy import Policy
from serving.sensitivity import recorded_factors, sensitivity
from serving.settings import Settings
from training.plan import Order
from training.track import Tracking
from training.train import train

pytestmark = [pytest.mark.proof, pytest.mark.timeout(7200)]

CUSTOMERS, MONTHS, SEEDS, GROUP = 3_000, 9, 10, 600
JOINT = "joint, without exploring"
CAPACITY_IS_FOR = 1_000_000
"""Customers that the capacities of the simulated catalogue are meant for."""


@dataclass(frozen=True)
class World:
    """A bank, its truth as of one moment, and the decider that serves it."""

    bank: Bank
    truth: Truth
    decider: Decider
    at: datetime
    fatigue: Float64  # [N]
    held: Bool  # [N, P]

    @classmethod
    def of(cls, bank: Bank, truth: Truth, decider: Decider, end: datetime) -> World:
        """At ten in the morning, bank time, of the day after the data ends: no quiet hours anywhere."""
        at = (end + timedelta(days=1)).astimezone(UTC).replace(hour=2, minute=0, second=0, microsecond=0)
        everyone = np.arange(len(truth.customer_ids))
        when = np.full(len(everyone), from_epoch(np.array([at.timestamp()]))[0])
        fatigue = Messages.of(bank.tables[Table.TIMELINE], truth).tired(truth, everyone, when)
        held = held_before(bank.tables[Table.HOLDINGS], truth, everyone, when)
        return cls(bank, truth, decider, at, fatigue, held)

    def true_values(self, customer: Int64, actions: Sequence[Action]) -> Float64:
        """Float64 [n]: what n actions are truly worth, each to one customer."""
        names = [(str(action.product_id), action.channel, str(action.content_id)) for action in actions]
        when = np.full(len(customer), from_epoch(np.array([self.at.timestamp()]))[0])
        tired, held = self.fatigue[customer], self.held[customer]
        numbers = Numbers.of(self.truth, names)
        return true_values(self.truth, self.decider.worth, customer, numbers, when, tired, held)


@dataclass(frozen=True)
class Group:
    """Customers in the order in which they come, with every feasible action of each as the decider lists them."""

    world: World
    seed: int
    customer: Int64  # [n] index into the truth
    decisions: tuple[Decision, ...]  # [n], nothing used up
    true: tuple[Mapping[Action, float], ...]  # [n] action → true value
    capacity: Mapping[str, int]  # channel → messages; absent: no limit

    @classmethod
    def of(cls, world: World, seed: int, customer: Int64) -> Group:
        names = [world.truth.customer_ids[at] for at in customer]
        decisions = tuple(world.decider.decide(Ask(name, world.at), f"{seed}/{name}") for name in names)
        actions = [[one.action for one in decision.candidates if one.action] for decision in decisions]
        owner = np.repeat(customer, [len(some) for some in actions])
        values = iter(world.true_values(owner, [action for some in actions for action in some]).tolist())
        capacity = {
            channel.id: round(channel.capacity * len(customer) / CAPACITY_IS_FOR)
            for channel in world.decider.catalog.channels
            if channel.capacity is not None
        }
        true = tuple({action: next(values) for action in some} for some in actions)
        return cls(world, seed, customer, decisions, true, capacity)

    def play(self, choose: Callable[[int, tuple[str, ...]], Action | None]) -> tuple[float, int]:
        """True value per 1,000 decisions and number of contacts; choose: (place, channels not used up) → action."""
        left = dict(self.capacity)
        total, contacts = 0.0, 0
        for place in range(len(self.customer)):
            channels = self.world.decider.catalog.channel_ids
            action = choose(place, tuple(channel for channel in channels if left.get(channel, 1) > 0))
            if action is not None:
                total += self.true[place][action]
                contacts += 1
                if action.channel in left:
                    left[action.channel] -= 1
        return 1_000.0 * total / len(self.customer), contacts

    def served(self, decider: Decider) -> tuple[float, int]:
        """Let a decider decide."""

        def choose(place: int, channels: tuple[str, ...]) -> Action | None:
            ask = Ask(self.decisions[place].ask.customer_id, self.world.at, channels=channels)
            return decider.decide(ask, f"{self.seed}/{ask.customer_id}").action

        return self.play(choose)

    def two_steps(self, by_value: bool) -> tuple[float, int]:
        """The product of the highest P(take-up), or P(take-up) × margin, then the channel that works best for it."""

        def choose(place: int, channels: tuple[str, ...]) -> Action | None:
            best: tuple[float, float] = (-np.inf, -np.inf)
            found: Action | None = None
            for candidate in self.decisions[place].candidates:
                factors = candidate.factors
                if candidate.action is None or factors is None or candidate.action.channel not in channels:
                    continue
                first = factors["propensity"] * (factors["value"] if by_value else 1.0)
                if (first, factors["channel"]) > best:
                    best, found = (first, factors["channel"]), candidate.action
            return found

        return self.play(choose)

    def oracle_in_order(self) -> tuple[float, int]:
        """The truly best action of each customer as they come: what perfect knowledge is worth without foresight."""

        def choose(place: int, channels: tuple[str, ...]) -> Action | None:
            open_now = [action for action in self.true[place] if action.channel in channels]
            best = max(open_now, key=self.true[place].__getitem__, default=None)
            return best if best is not None and self.true[place][best] > 0 else None

        return self.play(choose)

    def oracle(self) -> float:
        """The highest true value per 1,000 decisions under the same limits: a transportation problem, solved exactly.

        Of a customer's actions on one channel only the truly best can matter. The constraint matrix (one action per
        customer, capacity per channel) is totally unimodular, so the linear program has a whole solution.
        """
        best: dict[tuple[int, str], float] = {}
        for place, values in enumerate(self.true):
            for action, value in values.items():
                key = place, action.channel
                best[key] = max(value, best.get(key, 0.0))
        channels = {name: at for at, name in enumerate(self.capacity)}
        rows, columns = [], []
        for column, (place, channel) in enumerate(best):
            rows += [place] + ([len(self.customer) + channels[channel]] if channel in channels else [])
            columns += [column] * (2 if channel in channels else 1)
        limits = np.concatenate([np.ones(len(self.customer)), list(self.capacity.values())])
        matrix = scipy.sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(limits), len(best)))
        solved = linprog(-np.array(list(best.values())), A_ub=matrix, b_ub=limits, bounds=(0, 1), method="highs")
        assert solved.status == 0, solved.message
        return float(-solved.fun) * 1_000.0 / len(self.customer)


def played(world: World, seed: int) -> dict[str, float]:
    """Policy → true value per 1,000 decisions for a group of this bank's customers; `contacts: ` policy → how many."""
    everyone = np.random.default_rng(seed).permutation(len(world.truth.customer_ids))
    group = Group.of(world, seed, everyone[:GROUP])
    joint = world.decider
    rivals = {
        JOINT: replace(joint, policy=Policy(0.0, 0.0)),
        "joint, as served": joint,
        "business as usual": with_arm(joint, "business_as_usual"),
        "random": with_arm(joint, "random"),
    }
    outcomes = {name: group.served(decider) for name, decider in rivals.items()}
    outcomes["best product by value, then best channel"] = group.two_steps(by_value=True)
    outcomes["best product by probability, then best channel"] = group.two_steps(by_value=False)
    outcomes["oracle, as they come"] = group.oracle_in_order()
    print(f"bank {seed}: {sensitivity(recorded_factors(decision.record()) for decision in group.decisions)}")
    values = {name: value for name, (value, _) in outcomes.items()} | {"oracle": group.oracle()}
    return values | {f"contacts: {name}": 1_000.0 * count / GROUP for name, (_, count) in outcomes.items()}


def with_arm(decider: Decider, arm: str) -> Decider:
    """The same decider with everybody in one arm."""
    declared = replace(decider.worth.declared, arms=Arms({arm: 1.0}, "proof"))
    return replace(decider, worth=replace(decider.worth, declared=declared))


def report(found: Mapping[str, Sequence[float]]) -> str:
    """One line per policy: value, the joint choice's lead over it, contacts."""
    lines = ["true value per 1,000 decisions, mean [95 % interval over seeds]"]
    for name in (name for name in found if not name.startswith("contacts")):
        mean, low, high = interval(found[name])
        lead = interval(np.subtract(found[JOINT], found[name]).tolist())
        contacts = np.mean(found.get(f"contacts: {name}", [np.nan]))
        lines.append(
            f"{name:48s} {mean:9,.0f} [{low:9,.0f}, {high:9,.0f}]   joint leads by {lead[0]:9,.0f} "
            f"[{lead[1]:9,.0f}, {lead[2]:9,.0f}]   {contacts:5.0f} contacts"
        )
    return "\n".join(lines)


@contextmanager
def trained_world(folder: Path, seed: int) -> Iterator[World]:
    """Simulate a bank, build, train, open what serves."""
    simulate(folder / "bank", CUSTOMERS, MONTHS, seed=seed)
    home = Home(folder / "home")
    build = build_features(folder / "bank", home)
    tracking = Tracking(f"sqlite:///{folder}/mlflow.db")
    for model in ("next-best-product", "channel-choice"):
        trained = train(Order(model, "lightgbm", seed=seed), build, tracking, {})
        tracking.promote(model, trained.run_id)  # the question is what this model is worth, not what the gate says
    serving = open_serving(Settings(home.root, tracking.uri))
    try:
        yield World.of(build.bank, load_truth(folder / "bank"), serving.decider, build.data_end)
    finally:
        serving.ledger.close()


def test_the_joint_choice_is_truly_worth_more_than_two_steps_business_as_usual_and_random(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found: dict[str, list[float]] = {}
    with capsys.disabled():
        for seed in range(1, SEEDS + 1):
            with trained_world(tmp_path / str(seed), seed) as world:
                for name, value in played(world, seed).items():
                    found.setdefault(name, []).append(value)
        print(report(found))
    joint = found[JOINT]
    assert max(np.subtract(joint, found["oracle"])) <= 0, "nothing beats the oracle"
    for rival in (
        "best product by value, then best channel",
        "best product by probability, then best channel",
        "business as usual",
        "random",
    ):
        _, low, _ = interval(np.subtract(joint, found[rival]).tolist())
        assert low > 0, f"the joint choice must beat {rival}, however:\n{report(found)}"

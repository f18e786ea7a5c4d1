"""What served decisions are truly worth, and what the log alone would say of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from living_bank import LivingBank
from true_value import Numbers, true_values

from features.arbitration import read_declared
from features.columns import Event, Kind
from features.evidence import evidence
from features.home import Build
from features.schema import Float64, Int64
from serving.arms import Lottery, business_as_usual
from serving.candidates import Offers
from serving.decision import Action
from serving.policy import Policy
from serving.settings import Settings
from serving.value import Worth
from training.policies.decision_log import DecisionLog
from training.policies.off_policy import evaluate

TARGETS = ("agent", "business_as_usual")
"""Policies whose worth is also estimated from the log."""
ANSWERS, MONEY = "answers", "money"
"""What the log shows of a message: whether it was clicked or replied to; the value of the take-up that it led to, less
the channel's cost."""


@dataclass
class Judged:
    """The decisions of a round, n in all; float64 [n] unless said otherwise.

    true: policy → true value of what it would do at this decision, in expectation. reward: reward, target → true mean
    of what the log will show. cost: of the action taken. logged, chance: per decision float64 [K], probability of each
    candidate as logged, and by target; taken: which it was.
    """

    customer: list[int] = field(default_factory=list)
    decision_id: list[str] = field(default_factory=list)
    arm: list[str] = field(default_factory=list)
    contact: list[bool] = field(default_factory=list)
    degraded_because: set[str] = field(default_factory=set)
    taken: list[int] = field(default_factory=list)
    logged: list[Float64] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)
    true: dict[str, list[float]] = field(default_factory=dict)
    chance: dict[str, list[Float64]] = field(default_factory=dict)
    reward: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def document(self, ledger: pa.Table) -> dict[str, Any]:
        """Means over the decisions, and per target the truth with both estimates; ledger: all events, in the end."""
        arms = np.array(self.arm)
        taken = np.array(self.true["taken"])
        return {
            "decisions": len(self.customer),
            "contacts": float(np.mean(self.contact)),
            "arms": dict(Counter(self.arm)),
            "degraded_because": sorted(self.degraded_because),
            "true": {name: 1_000.0 * float(np.mean(values)) for name, values in self.true.items()},
            "true_of_arm": {arm: 1_000.0 * float(taken[arms == arm].mean()) for arm in sorted(set(self.arm))},
            "off_policy": [
                {"reward": reward, "target": target, "truth": float(np.mean(truth))}
                | self._estimated(target, self._observed(reward, ledger))
                for (reward, target), truth in self.reward.items()
            ],
        }

    def _observed(self, reward: str, ledger: pa.Table) -> Float64:
        """Float64 [n]: the reward of each decision as the ledger tells it."""
        kinds = [str(kind) for kind in ((Kind.CLICKED, Kind.REPLIED) if reward == ANSWERS else (Kind.CONVERTED,))]
        told = ledger.filter(pc.is_in(ledger[Event.KIND], pa.array(kinds)))
        values = dict(zip(told[Event.DECISION_ID].to_pylist(), told[Event.VALUE].to_pylist(), strict=True))
        if reward == ANSWERS:
            return np.array([float(name in values) for name in self.decision_id])
        return np.array([values.get(name, 0.0) for name in self.decision_id]) - np.array(self.cost)

    def _estimated(self, target: str, observed: Float64) -> dict[str, Any]:
        """What `training.policies.off_policy` says of it; nothing, and why, where the log does not bear it."""
        log = DecisionLog(
            np.array(self.customer, dtype=object),
            observed,
            np.array([len(one) for one in self.logged]),
            np.array(self.taken),
            np.concatenate(self.logged),
            np.concatenate(self.chance[target]),
        )
        found = evaluate(log, ("ips", "snips"), seed=0)
        intervals = {name: one.interval for name, one in found.estimates.items()}
        return {"withheld": found.overlap.reasons} | {
            name: (one.mean, one.low, one.high) for name, one in intervals.items()
        }


class Judge:
    """Judges decisions at the moment they are made, when the truth about the customers is at hand."""

    def __init__(self, bank: LivingBank, build: Build, settings: Settings) -> None:
        catalog = build.catalog
        self._bank = bank
        self._declared = read_declared(catalog)
        self._worth = Worth.of(catalog, self._declared, evidence(build.bank))
        self._policy = Policy(
            settings.temperature, settings.epsilon, settings.exploration, settings.gamma, settings.loss_budget
        )
        self.judged = Judged()

    def add(self, customer: Int64, records: Sequence[Mapping[str, Any]]) -> None:
        """Decisions for these customers, now, by their records."""
        actions = [[one for one in record["candidates"] if one["channel"] is not None] for record in records]
        owner = np.repeat(customer, [len(some) for some in actions])
        numbers = Numbers.of(
            self._bank.truth,
            [(one["product_id"], one["channel"], one["content_id"]) for some in actions for one in some],
        )
        value, rewards = self._truly(owner, numbers)
        cuts = np.cumsum([len(some) for some in actions])[:-1]
        # Arrays are cut along their last axis: the rewards have two.
        parts = (np.split(values, cuts, axis=-1) for values in (value, rewards, numbers.product, numbers.channel))
        for who, record, *known in zip(customer.tolist(), records, *parts, strict=True):
            self._one(who, record, *known)

    def _truly(self, owner: Int64, numbers: Numbers) -> tuple[Float64, Float64]:
        """Float64 [A], what the actions are worth, and [2, A], the means of answers and money that the log shows."""
        bank, worth = self._bank, self._worth
        when, tired, held = np.full(len(owner), bank.now), bank.tired(owner), bank.held(owner)
        value = true_values(bank.truth, worth, owner, numbers, when, tired, held)
        follows = bank.truth.outcome(owner, numbers.product, numbers.channel, numbers.content, when, tired, held)
        answers = follows.reach * follows.open * (follows.respond + (1.0 - follows.respond) * follows.click)
        money = follows.take_up * worth.margins[numbers.product] - worth.costs[numbers.channel]
        return value, np.stack([answers, money])

    def _one(
        self, who: int, record: Mapping[str, Any], value: Float64, rewards: Float64, product: Int64, channel: Int64
    ) -> None:
        candidates = record["candidates"]
        assert candidates[-1]["channel"] is None, "no contact comes last"
        assert len(candidates) == len(value) + 1
        actions = [Action(one["product_id"], one["channel"], one["content_id"], None) for one in candidates[:-1]]
        offers = Offers.of(actions, product.tolist(), channel.tolist())
        agent = self._policy.propensities(np.array([one["value"] for one in candidates]), 0.0)
        usual = business_as_usual(offers, self._worth.take_ups, self._worth.costs)
        lots = Lottery(self._declared.arms, agent, usual)
        logged = np.array([one["propensity"] for one in candidates])
        assert np.allclose(lots.propensities, logged, rtol=1e-9, atol=1e-12), "what is logged is what was drawn by"
        action = record["action"] or {"product_id": None, "channel": None, "content_id": None}
        names = ("product_id", "channel", "content_id")
        taken = next(at for at, one in enumerate(candidates) if all(one[name] == action[name] for name in names))
        value, rewards = np.append(value, 0.0), np.append(rewards, np.zeros((2, 1)), axis=1)
        best = max(range(len(candidates)), key=lambda at: candidates[at]["value"])
        self.judged.logged.append(logged)
        self._note(who, record, taken, 0.0 if taken == len(offers) else float(self._worth.costs[channel[taken]]))
        true = {name: float(lots.by_arm[name] @ value) for name in lots.by_arm}
        true |= {"agent, without exploring": value[best], "oracle": value.max(), "taken": value[taken]}
        for name, number in true.items():
            self.judged.true.setdefault(name, []).append(float(number))
        for target in TARGETS:
            self.judged.chance.setdefault(target, []).append(lots.by_arm[target])
            for name, reward in zip((ANSWERS, MONEY), rewards, strict=True):
                self.judged.reward.setdefault((name, target), []).append(float(lots.by_arm[target] @ reward))

    def _note(self, who: int, record: Mapping[str, Any], taken: int, cost: float) -> None:
        judged = self.judged
        judged.customer.append(who)
        judged.decision_id.append(record["decision_id"])
        judged.arm.append(record["arm"])
        judged.contact.append(record["action"] is not None)
        judged.degraded_because.update(record["degraded_because"])
        judged.taken.append(taken)
        judged.cost.append(cost)
        assert np.isclose(record["candidates"][taken]["propensity"], record["propensity"])

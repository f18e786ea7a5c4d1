"""The loop, closed: what is served is answered, what is answered is learned from, and what is learned is served.

For each seed a bank of its own is simulated, whose truth is known. From the end of its history on it lives day by day:

    a day    the service is told what has happened since yesterday (POST /v1/events: receipts, reactions, opt-outs,
             visits, take-ups); a tenth of the customers is decided for (POST /v1/decide, at ten in the morning, so
             nothing is put off); each message leaves on its first channel; reactions are drawn from the truth
    a round  days; then tables and ledger are imported, both models are trained, the gate lets a model pass that is
             surely better than the prior on the validation rows (hits among three products, log-loss of channels),
             else the prior; the alias moves, and the running server takes it up by itself

The customers are in arms: agent 60 %, random 15 %, business as usual 15 %, holdout 10 %. At every decision, whoever
took it, the recorded candidates are judged by the truth at that moment: what the agent would do in expectation
(exploring as it does), what business as usual, the random arm and the oracle would do. So policies are compared at the
very same decisions for the same customers in the same state, given the contacts that the mixture of arms has made so
far; the long run of a bank that only ever used one of them is not what is measured. True values are those of
`true_value`. The claim is about the mean of all rounds after the first: what served then was learned from what had
been served. Send times, fallback channels and capacities are left out; caps, quiet hours and consent are not.

From the log alone, with its propensities, `training.policies.off_policy` estimates two rewards of the agent and of
business as usual (IPS, SNIPS): answers per decision (clicks and replies), and money per decision (take-ups through
messages less channel costs). Their true means at the same decisions are known, so the 95 % intervals can be counted
that hold them. Those for answers are held to it. Money is only reported: a handful of take-ups per round, of 40 to
6,000 each, is no sample to draw an interval from, which is then too short. Where the log does not bear an estimate
there is none.

What runs is the served app with its ledger over HTTP; its clock is told the simulated time. Once a round the server is
started anew on the tables imported last, after it has taken up the new models while running.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closed_loop import Size
from judged import ANSWERS, MONEY
from true_value import interval

pytestmark = pytest.mark.proof

TINY = Size(customers=150, history=2, rounds=2, days=10, seeds=2)
FULL = Size(customers=600, history=3, rounds=6, days=30, seeds=5)
AT_ONCE = 2
"""Seeds that run side by side."""
LEAST_COVERED = 0.88
"""Of intervals that say 95 %: of 120 at most, and those of one round and seed depend on each other."""
NO_SEND_TIMES = "no usable champion of send-time: all hours are taken alike"
SHOWN = ("agent", "agent, without exploring", "business_as_usual", "random", "oracle")


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("size", [pytest.param(TINY, id="tiny"), pytest.param(FULL, id="full")])
def test_the_learned_policy_rises_above_business_as_usual(
    size: Size, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = run_all(size, tmp_path)
    with capsys.disabled():
        print(report(seeds))
    (tmp_path / "measured.json").write_text(json.dumps(seeds))
    for seed in seeds:
        assert seed["over_caps"] == 0
        assert set(seed["statuses"]) == {"accepted"}, "every event was new, and none was refused"
        for done in seed["rounds"]:
            assert done["degraded_because"] == [NO_SEND_TIMES]
            assert max(done["true"].values()) <= done["true"]["oracle"] + 1e-9
    if size is TINY:
        return
    lead = interval([np.mean([lead_of(done) for done in seed["rounds"][1:]]) for seed in seeds])
    assert lead[1] > 0, f"the learned policy must surely be worth more than business as usual, however {lead}"
    held, estimates = coverage(seeds, ANSWERS)
    assert held >= LEAST_COVERED * estimates, f"{held} of {estimates} intervals hold the truth"


def run_all(size: Size, folder: Path) -> list[dict[str, Any]]:
    """Each seed in a process of its own, `AT_ONCE` side by side; what was measured, by seed."""
    root = Path(__file__).resolve().parents[2]
    variables = {**os.environ, "PYTHONPATH": str(root), "OMP_WAIT_POLICY": "PASSIVE"}
    numbers = [str(number) for number in (size.customers, size.history, size.rounds, size.days, size.seeds)]
    script = str(Path(__file__).with_name("closed_loop.py"))
    found: list[dict[str, Any]] = []
    for start in range(1, size.seeds + 1, AT_ONCE):
        running = []
        for seed in range(start, min(start + AT_ONCE, size.seeds + 1)):
            place = folder / f"seed{seed}"
            place.mkdir()
            command = [sys.executable, script, str(seed), *numbers, str(place)]
            with (place / "loop.log").open("wb") as log:
                running.append(
                    (place, subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=log, text=True))
                )
        try:
            for place, process in running:
                told, _ = process.communicate()
                assert process.returncode == 0, (place / "loop.log").read_text()[-3000:]
                found.append(json.loads(told.splitlines()[-1]))
        finally:
            for _, process in running:
                process.kill()
    return found


def lead_of(done: Mapping[str, Any]) -> float:
    """By how much the agent's decisions of a round are truly worth more than business as usual, per 1,000."""
    return float(done["true"]["agent"] - done["true"]["business_as_usual"])


def coverage(seeds: Sequence[Mapping[str, Any]], reward: str, round_number: int | None = None) -> tuple[int, int]:
    """How many off-policy intervals for a reward hold the truth, of how many."""
    held = [
        low <= one["truth"] <= high
        for seed in seeds
        for number, done in enumerate(seed["rounds"])
        if round_number in (None, number)
        for one in done["off_policy"]
        if one["reward"] == reward
        for _, low, high in (one[name] for name in ("ips", "snips") if name in one)
    ]
    return sum(held), len(held)


def report(seeds: Sequence[Mapping[str, Any]]) -> str:
    """Per round: true values, lead, regret, contacts, gate and coverage, over all seeds."""
    lines = ["", "true value per 1,000 decisions, mean over seeds; lead and regret with 95 % intervals over seeds"]
    for number in range(len(seeds[0]["rounds"])):
        rounds = [seed["rounds"][number] for seed in seeds]
        true = {name: np.mean([done["true"][name] for done in rounds]) for name in SHOWN}
        agent = np.array([done["true"]["agent"] for done in rounds])
        lead = interval([lead_of(done) for done in rounds])
        regret = interval([done["true"]["oracle"] for done in rounds] - agent)
        passed = [sum(seed["learned"][number]["passed"].values()) for seed in seeds]
        covered = ", ".join("{} of {}".format(*coverage(seeds, reward, number)) for reward in (ANSWERS, MONEY))
        lines.append(
            f"round {number + 1}: "
            + ", ".join(f"{name} {value:,.0f}" for name, value in true.items())
            + f"; lead over business as usual {lead[0]:,.0f} [{lead[1]:,.0f}, {lead[2]:,.0f}]"
            + f"; regret {regret[0]:,.0f} [{regret[1]:,.0f}, {regret[2]:,.0f}]"
            + f"; contacts {np.mean([done['contacts'] for done in rounds]):.0%}"
            + f"; models past the gate {sum(passed)} of {2 * len(seeds)}; intervals for answers, money {covered}"
        )
    covered = ", ".join("{} of {}".format(*coverage(seeds, reward)) for reward in (ANSWERS, MONEY))
    over = sum(seed["over_caps"] for seed in seeds)
    spent = {name: sum(seed["seconds"][name] for seed in seeds) for name in seeds[0]["seconds"]}
    events = sum(sum(seed["statuses"].values()) for seed in seeds)
    lines.append(f"{events:,} events; {over} messages over a cap; intervals for answers, money {covered}; {spent}")
    return "\n".join(lines)

"""On public data: the Open Bandit sample (Saito, Aihara, Matsutani and Narita 2021), two policies on a fashion site.

It lies in the wheel of `obp` 0.4.1 (Apache-2.0): 10,000 impressions for each policy, random and bts, and each campaign.
The wheel is downloaded and its CSV files are read; its code is not run, for it does not work with pandas 2. A row is
one position (of three) of one impression: item_id, position, click, and propensity_score, the probability with which
the policy put that item at that position. The customers are not named, so every row is taken for one.

random took each of the campaign's K items alike: propensity_score is 1/K in every row, and so it is for the items that
were not taken. bts is Bernoulli Thompson sampling, without context: the data's authors computed its propensity_score by
Monte Carlo, for the state of the beta distributions at that time, per item and position, and publish that of the taken
item alone. So what bts would have done with the others is not known in its log, and the weight of a single row that bts
held for next to impossible can outweigh all others: that is why bts → random has to be withheld.

As a policy in question bts is, as in the authors' own evaluation, the one with the beta distributions that it began
with (`obp/policy/conf/prior_bts.yaml`): its probabilities of (item, position) are counted over 100,000 draws with their
seed. So the value of IPS can be held against the one that they publish: 1.198126 times that of random on campaign "all"
(README of obp 0.4.1).
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from features.schema import Float64
from training.bootstrap import Interval
from training.cli import nextbest
from training.policies.decision_log import DecisionLog
from training.policies.off_policy import evaluate

pytestmark = [pytest.mark.proof, pytest.mark.timeout(1800)]

WHEEL = "obp==0.4.1"
DRAWS, SEED = 100_000, 12345
PUBLISHED = 1.198126
CAMPAIGNS = ("women", "men", "all")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel from the package registry; skipped with the reason where there is none."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "download", WHEEL, "--no-deps", "--quiet", "--dest", str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    found = sorted(folder.glob("*.whl"))
    if done.returncode or not found:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        pytest.skip(
            f"{WHEEL}, whose wheel holds the Open Bandit sample, cannot be had from the package registry: {last}"
        )
    return zipfile.ZipFile(found[0])


def impressions(wheel: zipfile.ZipFile, policy: str, campaign: str) -> pd.DataFrame:
    with wheel.open(f"obp/dataset/obd/{policy}/{campaign}/{campaign}.csv") as file:
        rows = pd.read_csv(file, index_col=0)
    return rows.assign(position=rows["position"].rank(method="dense").astype(int) - 1)


def thompson(wheel: zipfile.ZipFile, campaign: str) -> Float64:
    """float64 [K, 3]: how often bts, as it began, puts each item at each position."""
    with wheel.open("obp/policy/conf/prior_bts.yaml") as file:
        prior = yaml.safe_load(file)[campaign]
    draw = np.random.RandomState(SEED)  # the generator of the authors, draw by draw: their counts are met exactly
    alpha, beta = np.array(prior["alpha"]), np.array(prior["beta"])
    shown = np.zeros((len(alpha), 3))
    for _ in range(DRAWS):
        best = draw.beta(alpha, beta).argsort()[::-1][:3]
        shown[best, range(3)] += 1
    return shown / DRAWS


def log_of(rows: pd.DataFrame, items: int, target: Float64, whole: bool) -> DecisionLog:
    """The rows as a log. target: [K, 3]. whole: random's log, in which every candidate's probability is known."""
    n = len(rows)
    taken = rows["item_id"].to_numpy(np.int64)
    logged = np.full((n, items), 1.0 / items if whole else np.nan)
    logged[np.arange(n), taken] = rows["propensity_score"]
    return DecisionLog(
        customer_id=np.arange(n).astype(str).astype(object),
        reward=rows["click"].to_numpy(np.float64),
        candidates=np.full(n, items),
        taken=taken,
        logged=logged.ravel(),
        target=target[:, rows["position"]].T.ravel(),
    )


def uniform(items: int) -> Float64:
    return np.full((items, 3), 1.0 / items)


def items_of(wheel: zipfile.ZipFile, campaign: str) -> int:
    with wheel.open(f"obp/dataset/obd/random/{campaign}/item_context.csv") as file:
        return len(pd.read_csv(file))


def overlaps(one: Interval, other: Interval) -> bool:
    return one.low <= other.high and other.low <= one.high


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Prints past pytest: what is measured."""

    def show(text: str) -> None:
        with capsys.disabled():
            print(text)

    return show


def test_bts_tells_nothing_about_random_on_women(
    wheel: zipfile.ZipFile, tmp_path: Path, shown: Callable[[str], None]
) -> None:
    items = items_of(wheel, "women")
    rows = impressions(wheel, "bts", "women")
    found = evaluate(log_of(rows, items, uniform(items), whole=False), ["ips", "snips"], seed=0)
    shown(f"\nbts → random, women: {found.overlap}")
    assert len(rows) == 10_000
    assert found.overlap.effective_size == pytest.approx(2.08, abs=0.01)
    assert found.estimates == {}
    assert "the effective sample size is 2.1 of 10000" in found.overlap.reasons[0]
    assert any("one decision carries" in reason for reason in found.overlap.reasons)
    table = pd.DataFrame(
        {"reward": rows["click"], "propensity": rows["propensity_score"], "target_propensity": 1.0 / items}
    )
    table.to_csv(tmp_path / "women.csv", index=False)
    told = CliRunner().invoke(nextbest, ["evaluate", "table", str(tmp_path / "women.csv"), "--json"])
    assert told.exit_code == 3, "the command refuses as the estimators do"
    assert json.loads(told.stdout)["estimates"] == {}
    assert json.loads(told.stdout)["overlap"]["effective_size"] == pytest.approx(2.08, abs=0.01)


def test_random_tells_what_the_authors_publish_of_bts(wheel: zipfile.ZipFile, shown: Callable[[str], None]) -> None:
    rows = impressions(wheel, "random", "all")
    log = log_of(rows, items_of(wheel, "all"), thompson(wheel, "all"), whole=True)
    found = evaluate(log, ["ips", "snips"], seed=0)
    relative = found.estimates["ips"].interval.mean / found.logged_value.mean
    shown(f"random → bts, all: {relative:.7f} times random by ips")
    assert relative == pytest.approx(PUBLISHED, abs=1e-6)


@pytest.mark.parametrize("campaign", CAMPAIGNS)
def test_random_tells_of_bts_what_bts_itself_earned_within_the_intervals(
    campaign: str, wheel: zipfile.ZipFile, shown: Callable[[str], None]
) -> None:
    log = log_of(impressions(wheel, "random", campaign), items_of(wheel, campaign), thompson(wheel, campaign), True)
    found = evaluate(log, ["ips", "snips"], seed=0)
    own = impressions(wheel, "bts", campaign)
    earned = evaluate(log_of(own, items_of(wheel, campaign), uniform(items_of(wheel, campaign)), False), [], seed=0)
    told = ", ".join(f"{name} {vars(one.interval)}" for name, one in found.estimates.items())
    shown(f"random → bts, {campaign}: {told}; bts itself {vars(earned.logged_value)}; {found.overlap}")
    assert found.overlap.reasons == ()
    assert found.overlap.unsupported == 0.0
    assert overlaps(found.estimates["snips"].interval, earned.logged_value)


@pytest.mark.parametrize("policy", ["random", "bts"])
def test_a_policy_tells_of_itself_what_it_earned(policy: str, wheel: zipfile.ZipFile) -> None:
    rows = impressions(wheel, policy, "women")
    same = pd.DataFrame({"reward": rows["click"], "p": rows["propensity_score"]})
    log = DecisionLog(
        customer_id=np.arange(len(same)).astype(str).astype(object),
        reward=same["reward"].to_numpy(np.float64),
        candidates=np.full(len(same), 2),
        taken=np.zeros(len(same), dtype=np.int64),
        logged=np.stack([same["p"], np.full(len(same), np.nan)], axis=1).ravel(),
        target=np.stack([same["p"], 1.0 - same["p"]], axis=1).ravel(),
    )
    found = evaluate(log, ["ips", "snips"], seed=0)
    assert found.overlap.effective_size == pytest.approx(10_000)
    for one in found.estimates.values():
        assert one.interval.mean == pytest.approx(float(rows["click"].mean()), abs=1e-12)

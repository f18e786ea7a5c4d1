"""A training run of content-choice, top to bottom: a randomised log, rows, policies judged across, uplift, register.

Customers are the units: every decision is judged by models of other customers, so all of them are `test`. A log by lot
needs no later period to be honest, and the rare take-ups need every row.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from features.assemble import assemble, row_schema
from features.columns import AS_OF, CUSTOMER_ID
from features.history import history
from features.progress import SILENT, Progress
from features.schema import Rows
from features.times import micros
from serving.content_model import CONTENT_MODEL
from serving.sendable import sendable
from training import cost, metrics
from training.content import uplift_plots
from training.content.content_log import ContentLog, content_log
from training.content.content_uplift import ArmUplift, uplifts
from training.content.content_value import CONSTANT, PERSONAL, SILENT_POLICY
from training.content.policy_learning import Learned, learn
from training.kept import keep_models, learned_from
from training.labels import DAY, as_times, cut, last_fact
from training.orders import keep_order
from training.plan import Order
from training.promotion.gate import GATE_TAG, REASONS_TAG
from training.promotion.verdict import PASSED
from training.spine import JUST_BEFORE
from training.track import MODEL_FOLDER, Run, Tracking
from training.train import Trained

if TYPE_CHECKING:
    from features.home import Build

MOST = 300_000
"""Decisions that are learned from, spread by hash."""


def train_content(
    order: Order, build: Build, tracking: Tracking, tags: Mapping[str, str], progress: Progress = SILENT
) -> Trained:
    """Learn, judge and register the content model. Raises ModelNotPossible before anything is written.

    What is registered is the best constant order unless another policy is surely better, so it serves at once.
    """
    started = time.perf_counter()
    cost.forget_peak()
    with progress.step("choose the decisions"):
        end = last_fact(build.bank) if order.until is None else min(last_fact(build.bank), micros(order.until))
        window = None if order.horizon_days is None else int(order.horizon_days * DAY)
        log = content_log(cut(build.bank, end), end, window, MOST, order.entities)
    rows = rows_of(build, log, end, progress)
    may = np.concatenate([sendable(rows, build.catalog), np.ones((len(log), 1), np.bool_)], axis=1)
    learned = learn(log, rows, may, build.catalog, order.seed, progress)
    judged = uplifts(log, rows, may, learned.rewards, learned.weight, order.seed, progress)
    found = {**policy_metrics(learned), **{name: value for one in judged for name, value in one.flat().items()}}

    experiment = tracking.experiment(CONTENT_MODEL)
    tracking.mark_killed(experiment)
    with tracking.run(experiment, CONTENT_MODEL, tags) as run:
        keep_order(run, order)
        describe(run, log, learned, end, order.seed)
        learned_from(run, build)
        run.tags({"nextbest.row_schema": rows.schema.fingerprint, "nextbest.reason": learned.reason})
        sizes = keep_models(run, {MODEL_FOLDER: learned.model})
        run.metrics(found)
        pictures(run, log, learned, judged)
        run.text(json.dumps(table_of(log, learned, may), indent=1, ensure_ascii=False), "uplift/arms.json")
        spent = cost.of_training(started, sizes[MODEL_FOLDER])
        run.metrics(cost.named(spent))
        run.tags({GATE_TAG: PASSED, REASONS_TAG: ""})
        version = tracking.register(CONTENT_MODEL, run, prior=False, champion=True)
    return Trained(
        CONTENT_MODEL,
        learned.model.family,
        learned.reason,
        version,
        run.id,
        {"test": len(log), "all": len(log)},
        found,
        foretold(log, learned),
        notes(log, judged),
        spent["train_seconds"],
        cost=spent,
        promoted=True,
        verdict=f"passed: version {version} is the champion now (a personal policy only where it is surely better)",
    )


def rows_of(build: Build, log: ContentLog, end: int, progress: Progress) -> Rows:
    """Rows of the customers just before each decision."""
    as_of = log.at - JUST_BEFORE
    states = history(build, pd.DataFrame({CUSTOMER_ID: log.customer_id, AS_OF: as_times(as_of)}), progress)
    with progress.step(f"assemble {len(log)} rows"):
        return assemble(states, as_of / 1e6, row_schema(build.bank, as_times(np.array([end]))[0].to_pydatetime()))


def policy_metrics(learned: Learned) -> dict[str, float]:
    """`test/dr_value` of the personal policy and others', `test/dr_value_minus_best_constant` with its interval, ..."""
    found: dict[str, float] = {}
    keys = {"": PERSONAL, "_best_constant": learned.rival, "_constant": CONSTANT, "_no_contact": SILENT_POLICY}
    for suffix, name in keys.items():
        found |= learned.values[name].flat(f"test/dr_value{suffix}")
    found |= learned.gain.flat("test/dr_value_minus_best_constant")
    deviates = float((learned.chosen[PERSONAL] != learned.chosen[CONSTANT]).mean())
    found |= {"test/effective_size": learned.size, "test/mean_weight": learned.mass, "test/deviates": deviates}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def foretold(log: ContentLog, learned: Learned) -> dict[str, dict[str, float]]:
    """How well the trees and the rates foretell take-ups of other customers."""
    seen = {way: chance[np.arange(len(log)), log.arm] for way, chance in learned.chances.items()}
    names = {PERSONAL: "lightgbm", CONSTANT: "constant"}
    kept = {way: np.clip(chance, 1e-9, 1.0 - 1e-9) for way, chance in seen.items()}
    return {
        names[way]: {
            metrics.LOG_LOSS: float(-np.log(np.where(log.took, chance, 1.0 - chance)).mean()),
            metrics.AUC: metrics.auc(chance, log.took),
        }
        for way, chance in kept.items()
    }


def describe(run: Run, log: ContentLog, learned: Learned, end: int, seed: int) -> None:
    """Parameters: what the run learned from, and how."""
    run.params(
        {
            "model": CONTENT_MODEL,
            "family": learned.model.family,
            "chosen_family": learned.model.family,
            "source": "decisions by lot",
            "horizon_days": log.horizon / DAY,
            "until": as_times(np.array([end]))[0].isoformat(),
            "seed": seed,
            "split": "customer, every decision judged by models of others",
            "rows": len(log),
            "rows_no_contact": int(log.silent.sum()),
            "rows_with_take_up": int(log.took.sum()),
            "arms_tried": int(learned.model.arms.tried.sum()),
            "best_constant": learned.rival,
            "rounds": learned.rounds,
            "margin": learned.model.margin,
            "unit": log.unit,
            "take_ups_naming_their_decision": round(log.named, 4),
        }
    )


def pictures(run: Run, log: ContentLog, learned: Learned, judged: tuple[ArmUplift, ...]) -> None:
    title = f"{CONTENT_MODEL}, decisions judged by models of other customers"
    if judged:
        run.figure(uplift_plots.qini_curves(judged, log.unit, title), "plots/qini.png")
    run.figure(uplift_plots.policies(learned.values, log.unit, title), "plots/policies.png")


def table_of(log: ContentLog, learned: Learned, available: np.ndarray) -> list[dict[str, object]]:
    """Every arm, best first: how often it was logged, its rate, worth and cost, and how often each policy takes it."""
    arms = learned.model.arms
    count = len(arms)
    logged = np.bincount(log.arm, minlength=count)
    taken = {name: np.bincount(arm, minlength=count) / len(log) for name, arm in learned.chosen.items()}
    order = np.argsort(-arms.value, kind="stable")
    return [
        {
            "content_id": None if arm == count - 1 else arms.contents[arm],
            "decisions": int(logged[arm]),
            "could_be_sent": float(available[:, arm].mean()),
            "rate": float(arms.rate[arm]),
            "worth": float(arms.worth[arm]),
            "cost": float(arms.cost[arm]),
            "value": float(arms.value[arm]),
            **{name: float(share[arm]) for name, share in taken.items() if name != SILENT_POLICY},
        }
        for arm in order.tolist()
    ]


def notes(log: ContentLog, judged: tuple[ArmUplift, ...]) -> tuple[str, ...]:
    """What a person should know: what was left out, how take-ups were credited, which arms' uplift is surely ranked."""
    told = [f"{count} decisions left out: {why}" for why, count in log.left_out.items() if count]
    told.append(f"{log.named:.0%} of the take-ups name their decision; the others belong to their customer's latest")
    sure = [one.arm for one in judged if one.found[one.main]["qini"].above_zero]
    if judged:
        told.append(
            f"uplift is surely ranked better than at random for {', '.join(sure) or 'none'} of {len(judged)} arms"
        )
    return tuple(told)

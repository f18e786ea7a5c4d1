"""A training run of send-time, top to bottom: attempts, split by time, strengths, test, fit again on all, register."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from features.errors import InputError
from features.habits import Habits
from features.progress import SILENT, Progress
from features.times import micros
from serving.registry import TIMING_MODEL
from serving.timing import STAGES, TimingModel
from training import cost, metrics
from training.attempts import Attempts, attempts
from training.bootstrap import intervals
from training.fit_timing import DECLARED, Strengths, chances, choose, fit, log_losses, outcome
from training.kept import keep_models, learned_from
from training.labels import DAY, as_times, cut, last_fact
from training.orders import keep_order
from training.plan import RESPONSE_DAYS, Order
from training.promotion.gate import GATE_TAG, REASONS_TAG
from training.promotion.verdict import PASSED, REFUSED
from training.split import by_time
from training.track import MODEL_FOLDER, Tracking
from training.train import Trained

if TYPE_CHECKING:
    from features.catalog import Catalog
    from features.home import Build

FAMILY = "smoothed-rates"
LEAST_ATTEMPTS = 200
"""Fewer are not split: nothing could be told from the parts."""


def train_timing(
    build: Build,
    tracking: Tracking,
    tags: Mapping[str, str],
    until: datetime | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Trained:
    """Fit, judge and register the timing model. Raises ModelNotPossible before anything is written.

    It serves unless it foretells what is noticed surely worse than the usual rate of each channel does.
    """
    started = time.perf_counter()
    cost.forget_peak()
    with progress.step("choose the messages"):
        end = last_fact(build.bank) if until is None else min(last_fact(build.bank), micros(until))
        learned = attempts(cut(build.bank, end), end, int(RESPONSE_DAYS * DAY))
    chosen = choose_strengths(learned, build.catalog, seed, progress)
    model = fit(learned, build.catalog.channel_ids, build.catalog.time_zone, chosen.strengths)
    experiment = tracking.experiment(TIMING_MODEL)
    tracking.mark_killed(experiment)
    with tracking.run(experiment, TIMING_MODEL, tags) as run:
        keep_order(run, Order(TIMING_MODEL, until=until, seed=seed))
        run.params(
            {
                **asdict(chosen.strengths),
                "model": TIMING_MODEL,
                "family": FAMILY,
                "until": as_times(np.array([end]))[0].isoformat(),
                "horizon_days": RESPONSE_DAYS,
                "seed": seed,
            }
        )
        learned_from(run, build)
        sizes = keep_models(run, {MODEL_FOLDER: model})
        spent = cost.of_training(started, sizes[MODEL_FOLDER])
        run.metrics({**chosen.found, **cost.named(spent)})
        promoted, verdict = no_worse(chosen.found)
        run.tags({GATE_TAG: PASSED if promoted else REFUSED, REASONS_TAG: "" if promoted else verdict})
        version = tracking.register(TIMING_MODEL, run, prior=False, champion=promoted)
    return Trained(
        TIMING_MODEL,
        FAMILY,
        "the only family",
        version,
        run.id,
        {**chosen.counts, "all": len(learned)},
        chosen.found,
        chosen.families,
        chosen.notes,
        spent["train_seconds"],
        cost=spent,
        promoted=promoted,
        verdict=verdict,
    )


@dataclass(frozen=True)
class Chosen:
    """How far to smooth, and how well that foretells: metrics of the run, of each way, rows per part."""

    strengths: Strengths
    found: Mapping[str, float] = field(default_factory=dict)
    families: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def choose_strengths(learned: Attempts, catalog: Catalog, seed: int, progress: Progress) -> Chosen:
    """Strengths chosen on valid and judged on test; the declared ones where there is too little for parts."""
    parts = split(learned)
    if parts is None:
        told = f"{len(learned)} messages are too few to choose strengths and to test by: the declared ones are used"
        return Chosen(DECLARED, notes=(told,))
    train, valid, test = parts
    with progress.step("choose how far to smooth"):
        strengths = choose(train, valid, catalog.channel_ids, catalog.time_zone)
    found, families = judge(fit(train, catalog.channel_ids, catalog.time_zone, strengths), train, test, seed)
    return Chosen(strengths, found, families, {"train": len(train), "valid": len(valid), "test": len(test)})


def no_worse(found: Mapping[str, float]) -> tuple[bool, str]:
    """Whether the model may serve, and why; found: its metrics on test, empty where nothing could be tested."""
    worse = found.get("test/noticed_log_loss_minus_by_channel_low", 0.0)
    if worse > 0:
        told = f"what is noticed is foretold worse than by the rate of each channel, by {worse:.4f} nats at least"
        return False, f"refused, {told}; what serves stays"
    return True, "passed: it foretells what is noticed no worse than the rate of each channel, as far as can be told"


def split(learned: Attempts) -> tuple[Attempts, Attempts, Attempts] | None:
    """Train, valid and test, by time with an embargo; None where there is too little for three parts."""
    if len(learned) < LEAST_ATTEMPTS:
        return None
    try:
        found = by_time(learned.sent, learned.closes, np.full(len(learned), "message", dtype=object))
    except InputError:
        return None
    train, valid, test = (learned.take(index) for index in (found.train, found.valid, found.test))
    return (train, valid, test) if train.noticed.any() and valid.noticed.any() else None


def judge(
    model: TimingModel, train: Attempts, test: Attempts, seed: int
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Log-losses on test: of each stage for the run, of `noticed` by way of foretelling for people.

    Against a constant (the rate of train), the rate of the channel, and the channel's hours without the customer.
    """
    foretold = chances(model, test)
    nobody = Habits.none(len(test), len(model.channels))
    found: dict[str, float] = {}
    families: dict[str, dict[str, float]] = {}
    for place, name in enumerate(STAGES):
        asked, success = outcome(test, name)
        learned, taken = outcome(train, name)
        if not asked.any() or not learned.any():
            continue
        rate = (taken[learned].sum() + 1.0) / (learned.sum() + 2.0)
        ways = {
            FAMILY: foretold[:, place],
            "by hour": model.chances(test.channel, test.slot, test.part, nobody)[:, place],
            "by channel": getattr(model, name).channels[test.channel],
            "constant": np.full(len(test), rate),
        }
        losses = {way: log_losses(chance, success)[asked] for way, chance in ways.items()}
        gains = {way: losses[FAMILY] - loss for way, loss in losses.items() if way != FAMILY}
        found |= {f"test/{name}_log_loss{_slug(way)}": float(loss.mean()) for way, loss in losses.items()}
        for way, gap in intervals(gains, test.customer_id[asked], seed).items():
            found |= gap.flat(f"test/{name}_log_loss_minus{_slug(way)}")
        if name == "noticed":
            families = {
                way: {
                    metrics.LOG_LOSS: float(losses[way].mean()),
                    metrics.AUC: metrics.auc(chance[asked], success[asked]),
                }
                for way, chance in ways.items()
            }
    return found, families


def _slug(way: str) -> str:
    return "" if way == FAMILY else f"_{way.replace(' ', '_')}"

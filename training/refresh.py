"""The champion brought up to date between two trainings: its trees stay, its levels move to what is taken of late.

What it says of each outcome that closed since it was trained is compared with what happened (`refresh_bias`): each
candidate's log-odds are shifted, by little where little is known. The new version is judged before it is made: later
outcomes are scored by a bias of those that had closed before them, beside what the champion says, and the gate decides
on that. It costs the rows of the new outcomes and no fit.

Only models for which "nothing" is an answer have a level that can move; the others are trained again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from features.assemble import row_schema
from features.errors import ArtefactError, InputError, NoSuchModel
from features.progress import SILENT, Progress
from features.schema import Bool, Float64
from features.times import micros
from serving.choice import ChoiceModel
from serving.registry import CHAMPION as CHAMPION_ALIAS
from serving.registry import Loaded, misfit, resolve
from training import cost
from training.dataset import Dataset, dataset
from training.evaluate import PRIOR, compare
from training.finished import FinishedRun
from training.kept import keep_models, keep_said, learned_from
from training.monitoring import reference
from training.plan import Order, Plan, make_plan
from training.predictions import CHAMPION, MODEL
from training.promotion.gate_relative import other_question
from training.promotion.leak import FILE as LEAK_FILE
from training.promotion.settle import settle
from training.refresh_bias import FEWEST, Bias, Walked, fit_bias, walk, weights
from training.track import MODEL_FOLDER, PRIOR_FOLDER, Run, Tracking

if TYPE_CHECKING:
    from features.home import Build
    from training.row_store import RowStore
    from training.spine import Spine

MOST_ROWS = 20_000
"""The newest outcomes, at most: older ones count little, and seconds are to stay seconds."""
BIAS_FILE = "refresh/bias.json"
REFRESHED_FROM = "refreshed_from"
"""Parameter of a run that is no training: the run whose trees it has."""


@dataclass(frozen=True)
class Moved:
    """How far the log-odds of one candidate moved, with its 95 % interval; and from how many new outcomes."""

    candidate: str
    shift: float
    low: float
    high: float
    outcomes: int
    taken: int
    expected: float
    """Take-ups that the champion expected."""


@dataclass(frozen=True)
class Refreshed:
    """How it went. outcomes, taken: new ones that were learned from. judged: later rows that it was judged on.

    metrics: on those, each outcome scored before it was used, with differences to the champion.
    """

    model: str
    version: str
    run_id: str
    champion_version: str
    outcomes: int
    taken: int
    judged: int
    moved: tuple[Moved, ...]
    metrics: Mapping[str, float]
    cost: Mapping[str, float]
    promoted: bool
    verdict: str
    seconds: float


@dataclass(frozen=True)
class Standing:
    """The champion and the run that it came from. until: µs, up to when outcomes were known to it."""

    loaded: Loaded
    run: FinishedRun
    until: int

    @classmethod
    def of(cls, model: str, tracking: Tracking) -> Standing:
        """InputError where there is no champion, or none that can be refreshed."""
        try:
            loaded = resolve(model, CHAMPION_ALIAS, tracking.uri)
        except NoSuchModel as error:
            raise InputError(
                f"a refresh moves the levels of the champion, however {model} has none; train with `nextbest train "
                f"{model}`"
            ) from error
        run = FinishedRun.open(tracking, loaded.run_id)
        if not loaded.model.question.outside:
            raise InputError(
                f"a refresh moves how often something is taken at all, however of {model} exactly one candidate always "
                f"happens in these tables; train again with `nextbest train {model}`"
            )
        if not loaded.model.calibration.gives_probabilities:
            raise InputError(
                f"a refresh moves probabilities, however {loaded.model.calibration.note(model)}; train again with "
                f"`nextbest train {model}`"
            )
        return cls(loaded, run, micros(datetime.fromisoformat(run.params["until"])))

    def order(self, until: datetime | None, seed: int) -> Order:
        """What it was trained for, until later."""
        params = self.run.params
        horizon = float(params["horizon_days"])
        return Order(self.loaded.name, horizon_days=horizon, until=until, seed=seed, attribution=params["attribution"])


def refresh(
    model: str,
    until: datetime | None,
    build: Build,
    tracking: Tracking,
    tags: Mapping[str, str],
    seed: int = 0,
    progress: Progress = SILENT,
    store: RowStore | None = None,
) -> Refreshed:
    """Refresh the champion of `model` with what closed by `until` (None: all), and let the gate decide.

    Raises InputError, with nothing written, where there is no champion, too little is new, or it cannot read the rows.
    """
    started = time.perf_counter()
    cost.forget_peak()
    standing = Standing.of(model, tracking)
    champion = standing.loaded.model
    with progress.step("choose the outcomes that closed since"):
        plan, known = make_plan(standing.order(until, seed), build.bank)
        require_fit(champion, plan, build)
        spine = newest(plan.spine(known, plan.end), standing.until)
    data = dataset(build, champion.question, spine, champion.row_schema, progress, store)
    teaches = data.judged_for_probability
    said = champion.probabilities(data.rows, data.available)
    walked = walk(said, data.taken, teaches, data.spine.as_of, data.spine.closes)
    require_enough(data, teaches, walked, standing)
    bias = fit_bias(said[teaches], data.taken[teaches], weights(data.spine.closes[teaches], plan.end))
    fresh = shifted_model(champion, bias, standing.loaded.version)
    moved = moves(data.take(teaches), said[teaches], bias)
    judged = data.take(walked.judged)

    experiment = tracking.experiment(model)
    with tracking.run(experiment, f"{model} refresh", tags) as run:
        prior = ChoiceModel.load(standing.run.artefact(PRIOR_FOLDER))
        describe(run, plan, build, standing, teaches, moved, judged)
        answers = {MODEL: walked.said[walked.judged], CHAMPION: said[walked.judged]}
        answers[PRIOR] = prior.probabilities(judged.rows, judged.available)
        found = compare(MODEL, answers, judged, seed, (PRIOR, CHAMPION)).flat(MODEL, "test")
        run.metrics(found)
        keep_said(run, judged, answers, None, "refresh", seed)
        keep_leaks(run, standing.run)
        reference.keep(run, fresh, data, judged)
        sizes = keep_models(run, {MODEL_FOLDER: fresh, PRIOR_FOLDER: prior})
        few = judged.take(np.arange(min(len(judged), cost.CALLS), dtype=np.int64))
        both = {"": fresh, "champion_": champion}
        spent = cost.latency_metrics(cost.latencies(both, dict.fromkeys(both, few.rows), few.available))
        spent |= cost.of_training(started, sizes[MODEL_FOLDER])
        run.metrics(cost.named(spent))
        version = tracking.register(model, run)
    with progress.step("ask the gate"):
        settled = settle(tracking, model, run.id, seed)
    return Refreshed(
        model,
        version,
        run.id,
        standing.loaded.version,
        int(teaches.sum()),
        int(data.taken[teaches].any(axis=1).sum()),
        len(judged),
        moved,
        found,
        spent,
        settled.promoted,
        settled.verdict,
        time.perf_counter() - started,
    )


def newest(spine: Spine, until: int) -> Spine:
    """Rows whose outcome was not known at `until` (µs), the newest MOST_ROWS of them.

    Of snapshots only those that began after it: earlier ones share most of their window with what was known.
    """
    fresh = np.where(spine.sort == "snapshot", spine.as_of >= until, spine.closes > until)
    return spine.take(np.flatnonzero(fresh)[-MOST_ROWS:])


def require_fit(champion: ChoiceModel, plan: Plan, build: Build) -> None:
    """InputError unless the champion answers the question of these tables and reads their rows."""
    reason = misfit(champion.row_schema, row_schema(build.bank)) or other_question(champion.question, plan.question)
    if reason:
        raise InputError(
            f"a refresh keeps the champion's trees, however {reason}; train again with `nextbest train "
            f"{plan.order.model}`"
        )


def require_enough(data: Dataset, teaches: Bool, walked: Walked, standing: Standing) -> None:
    """InputError unless there are FEWEST new take-ups to learn from, and as many later ones to be judged on."""
    wins = data.taken.any(axis=1)
    new, later = int((wins & teaches).sum()), int((wins & walked.judged & teaches).sum())
    if min(new, later) < FEWEST:
        raise InputError(
            f"a refresh learns from at least {FEWEST} take-ups whose windows closed since the champion was trained, "
            f"and is judged on as many in rows that began when those were known, however of {int(teaches.sum())} new "
            f"outcomes {new} are take-ups, {later} of them later; wait until more have closed, or train again with "
            f"`nextbest train {standing.loaded.name}`"
        )


def shifted_model(champion: ChoiceModel, bias: Bias, version: str) -> ChoiceModel:
    """The champion with moved log-odds; what was moved before moves on."""
    before = champion.calibration
    earlier = np.asarray(before.shifts) if before.shifts else np.zeros(len(bias.shifts))
    shifts = tuple(float(value) for value in earlier + bias.shifts)
    evidence = f"{before.evidence}; levels moved since version {version}" if before.evidence else "levels moved"
    return replace(champion, calibration=replace(before, shifts=shifts, evidence=evidence))


def moves(data: Dataset, said: Float64, bias: Bias) -> tuple[Moved, ...]:
    """Per candidate, how far it moved and from what. data: the rows learned from; said: [n, m], by the champion."""
    known = ~np.isnan(said)
    expected = np.where(known, said, 0.0).sum(axis=0)
    outcomes, taken = known.sum(axis=0), (data.taken & known).sum(axis=0)
    found = []
    for at, name in enumerate(data.question.candidates):
        shift, low, high = (float(values[at]) for values in (bias.shifts, bias.low, bias.high))
        found.append(Moved(name, shift, low, high, int(outcomes[at]), int(taken[at]), float(expected[at])))
    return tuple(found)


def describe(
    run: Run, plan: Plan, build: Build, standing: Standing, teaches: Bool, moved: tuple[Moved, ...], judged: Dataset
) -> None:
    """Parameters, tags and the moves: from which version, by which outcomes."""
    was = standing.run.params
    run.params(
        {
            "model": plan.order.model,
            "family": was.get("chosen_family", "all"),
            "source": plan.source,
            "horizon_days": plan.question.horizon_days,
            "attribution": plan.order.attribution,
            "until": plan.end_time.isoformat(),
            "seed": plan.order.seed,
            "split": "time",
            "rows": len(teaches),
            "rows_train": int(teaches.sum()),
            "rows_test": len(judged),
            REFRESHED_FROM: standing.run.id,
            "chosen_family": was.get("chosen_family", "all"),
            "calibration": standing.loaded.model.calibration.kind,
            "rounds": was.get("rounds", "0"),
            "champion_version": standing.loaded.version,
            "champion_run": standing.run.id,
            "champion_rows": len(judged),
        }
    )
    learned_from(run, build)
    run.tags({"nextbest.row_schema": standing.loaded.model.row_schema.fingerprint})
    run.tags(
        {"nextbest.reason": f"the levels of version {standing.loaded.version}, moved by {int(teaches.sum())} outcomes"}
    )
    run.text(json.dumps([asdict(one) for one in moved], indent=1, ensure_ascii=False) + "\n", BIAS_FILE)


def keep_leaks(run: Run, champion: FinishedRun) -> None:
    """The trees are the champion's, and so is what they may leak; nothing where its run keeps no such check."""
    try:
        found = champion.artefact(LEAK_FILE)
    except ArtefactError:
        return
    run.text(found.read_text(encoding="utf-8"), LEAK_FILE)

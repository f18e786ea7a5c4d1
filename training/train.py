"""A training run, top to bottom: rows, split, families, calibration, choice, test, refit, register, unseen, gate.

Who sees what: families learn on train; stopping and calibration see valid; the choice among families sees valid and,
where that is too little to tell, train, by models that have not (`cross_fit`); test is only reported. The chosen family
is then fitted again on everything up to `until`, as many rounds as before, and keeps the calibration of valid, the
newest rows that its first fit had not seen. What lies beyond `until` is judged last, with the model frozen. The new
version is the challenger; it becomes the champion where the gate lets it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from features.progress import SILENT, Progress
from features.schema import Float64
from serving.choice import ChoiceModel
from training import cost
from training.dataset import dataset, rows_at
from training.evaluate import PRIOR, baselines, compare
from training.families import FAMILIES, Fitted
from training.kept import describe, keep_family, keep_ladder, keep_models, keep_said, said_of_test
from training.labels import last_fact
from training.monitoring import reference
from training.orders import keep_order
from training.plan import Order
from training.prepared import Prepared, prepare
from training.promotion import leak
from training.promotion.settle import settle
from training.provenance import keep_labels
from training.race import Race, run_race
from training.rival import Asked, Rival, ask, present_champion
from training.track import MODEL_FOLDER, PRIOR_FOLDER, Run, Tracking

if TYPE_CHECKING:
    from features.home import Build
    from training.row_store import RowStore


@dataclass(frozen=True)
class Trained:
    """How a run went. metrics: flat names (`test/hr_at_3`) of the family that was registered.

    champion: differences to the champion of before, where it could be asked. cost: time, memory, size, latency.
    promoted: whether the new version serves now. verdict: what the gate said.
    """

    model: str
    family: str
    reason: str
    version: str
    run_id: str
    rows: Mapping[str, int]
    metrics: Mapping[str, float]
    families: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    champion: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    promoted: bool = False
    verdict: str = ""


def train(
    order: Order,
    build: Build,
    tracking: Tracking,
    tags: Mapping[str, str],
    progress: Progress = SILENT,
    rival: Rival | None = None,
    store: RowStore | None = None,
) -> Trained:
    """Train, judge and register one model, and let the gate decide whether it serves.

    rival: whom to compare with; None: the present champion. store: of rows that were computed before; None: compute
    all, with the same result. Raises ModelNotPossible, InputError before anything is written.
    """
    started = time.perf_counter()
    cost.forget_peak()
    prepared = prepare(order, build, progress, store)
    experiment = tracking.experiment(order.model)
    tracking.mark_killed(experiment)
    with tracking.run(experiment, f"{order.model} {order.family}", tags) as run:
        keep_prepared(run, prepared, build)
        race = run_race(prepared, order, progress)
        on_valid, on_test = race.on_valid, race.on_test
        for name, contender in race.contenders.items():
            keep_family(run, tracking, experiment, name, contender, on_valid[name], on_test[name])
        keep_ladder(run, race.ladder)
        frozen, prior, again = fit_again(prepared, race, order.seed, progress)
        sizes = keep_models(run, {MODEL_FOLDER: frozen, PRIOR_FOLDER: prior})
        found = race.flat() | beyond(prepared, build, frozen, order.seed, progress)
        run.metrics(found)
        run.params({"chosen_family": race.family, "calibration": frozen.calibration.kind, "rounds": again.rounds})
        run.tags({"nextbest.reason": race.reason})

        asked = ask(rival or present_champion(order.model, tracking), prepared.test, build, progress, store)
        against = keep_answers(run, prepared, race, asked, order.seed)
        reference.keep(run, frozen, prepared.parts["train"], prepared.test)
        with progress.step("measure how soon one customer is answered"):
            spent = cost.latency_metrics(waiting(frozen, asked.fit, prepared, build))
        spent |= cost.of_training(started, sizes[MODEL_FOLDER])
        spent["fit_seconds"] = race.contenders[race.family].fitted.seconds + again.seconds
        spent |= {"refit_seconds": again.seconds, "ladder_seconds": race.ladder_seconds, **prepared.spent}
        run.metrics(cost.named(spent))
        version = tracking.register(order.model, run)
    with progress.step("ask the gate"):
        settled = settle(tracking, order.model, run.id, order.seed, asked.unfit)
    return Trained(
        order.model,
        race.family,
        race.reason,
        version,
        run.id,
        prepared.counts,
        found,
        race.shown(),
        prepared.notes + race.notes + asked.notes,
        time.perf_counter() - started,
        against,
        spent,
        settled.promoted,
        settled.verdict,
    )


def keep_prepared(run: Run, prepared: Prepared, build: Build) -> None:
    """What the run is about and learns from."""
    keep_order(run, prepared.plan.order)
    describe(run, prepared.plan, build, prepared.schema, prepared.data, prepared.split)
    if prepared.decided is not None:
        keep_labels(run, prepared.decided, build.catalog.product_ids)


def fit_again(prepared: Prepared, race: Race, seed: int, progress: Progress) -> tuple[ChoiceModel, ChoiceModel, Fitted]:
    """The chosen family and the prior, fitted on all rows with the calibration of before; and the former's fit."""
    question, data = prepared.plan.question, prepared.data
    chosen, fallback = race.contenders[race.family], race.contenders[PRIOR]
    with progress.step(f"fit {race.family} again on all {len(data)} rows"):
        again = FAMILIES[race.family].refit(question, data.examples, chosen.fitted, seed)
        prior = FAMILIES[PRIOR].refit(question, data.examples, fallback.fitted, seed)
    frozen = ChoiceModel(question, again.scorer, chosen.model.calibration, prepared.schema)
    return frozen, ChoiceModel(question, prior.scorer, fallback.model.calibration, prepared.schema), again


def keep_answers(run: Run, prepared: Prepared, race: Race, asked: Asked, seed: int) -> dict[str, float]:
    """Keep what was said of the test rows, by the chosen family before its refit and by the champion of before.

    Returns the differences to that champion.
    """
    test, importance = prepared.test, race.contenders[race.family].fitted.importance
    said = said_of_test(race.test, race.family) | dict(asked.said)
    against = asked.differences(said, test, seed)
    run.params(asked.params)
    run.metrics(against)
    leak.keep(run, test, importance)
    keep_said(run, test, said, importance, race.family, seed)
    return against


def waiting(frozen: ChoiceModel, champion: ChoiceModel | None, prepared: Prepared, build: Build) -> dict[str, Float64]:
    """Milliseconds per answer of the new model ("") and of the champion ("champion_"), on some of the test rows."""
    few = prepared.test.take(np.arange(min(len(prepared.test), cost.CALLS), dtype=np.int64))
    models, rows = {"": frozen}, {"": few.rows}
    if champion is not None:
        models["champion_"] = champion
        rows["champion_"] = rows_at(build, few.customer_id, few.spine.as_of, champion.row_schema, store=prepared.store)
    return cost.latencies(models, rows, few.available)


def beyond(prepared: Prepared, build: Build, frozen: ChoiceModel, seed: int, progress: Progress) -> dict[str, float]:
    """Metrics of the frozen model on what lies beyond `until`, against counting; empty where nothing does."""
    plan, end = prepared.plan, last_fact(build.bank)
    if end <= plan.end:
        return {}
    spine = plan.spine(build.bank, end, since=plan.end)
    if not len(spine):
        return {}
    later = dataset(build, plan.question, spine, prepared.schema, progress, prepared.store)
    if not later.spine.taken.any():
        return {}
    scored = baselines(prepared.data, later)
    against = tuple(scored)
    scored["registered"] = frozen.probabilities(later.rows, later.available)
    return compare("registered", scored, later, seed, against).flat("registered", "unseen")

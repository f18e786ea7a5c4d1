"""A training run, top to bottom: rows, split, families, calibration, choice, test, refit, register, unseen, gate.

Who sees what: families learn on train; stopping, calibration and the choice among families see valid; test is only
reported. The chosen family is then fitted again on everything up to `until`, as many rounds as before, and keeps the
calibration of valid, the newest rows that its first fit had not seen. What lies beyond `until` is judged last, with the
model frozen. The new version is the challenger; it becomes the champion where the gate lets it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from features.assemble import row_schema
from features.progress import SILENT, Progress
from features.schema import Float64, RowSchema
from serving.choice import ChoiceModel
from serving.timing import TimingModel
from training import cost
from training.contenders import choose, families, fit, flat_test, judge_all
from training.dataset import Dataset, dataset, require_take_ups, rows_at
from training.evaluate import PRIOR, baselines, compare, primary_metric
from training.families import FAMILIES
from training.kept import describe, keep_family, keep_said, said_of_test
from training.labels import last_fact
from training.monitoring import reference
from training.orders import keep_order
from training.plan import Order, Plan, make_plan
from training.promotion import leak
from training.promotion.settle import settle
from training.provenance import keep_labels
from training.provenance import notes as left_out_notes
from training.rival import Rival, ask, present_champion
from training.track import MODEL_FOLDER, PRIOR_FOLDER, Run, Tracking

if TYPE_CHECKING:
    from features.home import Build


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
) -> Trained:
    """Train, judge and register one model, and let the gate decide whether it serves.

    rival: whom to compare with; None: the present champion. Raises ModelNotPossible, InputError before anything is
    written.
    """
    started = time.perf_counter()
    cost.forget_peak()
    with progress.step("choose the rows"):
        plan, known = make_plan(order, build.bank)
        spine = plan.spine(known, plan.end)
        decided = plan.outcomes(known, plan.end)
        schema = row_schema(known, plan.end_time)
    data = dataset(build, plan.question, spine, schema, progress)
    require_take_ups(data, "rows with an outcome")
    split = plan.split(data)
    parts = {name: data.take(getattr(split, name)) for name in ("train", "valid", "test")}
    require_take_ups(parts["train"], "rows with an outcome to learn from")

    experiment = tracking.experiment(order.model)
    tracking.mark_killed(experiment)
    with tracking.run(experiment, f"{order.model} {order.family}", tags) as run:
        keep_order(run, order)
        describe(run, plan, build, schema, data, split)
        if decided is not None:
            keep_labels(run, decided, known.catalog.product_ids)
        contenders = {name: fit(name, parts, order.seed, progress) for name in families(order.family)}
        on_valid = judge_all(contenders, parts["train"], parts["valid"], order.seed)
        on_test = judge_all(contenders, parts["train"], parts["test"], order.seed)
        for name in contenders:
            keep_family(run, tracking, experiment, name, contenders[name], on_valid[name], on_test[name])
        family, reason = choose(order, on_valid, on_test, primary_metric(parts["valid"]))
        fitted = contenders[family].fitted
        found = {**on_valid[family].flat(family, "valid"), **on_test[family].flat(family, "test")}

        with progress.step(f"fit {family} again on all {len(data)} rows"):
            again = FAMILIES[family].refit(plan.question, data.examples, fitted, order.seed)
            fallback = FAMILIES[PRIOR].refit(plan.question, data.examples, contenders[PRIOR].fitted, order.seed)
        frozen = ChoiceModel(plan.question, again.scorer, contenders[family].model.calibration, schema)
        prior = ChoiceModel(plan.question, fallback.scorer, contenders[PRIOR].model.calibration, schema)
        sizes = keep(run, {MODEL_FOLDER: frozen, PRIOR_FOLDER: prior})
        found |= beyond(plan, build, frozen, data, schema, order.seed, progress)
        run.metrics(found)
        run.params({"chosen_family": family, "calibration": frozen.calibration.kind, "rounds": again.rounds})
        run.tags({"nextbest.reason": reason})

        said = said_of_test(parts, contenders, family)
        asked = ask(rival or present_champion(order.model, tracking), parts["test"], build, progress)
        said |= asked.said
        against = asked.differences(said, parts["test"], order.seed)
        run.params(asked.params)
        run.metrics(against)
        leak.keep(run, parts["test"], fitted.importance)
        keep_said(run, parts["test"], said, fitted.importance, family, order.seed)
        reference.keep(run, frozen, parts["train"], parts["test"])
        with progress.step("measure how soon one customer is answered"):
            spent = cost.latency_metrics(waiting(frozen, asked.fit, parts["test"], build))
        spent |= {"train_seconds": time.perf_counter() - started, "fit_seconds": fitted.seconds + again.seconds}
        spent |= {"peak_memory_mb": cost.peak_memory_mb(), "model_bytes": float(sizes[MODEL_FOLDER])}
        run.metrics({f"cost/{name}": value for name, value in spent.items()})
        version = tracking.register(order.model, run)
    with progress.step("ask the gate"):
        settled = settle(tracking, order.model, run.id, order.seed, asked.unfit)
    counts = {name: len(part) for name, part in parts.items()} | {"embargoed": split.embargoed, "all": len(data)}
    shown = {name: flat_test(on_test[name], name) for name in contenders}
    shown |= {name: dict(judged.values) for name, judged in on_test[family].judged.items() if name not in FAMILIES}
    notes = (*(f"{count} rows left out: {why}" for why, count in data.spine.left_out.items() if count),)
    notes += left_out_notes(decided) if decided is not None else ()
    notes += asked.notes
    return Trained(
        order.model,
        family,
        reason,
        version,
        run.id,
        counts,
        found,
        shown,
        notes,
        time.perf_counter() - started,
        against,
        spent,
        settled.promoted,
        settled.verdict,
    )


def keep(run: Run, models: Mapping[str, ChoiceModel | TimingModel]) -> dict[str, int]:
    """Save each model as an artefact folder of the run; folder → bytes."""
    sizes = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models.items():
            model.save(Path(folder) / name)
            run.folder(Path(folder) / name, name)
            sizes[name] = cost.folder_bytes(Path(folder) / name)
    return sizes


def waiting(frozen: ChoiceModel, champion: ChoiceModel | None, test: Dataset, build: Build) -> dict[str, Float64]:
    """Milliseconds per answer of the new model ("") and of the champion ("champion_"), on some of the test rows."""
    few = test.take(np.arange(min(len(test), cost.CALLS), dtype=np.int64))
    models, rows = {"": frozen}, {"": few.rows}
    if champion is not None:
        models["champion_"] = champion
        rows["champion_"] = rows_at(build, few.customer_id, few.spine.as_of, champion.row_schema)
    return cost.latencies(models, rows, few.available)


def beyond(
    plan: Plan, build: Build, frozen: ChoiceModel, learned: Dataset, schema: RowSchema, seed: int, progress: Progress
) -> dict[str, float]:
    """Metrics of the frozen model on what lies beyond `until`, against counting; empty where nothing does."""
    end = last_fact(build.bank)
    if end <= plan.end:
        return {}
    spine = plan.spine(build.bank, end, since=plan.end)
    if not len(spine):
        return {}
    later = dataset(build, plan.question, spine, schema, progress)
    if not later.spine.taken.any():
        return {}
    scored = baselines(learned, later)
    against = tuple(scored)
    scored["registered"] = frozen.probabilities(later.rows, later.available)
    return compare("registered", scored, later, seed, against).flat("registered", "unseen")

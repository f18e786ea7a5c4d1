"""A training run, top to bottom: rows, split, families, calibration, choice, test, refit, register, unseen.

Who sees what: families learn on train; stopping, calibration and the choice among families see valid; test is only
reported. The chosen family is then fitted again on everything up to `until`, as many rounds as before, and keeps the
calibration of valid, the newest rows that its first fit had not seen. What lies beyond `until` is judged last, with the
model frozen.
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
from features.errors import InputError
from features.progress import SILENT, Progress
from features.schema import Float64, RowSchema
from serving.choice import ChoiceModel, Question
from serving.timing import TimingModel
from training import plots
from training.bootstrap import Interval
from training.dataset import Dataset, dataset, require_take_ups
from training.evaluate import (
    PRIOR,
    Comparison,
    baselines,
    better,
    clearly_better,
    clearly_worse,
    compare,
    primary_metric,
)
from training.families import FAMILIES, Fitted
from training.fit_calibration import fit_calibration
from training.labels import last_fact
from training.plan import Order, Plan, make_plan
from training.provenance import keep_labels
from training.provenance import notes as left_out_notes
from training.split import Split
from training.track import MODEL_FOLDER, PRIOR_FOLDER, Run, Tracking

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from features.home import Build


@dataclass(frozen=True)
class Contender:
    """A family fitted on train and calibrated on valid."""

    fitted: Fitted
    model: ChoiceModel


@dataclass(frozen=True)
class Trained:
    """How a run went. metrics: flat names (`test/hr_at_3`) of the family that was registered."""

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


def train(
    order: Order, build: Build, tracking: Tracking, tags: Mapping[str, str], progress: Progress = SILENT
) -> Trained:
    """Train, judge and register one model. Raises ModelNotPossible, InputError before anything is written."""
    started = time.perf_counter()
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
        describe(run, plan, build, schema, data, split)
        if decided is not None:
            keep_labels(run, decided, known.catalog.product_ids)
        contenders = {name: fit(name, parts, order.seed, progress) for name in families(order.family)}
        on_valid = judge_all(contenders, parts["train"], parts["valid"], order.seed)
        on_test = judge_all(contenders, parts["train"], parts["test"], order.seed)
        for name in contenders:
            record(run, tracking, experiment, name, contenders[name], parts["test"], on_valid[name], on_test[name])
        family, reason = choose(order, on_valid, on_test, primary_metric(parts["valid"]))
        found = {**on_valid[family].flat(family, "valid"), **on_test[family].flat(family, "test")}

        with progress.step(f"fit {family} again on all {len(data)} rows"):
            again = FAMILIES[family].refit(plan.question, data.examples, contenders[family].fitted, order.seed)
            fallback = FAMILIES[PRIOR].refit(plan.question, data.examples, contenders[PRIOR].fitted, order.seed)
        frozen = ChoiceModel(plan.question, again.scorer, contenders[family].model.calibration, schema)
        prior = ChoiceModel(plan.question, fallback.scorer, contenders[PRIOR].model.calibration, schema)
        keep(run, {MODEL_FOLDER: frozen, PRIOR_FOLDER: prior})
        found |= beyond(plan, build, frozen, data, schema, order.seed, progress)
        run.metrics(found)
        run.params({"chosen_family": family, "calibration": frozen.calibration.kind, "rounds": again.rounds})
        run.tags({"nextbest.reason": reason})
        for name, drawn in pictures(frozen.question, contenders[family], parts, family).items():
            run.figure(drawn, f"plots/{name}.png")
        version = tracking.register(order.model, run)
    sizes = {name: len(part) for name, part in parts.items()} | {"embargoed": split.embargoed, "all": len(data)}
    shown = {name: flat_test(on_test[name], name) for name in contenders}
    shown |= {name: dict(judged.values) for name, judged in on_test[family].judged.items() if name not in FAMILIES}
    notes = (*(f"{count} rows left out: {why}" for why, count in data.spine.left_out.items() if count),)
    notes += left_out_notes(decided) if decided is not None else ()
    seconds = time.perf_counter() - started
    return Trained(order.model, family, reason, version, run.id, sizes, found, shown, notes, seconds)


def keep(run: Run, models: Mapping[str, ChoiceModel | TimingModel]) -> None:
    """Save each model as an artefact folder of the run."""
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models.items():
            model.save(Path(folder) / name)
            run.folder(Path(folder) / name, name)


def families(asked: str) -> tuple[str, ...]:
    """The families to fit; the prior always is, as the measure of the others."""
    if asked == "all":
        return tuple(FAMILIES)
    if asked not in FAMILIES:
        raise InputError(f"families are {', '.join(FAMILIES)} or all, however {asked!r} was asked for")
    return tuple(dict.fromkeys((PRIOR, asked)))


def fit(name: str, parts: Mapping[str, Dataset], seed: int, progress: Progress) -> Contender:
    """Fit one family on train, stopped and calibrated on valid."""
    train, valid = parts["train"], parts["valid"]
    question = train.question
    fitted = FAMILIES[name].fit(question, train.examples, valid.examples, seed, progress)
    # An occasion is asked "which", never "whether": only rows in which nothing could happen tell how likely it is.
    evidence = valid.take(valid.judged_for_probability).examples
    calibration = fit_calibration(question, fitted.scorer, evidence)
    return Contender(fitted, ChoiceModel(question, fitted.scorer, calibration, train.rows.schema))


def judge_all(contenders: Mapping[str, Contender], learned: Dataset, part: Dataset, seed: int) -> dict[str, Comparison]:
    """Each contender against the prior and against counting, on one part."""
    scored: dict[str, Float64] = baselines(learned, part)
    against = (PRIOR, *scored)
    scored |= {name: contender.model.probabilities(part.rows, part.available) for name, contender in contenders.items()}
    shown = {name: {one: scored[one] for one in {name: 0, PRIOR: 0, **dict.fromkeys(against)}} for name in contenders}
    return {name: compare(name, shown[name], part, seed, against) for name in contenders}


def choose(
    order: Order, on_valid: Mapping[str, Comparison], on_test: Mapping[str, Comparison], metric: str
) -> tuple[str, str]:
    """The family to register and why: the best on valid, if it is surely better there than the prior.

    Test never picks a winner, but it may stop one: where times have changed so much that the winner is surely worse
    than the prior on the newest rows, the prior is what may be shipped.
    """
    if order.family != "all":
        return order.family, "asked for"
    values = {name: comparison.judged[name].values[metric] for name, comparison in on_valid.items()}
    best = PRIOR
    for name in values:
        best = name if better(metric, values[name], values[best]) else best
    if best == PRIOR:
        return PRIOR, f"no family has a better {metric} than the prior on the validation rows ({values[PRIOR]:.4f})"
    gap = on_valid[best].differences[PRIOR][metric]
    told = f"{metric} {values[best]:.4f} against {values[PRIOR]:.4f} of the prior, difference {span(gap)}"
    newest = on_test[best].differences[PRIOR][metric]
    if clearly_better(metric, gap) and clearly_worse(metric, newest):
        worse = f"yet it is surely worse than the prior on the newest rows, {span(newest)}"
        return PRIOR, f"{best} was best on the validation rows, {told}; {worse}"
    if clearly_better(metric, gap):
        return best, f"best on the validation rows: {told}"
    return PRIOR, f"no family is surely better than the prior on the validation rows; the best, {best}, has {told}"


def span(interval: Interval) -> str:
    """ "+0.012 [+0.004, +0.019]" """
    return f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


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


def flat_test(comparison: Comparison, name: str) -> dict[str, float]:
    """The metrics of one model on test, by their plain names."""
    return {metric: value for metric, value in comparison.judged[name].values.items() if np.isfinite(value)}


def describe(run: Run, plan: Plan, build: Build, schema: RowSchema, data: Dataset, split: Split) -> None:
    """Parameters and tags: everything needed to make this run again."""
    order = plan.order
    run.params(
        {
            "model": order.model,
            "family": order.family,
            "source": plan.source,
            "horizon_days": plan.question.horizon_days,
            "attribution": order.attribution,
            "until": plan.end_time.isoformat(),
            "seed": order.seed,
            "split": "time" if split.borders else "customer",
            "rows": len(data),
            "rows_train": len(split.train),
            "rows_valid": len(split.valid),
            "rows_test": len(split.test),
            "rows_embargoed": split.embargoed,
        }
    )
    run.tags(
        {
            "nextbest.data": build.bank.fingerprint,
            "nextbest.features": build.fingerprint,
            "nextbest.row_schema": schema.fingerprint,
        }
    )
    run.data(build.bank_folder.parent.name, build.bank.fingerprint, str(build.bank_folder), "training")


def record(
    run: Run,
    tracking: Tracking,
    experiment: str,
    name: str,
    contender: Contender,
    test: Dataset,
    on_valid: Comparison,
    on_test: Comparison,
) -> None:
    """A nested run per family: what it was fitted with, how it did on valid and test."""
    with tracking.run(experiment, name, {"nextbest.family": name}, parent=run.id) as child:
        child.params({**contender.fitted.params, "family": name, "fitted_rounds": contender.fitted.rounds})
        child.metrics({**on_valid.flat(name, "valid"), **on_test.flat(name, "test")})
        child.metrics({"fit_seconds": contender.fitted.seconds})


def pictures(question: Question, chosen: Contender, parts: Mapping[str, Dataset], family: str) -> dict[str, Figure]:
    """Reliability and gain on test, and importance where the family has one."""
    test = parts["test"]
    scored = {family: chosen.model.probabilities(test.rows, test.available), **baselines(parts["train"], test)}
    title = f"{question.model}, {family}, test rows"
    drawn = {
        "reliability": plots.reliability(scored[family], test, title),
        "gain": plots.gain(scored, test, title),
    }
    if chosen.fitted.importance:
        drawn["importance"] = plots.importance(chosen.fitted.importance, title)
    return drawn

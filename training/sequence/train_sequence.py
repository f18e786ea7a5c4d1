"""A training run of the sequence model, top to bottom: the rows of the other families, histories, fit, test, keep.

The question, the rows, the split and the metrics are those of training/train.py, so that both stand side by side on the
same test rows; the prior and the trees are fitted here too and compared with, paired by customer. What is kept is
fitted again on all rows. It is registered nowhere: the serving process reads feature rows, which carry no history, so
it serves batches only and can be no champion.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from features.assemble import row_schema
from features.errors import InputError
from features.progress import SILENT, Progress
from features.schema import Float64, Int64, RowSchema
from serving.calibration import Calibration
from serving.question import Question
from training import cost
from training.contenders import Contender, flat_test
from training.contenders import fit as fit_rival
from training.dataset import Dataset, dataset, require_take_ups
from training.evaluate import PRIOR, Comparison, baselines, clearly_better, clearly_worse, compare, primary_metric
from training.fit_calibration import fit_calibration
from training.kept import describe, keep_family, keep_said
from training.orders import keep_order
from training.plan import NEXT_BEST_PRODUCT, Order, make_plan
from training.predictions import MODEL
from training.promotion.gate import GATE_TAG, REASONS_TAG
from training.promotion.verdict import REFUSED
from training.sequence.fit_sequence import FittedSequence, Histories, Settings, fit, refit
from training.sequence.machine import Machine
from training.sequence.sequence_model import FAMILY, Answered, SequenceModel
from training.sequence.tokens import Tokens
from training.sequence.vocabulary import Vocabulary
from training.sequence.windows import Asked
from training.track import Run, Tracking
from training.train import Trained

if TYPE_CHECKING:
    from features.home import Build

FOLDER = "sequence"
"""Artefact folder of the model; `model` is what serving loads, and this is not."""
RIVALS = (PRIOR, "lightgbm")
"""Families that are fitted beside it, on the same rows."""
BATCHES_ONLY = "serves batches only: the serving process reads feature rows, which carry no history"


def train_sequence(
    order: Order,
    build: Build,
    tracking: Tracking,
    tags: Mapping[str, str],
    progress: Progress = SILENT,
    settings: Settings | None = None,
    machine: Machine | None = None,
) -> Trained:
    """Train, judge and keep one sequence model. Raises ModelNotPossible, InputError before anything is written.

    machine: where it is fitted; None: on a GPU where there is one.
    """
    settings, machine = settings or Settings(), machine or Machine.here()
    if order.model != NEXT_BEST_PRODUCT:
        raise InputError(f"family {FAMILY} answers {NEXT_BEST_PRODUCT}, however {order.model} was asked for")
    started = time.perf_counter()
    cost.forget_peak()
    with progress.step("choose the rows"):
        plan, known = make_plan(order, build.bank)
        spine = plan.spine(known, plan.end)
        schema = row_schema(known, plan.end_time)
    data = dataset(build, plan.question, spine, schema, progress)
    require_take_ups(data, "rows with an outcome")
    split = plan.split(data)
    parts = {name: data.take(getattr(split, name)) for name in ("train", "valid", "test")}
    require_take_ups(parts["train"], "rows with an outcome to learn from")
    with progress.step("read the histories"):
        tokens = Tokens.of(known)
        vocabulary = Vocabulary.learn(tokens, learnable(tokens, parts["train"]), build.catalog)
        encoded = vocabulary.encode(tokens)

    histories = {name: histories_of(part, tokens, vocabulary) for name, part in parts.items()}

    experiment = tracking.experiment(order.model)
    tracking.mark_killed(experiment)
    with tracking.run(experiment, f"{order.model} {FAMILY}", tags) as run:
        keep_order(run, order)
        describe(run, plan, build, schema, data, split)
        rivals = {name: fit_rival(name, parts, order.seed, progress) for name in RIVALS}
        words = vocabulary.sizes
        fitted = fit(encoded, words, histories["train"], histories["valid"], settings, machine, order.seed, progress)
        first = kept_model(fitted, vocabulary, settings, plan.question, schema)
        first = replace(first, calibration=calibration_of(first, parts["valid"], tokens))
        with progress.step("judge it"):
            said = {name: said_of(first, rivals, parts["train"], parts[name], tokens) for name in ("valid", "test")}
        on = {name: side_by_side(said[name], parts[name], order.seed) for name in said}
        for name, rival in rivals.items():
            keep_family(run, tracking, experiment, name, rival, on["valid"][name], on["test"][name])
        found = {key: value for name in on for key, value in on[name][FAMILY].flat(FAMILY, name).items()}
        run.metrics(found)

        all_rows = histories_of(data, tokens, vocabulary)
        again = refit(encoded, all_rows, fitted, settings, machine, order.seed, progress)
        model = replace(first, network=again.network)
        size = keep_model(run, model)
        run.params({**fitted.params, "chosen_family": FAMILY, "rounds": again.epochs, "tokens": len(tokens)})
        run.params({"calibration": model.calibration.kind})
        run.tags({"nextbest.reason": "asked for", GATE_TAG: REFUSED, REASONS_TAG: BATCHES_ONLY})
        keep_said(run, parts["test"], {**said["test"], MODEL: said["test"][FAMILY]}, None, FAMILY, order.seed)
        spent = spending(fitted, again, rivals, settings, machine) | {"model_bytes": float(size)}
        spent |= {"train_seconds": time.perf_counter() - started, "peak_memory_mb": cost.peak_memory_mb()}
        run.metrics({f"cost/{name}": value for name, value in spent.items()})
    counts = {name: len(part) for name, part in parts.items()} | {"embargoed": split.embargoed, "all": len(data)}
    return Trained(
        order.model,
        FAMILY,
        "asked for",
        "",
        run.id,
        counts,
        found,
        {name: flat_test(on["test"][FAMILY], name) for name in said["test"]},
        notes(data, on["test"][FAMILY], parts["test"], spent),
        time.perf_counter() - started,
        cost=spent,
        verdict=BATCHES_ONLY,
    )


def keep_model(run: Run, model: SequenceModel) -> int:
    """Save the model as an artefact folder of the run; its bytes."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / FOLDER)
        run.folder(Path(folder) / FOLDER, FOLDER)
        return cost.folder_bytes(Path(folder) / FOLDER)


def learnable(tokens: Tokens, train: Dataset) -> Int64:
    """The tokens that some row to learn from may know: all that words and bins are learned from."""
    start, stop = tokens.known_to(train.customer_id, train.spine.as_of)
    steps = np.zeros(len(tokens) + 1, dtype=np.int64)
    np.add.at(steps, start, 1)
    np.add.at(steps, stop, -1)
    return np.flatnonzero(np.cumsum(steps)[:-1] > 0)


def histories_of(part: Dataset, tokens: Tokens, vocabulary: Vocabulary) -> Histories:
    zone = vocabulary.time_zone
    return Histories(Asked.of(tokens, part.customer_id, part.spine.as_of, part.rows.customer, zone), part.examples)


def kept_model(
    fitted: FittedSequence, vocabulary: Vocabulary, settings: Settings, question: Question, schema: RowSchema
) -> SequenceModel:
    """The fitted network as a model that says raw probabilities."""
    raw = Calibration("identity")
    return SequenceModel(question, vocabulary, fitted.shape, fitted.network, settings.length, raw, schema)


def calibration_of(model: SequenceModel, valid: Dataset, tokens: Tokens) -> Calibration:
    """The calibration of the model on valid, as of the other families."""
    asked = valid.take(valid.judged_for_probability)
    scorer = Answered(model.utilities(tokens, asked.customer_id, asked.spine.as_of, asked.rows))
    # Rows that could choose nothing else are all of them here, so `fit_calibration` asks about these very rows.
    return fit_calibration(model.question, scorer, asked.examples)


def said_of(
    model: SequenceModel, rivals: Mapping[str, Contender], learned: Dataset, part: Dataset, tokens: Tokens
) -> dict[str, Float64]:
    """Probabilities of the rows of `part`, float64 [n, m] each: of counting, the rivals and the model."""
    said = baselines(learned, part)
    said |= {name: rival.model.probabilities(part.rows, part.available) for name, rival in rivals.items()}
    answered = model.answers(tokens, part.customer_id, part.spine.as_of, part.rows)
    return said | {FAMILY: answered.probabilities(part.rows, part.available)}


def side_by_side(said: Mapping[str, Float64], part: Dataset, seed: int) -> dict[str, Comparison]:
    """The model and each rival, against the prior and counting; the model against the trees too."""
    counted = tuple(name for name in said if name not in (FAMILY, *RIVALS))
    against = {name: tuple(dict.fromkeys((PRIOR, *counted))) for name in RIVALS}
    against[FAMILY] = (*RIVALS, *counted)
    return {
        name: compare(name, {one: said[one] for one in (name, *others)}, part, seed, others)
        for name, others in against.items()
    }


def spending(
    fitted: FittedSequence, again: FittedSequence, rivals: Mapping[str, Contender], settings: Settings, machine: Machine
) -> dict[str, float]:
    """What it cost to fit, and how fast training went; of the rivals, the seconds of fitting."""
    spent = {"fit_seconds": fitted.seconds + again.seconds, "first_fit_seconds": fitted.seconds}
    spent |= {"events_per_second": fitted.events_per_second, "rows_per_second": fitted.rows_per_second}
    spent |= {f"{name}_fit_seconds": rival.fitted.seconds for name, rival in rivals.items()}
    share = fitted.utilisation(machine, settings.length)
    return spent if share is None else spent | {"share_of_peak": share}


def notes(data: Dataset, found: Comparison, test: Dataset, spent: Mapping[str, float]) -> tuple[str, ...]:
    """What a person should know: rows left out, and whether the sequence is worth what it costs beside the trees."""
    told = [f"{count} rows left out: {why}" for why, count in data.spine.left_out.items() if count]
    metric = primary_metric(test)
    for rival in reversed(RIVALS):
        gap = found.differences[rival][metric]
        sure = clearly_better(metric, gap), clearly_worse(metric, gap)
        word = "surely better than" if sure[0] else "surely worse than" if sure[1] else "not surely different from"
        told.append(f"{FAMILY} is {word} {rival} on test, {metric} {gap.told()}")
    times = spent["first_fit_seconds"] / max(spent[f"{RIVALS[-1]}_fit_seconds"], 1e-9)
    told.append(f"fitting took {times:.1f} times as long as that of {RIVALS[-1]}")
    return tuple(told)

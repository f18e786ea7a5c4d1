"""A training run of the sequence model, top to bottom: the rows of the other families, histories, fit, test, keep.

The question, the rows, the parts and the metrics are those of training/train.py, so that both stand side by side on the
same test rows; the prior and the trees are fitted here too and compared with, paired by customer. What is kept is
fitted again on all rows. It is registered nowhere: the serving process reads feature rows, which carry no history, so
it serves batches only and can be no champion.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from features.errors import InputError
from features.progress import SILENT, Progress
from features.schema import Int64
from serving.calibration import Calibration
from training import cost
from training.contenders import fit as fit_rival
from training.contenders import flat_test
from training.dataset import Dataset
from training.fit_calibration import fit_calibration
from training.kept import describe, keep_family, keep_models, keep_said
from training.labels import cut
from training.orders import keep_order
from training.plan import NEXT_BEST_PRODUCT, Order
from training.predictions import MODEL
from training.prepared import prepare
from training.promotion.gate import GATE_TAG, REASONS_TAG
from training.promotion.verdict import REFUSED
from training.sequence.beside_rivals import RIVALS, findings, said_of, side_by_side, spending
from training.sequence.fit_sequence import Histories, Settings, fit, refit
from training.sequence.machine import Machine
from training.sequence.sequence_model import FAMILY, Answered, SequenceModel
from training.sequence.tokens import Tokens
from training.sequence.vocabulary import Vocabulary
from training.sequence.windows import Asked
from training.track import Tracking
from training.train import Trained

if TYPE_CHECKING:
    from features.home import Build

FOLDER = "sequence"
"""Artefact folder of the model; `model` is what serving loads, and this is not."""
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
    if order.tune:
        raise InputError(f"family {FAMILY} has one setting, however --tune {order.tune} was asked for; leave it out")
    started = time.perf_counter()
    cost.forget_peak()
    prepared = prepare(order, build, progress)
    parts, question = prepared.parts, prepared.plan.question
    with progress.step("read the histories"):
        tokens = Tokens.of(cut(build.bank, prepared.plan.end))
        vocabulary = Vocabulary.learn(tokens, learnable(tokens, parts["train"]), build.catalog)
        encoded = vocabulary.encode(tokens)
        train, valid, everything = (
            histories_of(part, tokens, vocabulary) for part in (parts["train"], parts["valid"], prepared.data)
        )
    experiment = tracking.experiment(order.model)
    tracking.mark_killed(experiment)
    with tracking.run(experiment, f"{order.model} {FAMILY}", tags) as run:
        keep_order(run, order)
        describe(run, prepared.plan, build, prepared.schema, prepared.data, prepared.split)
        rivals = {name: fit_rival(name, parts, order.seed, progress) for name in RIVALS}
        fitted = fit(encoded, vocabulary.sizes, train, valid, settings, machine, order.seed, progress)
        with progress.step("judge it"):
            raw, length, schema = Calibration("identity"), settings.length, prepared.schema
            first = SequenceModel(question, vocabulary, fitted.shape, fitted.network, length, raw, schema)
            first = replace(first, calibration=calibration_of(first, parts["valid"], tokens))
            said = {name: said_of(first, rivals, parts["train"], parts[name], tokens) for name in ("valid", "test")}
            on = {name: side_by_side(said[name], parts[name], order.seed) for name in said}
        for name, rival in rivals.items():
            keep_family(run, tracking, experiment, name, rival, on["valid"][name], on["test"][name])
        found = {key: value for name in on for key, value in on[name][FAMILY].flat(FAMILY, name).items()}
        run.metrics(found)

        again = refit(encoded, everything, fitted, settings, machine, order.seed, progress)
        sizes = keep_models(run, {FOLDER: replace(first, network=again.network)})
        run.params({**fitted.params, "chosen_family": FAMILY, "rounds": again.epochs, "tokens": len(tokens)})
        run.params({"calibration": first.calibration.kind})
        run.tags({"nextbest.reason": "asked for", GATE_TAG: REFUSED, REASONS_TAG: BATCHES_ONLY})
        keep_said(run, prepared.test, {**said["test"], MODEL: said["test"][FAMILY]}, None, FAMILY, order.seed)
        spent = spending(fitted, again, rivals, settings, machine) | cost.of_training(started, sizes[FOLDER])
        run.metrics(cost.named(spent))
    on_test = on["test"][FAMILY]
    return Trained(
        order.model,
        FAMILY,
        "asked for",
        "",
        run.id,
        prepared.counts,
        found,
        {name: flat_test(on_test, name) for name in on_test.judged},
        (*prepared.notes, *findings(on_test, prepared.test, spent)),
        time.perf_counter() - started,
        cost=spent,
        verdict=BATCHES_ONLY,
    )


def learnable(tokens: Tokens, train: Dataset) -> Int64:
    """The tokens that some row to learn from may know: all that words and bins are learned from."""
    start, stop = tokens.known_to(train.customer_id, train.spine.as_of)
    steps = np.zeros(len(tokens) + 1, dtype=np.int64)
    np.add.at(steps, start, 1)
    np.add.at(steps, stop, -1)
    return np.flatnonzero(np.cumsum(steps)[:-1] > 0)


def histories_of(part: Dataset, tokens: Tokens, vocabulary: Vocabulary) -> Histories:
    """The rows of a part with what each may know."""
    zone = vocabulary.time_zone
    return Histories(Asked.of(tokens, part.customer_id, part.spine.as_of, part.rows.customer, zone), part.examples)


def calibration_of(model: SequenceModel, valid: Dataset, tokens: Tokens) -> Calibration:
    """The calibration of the model on valid, from the same rows as that of the other families."""
    evidence = valid.take(valid.judged_for_probability)
    said = model.utilities(tokens, evidence.customer_id, evidence.spine.as_of, evidence.rows)
    return fit_calibration(model.question, Answered(said), evidence.examples, evidence.customer_id)

"""What `nextbest train` and `nextbest score` do for the sequence model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from training.edge import Edge

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from training.plan import Order
    from training.train import Trained

SEQUENCE_NAME = "sequence"


def train_sequences(edge: Edge, order: Order, tags: Mapping[str, str]) -> None:
    """Train and tell."""
    from training.sequence.train_sequence import train_sequence
    from training.track import Tracking

    trained = train_sequence(order, edge.home.build(), Tracking(edge.tracking_uri), tags, edge.terminal)
    edge.answer(asdict(trained), *sequence_lines(trained))


def sequence_lines(trained: Trained) -> list[str | Table]:
    """The training, for a person."""
    from training.report import CHANCES, RANKED, cost_lines
    from training.terminal import metric_rows, table

    sizes = ", ".join(f"{name} {count:,}" for name, count in trained.rows.items() if count)
    shown = (*RANKED, *CHANCES)
    speed = f"{trained.cost['events_per_second']:,.0f} events and {trained.cost['rows_per_second']:,.0f} rows a second"
    return [
        table(f"{trained.model}: test rows, by family and by counting", ("", *shown),
              metric_rows(trained.families, shown)),
        f"not registered: {trained.verdict}",
        f"rows: {sizes}",
        *(f"note: {note}" for note in trained.notes),
        f"training went through {speed}",
        *cost_lines(trained.cost),
        f"score with: nextbest score {trained.model} --model {trained.run_id} --entities FILE --out FILE",
        f"run {trained.run_id}, {trained.seconds:.0f} s",
    ]  # fmt: skip


def scored_by_sequence(edge: Edge, model: str, reference: str, entities: pd.DataFrame, out: Path) -> bool:
    """Score every entity where `reference` is a run of a sequence model; False, and nothing done, where it is not."""
    from features.errors import NextbestError
    from serving.batch import write_scores
    from training.finished import FinishedRun
    from training.sequence.score_sequence import score_sequences
    from training.sequence.sequence_model import SequenceModel
    from training.sequence.train_sequence import FOLDER
    from training.track import Tracking

    try:
        run = FinishedRun.open(Tracking(edge.tracking_uri), reference)
    except NextbestError:
        return False
    if (run.params.get("model"), run.params.get("chosen_family")) != (model, SEQUENCE_NAME):
        return False
    build, loaded = edge.home.build(), SequenceModel.load(run.artefact(FOLDER))
    lines = write_scores(score_sequences(build, loaded, entities, edge.terminal), out)
    told = f"{out}: {lines:,} lines for {len(entities):,} entities, by the sequence model of run {run.id}"
    edge.answer({"out": str(out), "entities": len(entities), "rows": lines, "run_id": run.id}, told)
    return True

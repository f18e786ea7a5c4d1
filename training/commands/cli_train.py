"""`nextbest train MODEL` and `nextbest score MODEL`: a model from the features in the home, and scores by one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from features.errors import InputError
from training.commands.cli_content import CONTENT_NAME, score_contents, train_contents
from training.commands.cli_sequence import SEQUENCE_NAME, scored_by_sequence, train_sequences
from training.edge import Edge, command, moment

FAMILY_NAMES = ("counts", "lightgbm", "torch", "ensemble", "prior", "all")
ATTRIBUTIONS = ("last-touch-1", "shapley-1")
MODEL_NAMES = ("next-best-product", "channel-choice")
TIMING_NAME = "send-time"
LATEST = "latest"
RUN_ID_LENGTH = 32


def add_train(group: click.Group) -> None:
    """Hang both commands into the program."""

    command(group, "train", "nextbest train next-best-product --until 2024-12-31")(train)
    example = "nextbest score next-best-product --entities customers.parquet --out scores.parquet"
    command(group, "score", example)(score)


@click.argument("model", type=click.Choice((*MODEL_NAMES, CONTENT_NAME, TIMING_NAME)))
@click.option(
    "--family",
    type=click.Choice((*FAMILY_NAMES, SEQUENCE_NAME)),
    default="all",
    show_default=True,
    help="all: a ladder; each must be surely better than the one below it, on rows of train too where those of valid "
    "cannot tell. sequence: over whole histories; not part of all, and for batch scoring only.",
)
@click.option("--entities", type=Path, help="Learn from these customers at these times (Parquet or CSV).")
@click.option(
    "--horizon",
    type=float,
    metavar="DAYS",
    help="Days in which the outcome counts. Default: 90 for products, 30 for contents (less in short histories), "
    "7 for messages.",
)
@click.option("--until", metavar="TIME", help="Hide everything later; a time without zone is UTC.")
@click.option(
    "--split",
    type=click.Choice(["time", "customer"]),
    default="time",
    show_default=True,
    help="How rows to learn from and rows to test on differ.",
)
@click.option(
    "--attribution",
    type=click.Choice(ATTRIBUTIONS),
    default=ATTRIBUTIONS[0],
    show_default=True,
    help="The decision that a take-up belongs to which names none: the last touch, or by the channels' Shapley shares.",
)
@click.option(
    "--tune",
    type=click.IntRange(0, 1000),
    default=0,
    metavar="N",
    show_default=True,
    help="Try N settings of each family first, its defaults among them; the newest rows to learn from judge.",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)  # fmt: skip
def train(
    edge: Edge,
    model: str,
    family: str,
    entities: Path | None,
    horizon: float | None,
    until: str | None,
    split: Any,
    attribution: str,
    tune: int,
    seed: int,
) -> None:
    """Train MODEL on the features in the home, judge it, and make it the champion in MLflow if the gate lets it."""
    from serving.batch import check_eligible, read_entities
    from training.plan import Order
    from training.report import trained_lines
    from training.row_store import RowStore
    from training.track import Tracking, lineage
    from training.train import train as train_model

    if model == TIMING_NAME:
        if (family, entities, horizon, split, attribution, tune) != ("all", None, None, "time", ATTRIBUTIONS[0], 0):
            raise InputError(f"{TIMING_NAME} learns from all messages; it takes --until and --seed only")
        from training.train_timing import train_timing

        timed = train_timing(
            edge.home.build(),
            Tracking(edge.tracking_uri),
            lineage(source_root()),
            moment(until, "--until"),
            seed,
            edge.terminal,
        )
        edge.answer(asdict(timed), *trained_lines(timed))
        return
    if model == CONTENT_NAME:
        usual = (family, split, attribution, tune) == ("all", "time", ATTRIBUTIONS[0], 0)
        train_contents(edge, lineage(source_root()), days(horizon), moment(until, "--until"), seed, entities, usual)
        return
    rows = None if entities is None else read_entities(entities)
    order = Order(model, family, rows, days(horizon), moment(until, "--until"), seed, split, attribution, tune)
    build = edge.home.build()
    if rows is not None:
        check_eligible(rows, build.catalog)
    if family == SEQUENCE_NAME:
        train_sequences(edge, order, lineage(source_root()))
        return
    store = RowStore.beside(build)
    trained = train_model(order, build, Tracking(edge.tracking_uri), lineage(source_root()), edge.terminal, store=store)
    edge.answer(asdict(trained), *trained_lines(trained))


@click.argument("model", type=click.Choice((*MODEL_NAMES, CONTENT_NAME)))
@click.option("--entities", type=Path, required=True, help="Who, as of when, and among what (Parquet or CSV).")
@click.option("--out", type=Path, required=True, help="Parquet file to write.")
@click.option("--model", "reference", default=LATEST, show_default=True, metavar="ALIAS_OR_RUN",
              help="latest (the version trained last), another alias (champion), a version or a run id.")  # fmt: skip
def score(edge: Edge, model: str, entities: Path, out: Path, reference: str) -> None:
    """Score every entity with MODEL: ranked candidates with calibrated probabilities, or it says that they are none."""
    from serving.batch import check_eligible, check_fits, read_entities
    from serving.batch_file import origin_of, score_file
    from serving.registry import CHAMPION, resolve
    from training.track import CHALLENGER

    build = edge.home.build()
    rows = read_entities(entities)
    check_eligible(rows, build.catalog)
    newest, champion = (registered(edge, model, alias) for alias in (CHALLENGER, CHAMPION))
    if reference == LATEST:
        reference = CHAMPION if newest is None else CHALLENGER  # versions of old have no challenger
    if model == CONTENT_NAME:
        score_contents(edge, entities, out, reference, champion)
        return
    if len(reference) == RUN_ID_LENGTH and scored_by_sequence(edge, model, reference, rows, out):
        return
    loaded = resolve(model, reference, edge.tracking_uri)
    check_fits(build, loaded.model)
    calibration = loaded.model.calibration
    lines = score_file(build, loaded.model, rows, out, origin_of(loaded, entities), edge.terminal)
    used = {"version": loaded.version, "run_id": loaded.run_id, "champion_version": champion}
    told = f"{out}: {lines:,} lines for {len(rows):,} entities, by version {loaded.version} of {model}"
    if champion != loaded.version:
        told += f", which is not the champion ({'none yet' if champion is None else f'version {champion}'})"
    result = {"out": str(out), "entities": len(rows), "rows": lines, "scores": calibration.scale, **used}
    edge.answer(result, *filter(None, (told, calibration.note(model))))


def registered(edge: Edge, model: str, alias: str) -> str | None:
    """The version that an alias names; None where it names none. Nothing is created."""
    from features.errors import NoSuchModel
    from serving.registry import Registry

    try:
        return Registry(edge.tracking_uri).find(model, alias).version
    except NoSuchModel:
        return None


def days(horizon: float | None) -> float | None:
    if horizon is not None and not 0 < horizon <= 3650:
        raise InputError(f"--horizon must lie above 0 and up to 3650 days, however it is {horizon}")
    return horizon


def source_root() -> Path:
    """Where this code lies: its commit and lock file go with each run."""
    return Path(__file__).resolve().parents[2]

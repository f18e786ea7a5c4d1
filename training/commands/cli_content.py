"""What `nextbest train` and `nextbest score` do for content-choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from features.errors import InputError
from training.edge import Edge

if TYPE_CHECKING:
    from datetime import datetime

CONTENT_NAME = "content-choice"


def train_contents(
    edge: Edge,
    tags: Mapping[str, str],
    horizon: float | None,
    until: datetime | None,
    seed: int,
    entities: Path | None,
    usual: bool,
) -> None:
    """Train and tell; usual: no option was given that this model does not take."""
    if not usual:
        raise InputError(
            f"{CONTENT_NAME} chooses its own family and split; it takes --entities, --horizon, --until and --seed only"
        )
    from serving.batch import read_entities
    from training.content.train_content import train_content
    from training.plan import Order
    from training.report import trained_lines
    from training.track import Tracking

    rows = None if entities is None else read_entities(entities)
    order = Order(CONTENT_NAME, "all", rows, horizon, until, seed)
    trained = train_content(order, edge.home.build(), Tracking(edge.tracking_uri), tags, edge.terminal)
    edge.answer(asdict(trained), *trained_lines(trained))


def score_contents(edge: Edge, entities: Path, out: Path, reference: str, champion: str | None) -> None:
    """Score every entity with every content and no contact; champion: the version that has that alias, if one does."""
    from serving.batch import check_eligible, read_entities, write_scores
    from serving.content_batch import check_content_fits, content_blocks
    from serving.content_model import resolve_content

    build = edge.home.build()
    rows = read_entities(entities)
    check_eligible(rows, build.catalog)
    loaded = resolve_content(reference, edge.tracking_uri)
    check_content_fits(build, loaded.model)
    lines = write_scores(content_blocks(build, loaded.model, rows, edge.terminal), out)
    result = {"out": str(out), "entities": len(rows), "rows": lines, "version": loaded.version, "run_id": loaded.run_id}
    family = "the same order for everybody" if loaded.model.booster is None else "by customer"
    told = (
        f"{out}: {lines:,} lines for {len(rows):,} entities, by version {loaded.version} of {CONTENT_NAME} ({family})"
    )
    if champion != loaded.version:
        told += f", which is not the champion ({'none yet' if champion is None else f'version {champion}'})"
    edge.answer({**result, "champion_version": champion, "family": loaded.model.family}, told)

"""The champions that monitoring watches: what they were judged on, and how far today's rows and scores lie from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from features.errors import ArtefactError, InputError
from features.schema import Float64, Rows
from serving.choice import ChoiceModel
from serving.eligibility import contactable, rankable
from serving.registry import CHAMPION, resolve
from training.finished import FinishedRun
from training.monitoring import reference
from training.monitoring.drift import Drift, drifts
from training.monitoring.reference import Reference
from training.monitoring.served_log import Decided, newest_of_each, rows_of
from training.plan import CHANNEL_CHOICE, NEXT_BEST_PRODUCT
from training.track import MODEL_FOLDER, Tracking

if TYPE_CHECKING:
    from features.home import Build


WATCHED = (NEXT_BEST_PRODUCT, CHANNEL_CHOICE)


@dataclass(frozen=True)
class Watched:
    """A champion that rows are compared for. model: as it was judged, before any refit gave way to a prior."""

    version: str
    run_id: str
    model: ChoiceModel
    reference: Reference


def champions(tracking_uri: str) -> tuple[dict[str, Watched], dict[str, str]]:
    """The champions with their references; model → why there is none to compare with."""
    found, missing = {}, {}
    for name in WATCHED:
        try:
            loaded = resolve(name, CHAMPION, tracking_uri)
            run = FinishedRun.open(Tracking(tracking_uri), loaded.run_id)
            # A champion may be the prior of its run; the reference is of what the run was made for.
            model = ChoiceModel.load(run.artefact(MODEL_FOLDER))
            kept = Reference.load(run.artefact(f"{reference.FOLDER}/{reference.FILE}"))
            found[name] = Watched(loaded.version, loaded.run_id, model, kept)
        except (ArtefactError, InputError) as error:
            missing[name] = str(error)
    return found, missing


def drift_of(
    recent: Sequence[Decided], build: Build, watched: Mapping[str, Watched]
) -> tuple[dict[str, Sequence[Drift]], dict[str, str]]:
    """Per model its columns and scores, a row per customer; what could not be read → why."""
    found: dict[str, Sequence[Drift]] = {}
    unreadable: dict[str, str] = {}
    for name, one in watched.items():
        sent = one.model.question.link == "each"  # it learned from messages, each on the channel that was used
        about = newest_of_each([each for each in recent if each.action[1] is not None or not sent])
        served = rows_of(about, build.views, one.model.row_schema)
        unreadable |= {f"{count} decisions": why for why, count in served.unreadable.items()}
        if not len(served.rows):
            unreadable[name] = "no decision has a row that can be built again"
            continue
        used = [about[place].action[1] for place in served.of.tolist()] if sent else None
        said = scores_of(one.model, served.rows, build, used)
        found[name] = drifts(one.reference, served.rows, said, one.model.question)
    return found, unreadable


def scores_of(model: ChoiceModel, rows: Rows, build: Build, used: Sequence[str | None] | None = None) -> Float64:
    """Float64 [n, m]: what the model says, NaN where a product is held, or a channel not consented to.

    used: [n]; where given, only the candidate that was used has a score.
    """
    question, catalog = model.question, build.catalog
    if not len(rows):
        return np.empty((0, len(question.candidates)))
    if used is not None:
        available = np.array([[name == one for name in question.candidates] for one in used], dtype=np.bool_)
        return model.probabilities(rows, available.reshape(len(rows), len(question.candidates)))
    product = question.block == "product"
    allowed = rankable(rows, catalog, [None] * len(rows)) if product else contactable(rows.opted_out, catalog, None)
    names = catalog.product_ids if product else catalog.channel_ids
    places = [names.index(candidate) for candidate in question.candidates]
    return model.probabilities(rows, allowed[:, places])

"""Batch scoring of contents: a file of entities in, every content and no contact with their expected reward out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from features.assemble import assemble, row_schema
from features.columns import AS_OF, CUSTOMER_ID, ELIGIBLE
from features.errors import ArtefactError
from features.history import history
from features.progress import SILENT, Progress
from features.schema import Float64
from serving.batch import RANK, SCORE, check_eligible
from serving.content_model import CONTENT_MODEL, ContentModel, unfit

if TYPE_CHECKING:
    from features.home import Build

BLOCK = 20_000
"""Entities scored at once: each has a line per content."""
CONTENT_ID = "content_id"


def check_content_fits(build: Build, model: ContentModel) -> None:
    """ArtefactError when the model was trained on another bank's contents, products, channels or attributes."""
    reason = unfit(model, row_schema(build.bank), build.catalog)
    if reason is not None:
        raise ArtefactError(f"{CONTENT_MODEL} cannot score with these features: it was {reason}")


def content_blocks(
    build: Build, model: ContentModel, entities: pd.DataFrame, progress: Progress = SILENT, block: int = BLOCK
) -> Iterator[pd.DataFrame]:
    """Scores of consecutive blocks of entities, in their order, best first.

    Columns: customer_id, as_of, content_id (None = no contact), score (expected reward per decision, in the model's
    unit), rank (1 = best). Every content of the catalogue is there, and no contact.
    """
    check_eligible(entities, build.catalog)
    with progress.step(f"score {len(entities)} entities", len(entities)) as advance:
        for start in range(0, max(len(entities), 1), block):
            part = entities.iloc[start : start + block].reset_index(drop=True)
            as_of = np.asarray(part[AS_OF].astype("datetime64[us, UTC]").astype("int64"), dtype=np.float64) / 1e6
            rows = assemble(history(build, part[[CUSTOMER_ID, AS_OF]]), as_of, model.row_schema)
            eligible = list(part[ELIGIBLE]) if ELIGIBLE in part else None
            yield frame_of(part, model, model.rewards(rows, model.available(rows, build.catalog, eligible)))
            advance(len(part))


def frame_of(entities: pd.DataFrame, model: ContentModel, rewards: Float64) -> pd.DataFrame:
    """One line per entity and arm, best first; rewards: float64 [n, K + 1], no contact last, which wins ties."""
    n, count = rewards.shape
    order = count - 1 - np.argsort(-rewards[:, ::-1], axis=1, kind="stable")  # [n, K + 1]
    names = np.array([*model.arms.contents, None], dtype=object)
    return pd.DataFrame(
        {
            CUSTOMER_ID: np.repeat(entities[CUSTOMER_ID].to_numpy(dtype=object), count),
            AS_OF: entities[AS_OF].array[np.repeat(np.arange(n), count)],
            CONTENT_ID: names[order].ravel(),
            SCORE: np.take_along_axis(rewards, order, axis=1).ravel(),
            RANK: np.tile(np.arange(1, count + 1, dtype=np.int32), n),
        }
    )

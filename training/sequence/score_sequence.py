"""Batch scoring by a sequence model: the same lines as those of `nextbest score`, from histories as of each moment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from features.columns import CUSTOMER_ID
from features.progress import SILENT, Progress
from serving.batch import BLOCK, allowed, check_eligible, check_fits, ranked
from training.dataset import rows_at
from training.sequence.sequence_model import SequenceModel
from training.sequence.tokens import Tokens
from training.spine import moments

if TYPE_CHECKING:
    from features.home import Build


def score_sequences(
    build: Build, model: SequenceModel, entities: pd.DataFrame, progress: Progress = SILENT, block: int = BLOCK
) -> Iterator[pd.DataFrame]:
    """Scores of consecutive blocks of entities, in their order, best candidate first: columns of `score_blocks`.

    entities: columns customer_id, as_of and, where given, eligible. Raises InputError, ArtefactError.
    """
    check_eligible(entities, build.catalog)
    tokens = Tokens.of(build.bank)
    with progress.step(f"score {len(entities)} entities", len(entities)) as advance:
        for start in range(0, max(len(entities), 1), block):
            part = entities.iloc[start : start + block].reset_index(drop=True)
            customer_id, as_of = part[CUSTOMER_ID].to_numpy(dtype=object), moments(part)
            rows = rows_at(build, customer_id, as_of, model.row_schema)
            answered = model.answers(tokens, customer_id, as_of, rows)
            check_fits(build, answered)
            yield ranked(answered, part, answered.probabilities(rows, allowed(answered, rows, build.catalog, part)))
            advance(len(part))

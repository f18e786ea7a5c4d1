"""What models said of the rows they are judged on, kept with the run: what two runs are compared by, row by row.

The chosen family is judged before it is fitted again on everything, so these are honest: no model here has seen them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from features.columns import AS_OF, CUSTOMER_ID
from features.errors import ArtefactError
from features.schema import Bool, Float64, Int64, Texts
from serving.question import Question

if TYPE_CHECKING:
    from training.dataset import Dataset

FOLDER = "predictions"
FILE = "test.parquet"
MODEL = "model"
"""The family that was registered, as it was when judged."""
CHAMPION = "champion"
"""The champion of that time, NaN in rows that it may have learned from; absent where it cannot read the rows."""
_MASKS = ("outside", "judged_for_ranking", "judged_for_probability")
_PROBABILITY, _SLICE, _QUESTION = "probability.", "slice.", b"nextbest.question"


@dataclass(frozen=True)
class Predictions:
    """n rows, m candidates. as_of: int64 [n], µs. available, taken: bool [n, m]. outside: bool [n], "nothing" could be.

    judged_for_ranking, judged_for_probability: bool [n]. probabilities: name → float64 [n, m], calibrated, NaN where
    not available; MODEL is always there, others are what it is measured against. slices: name → [n] group of each row.
    """

    question: Question
    customer_id: Texts
    as_of: Int64
    available: Bool
    taken: Bool
    outside: Bool
    judged_for_ranking: Bool
    judged_for_probability: Bool
    probabilities: Mapping[str, Float64]
    slices: Mapping[str, Texts]

    @classmethod
    def of(cls, data: Dataset, probabilities: Mapping[str, Float64], slices: Mapping[str, Texts]) -> Predictions:
        return cls(
            data.question,
            data.customer_id,
            data.spine.as_of,
            data.available,
            data.taken,
            data.spine.outside,
            data.judged_for_ranking,
            data.judged_for_probability,
            probabilities,
            slices,
        )

    def __len__(self) -> int:
        return len(self.customer_id)

    def take(self, index: Int64 | Bool) -> Predictions:
        return replace(
            self,
            customer_id=self.customer_id[index],
            as_of=self.as_of[index],
            available=self.available[index],
            taken=self.taken[index],
            outside=self.outside[index],
            judged_for_ranking=self.judged_for_ranking[index],
            judged_for_probability=self.judged_for_probability[index],
            probabilities={name: values[index] for name, values in self.probabilities.items()},
            slices={name: values[index] for name, values in self.slices.items()},
        )

    def shared_with(self, other: Predictions) -> tuple[Int64, Int64]:
        """Positions here and there, int64 [k] each, of the rows about the same customer and moment, in order here.

        Several rows of one customer and moment are matched in their order.
        """
        here, there = self._keys(), other._keys()
        both = here.merge(there, on=[CUSTOMER_ID, AS_OF, "turn"], suffixes=("_here", "_there"), sort=False)
        both = both.sort_values("place_here", kind="stable")
        return both["place_here"].to_numpy(np.int64), both["place_there"].to_numpy(np.int64)

    def _keys(self) -> pd.DataFrame:
        keys = pd.DataFrame({CUSTOMER_ID: self.customer_id.astype(str), AS_OF: self.as_of})
        keys["turn"] = keys.groupby([CUSTOMER_ID, AS_OF], sort=False).cumcount()
        return keys.assign(place=np.arange(len(self)))

    def save(self, path: Path) -> None:
        """Write one Parquet file; matrices are lists in the order of the question's candidates."""
        columns: dict[str, pa.Array] = {
            CUSTOMER_ID: pa.array(self.customer_id, pa.string()),
            AS_OF: pa.array(self.as_of, pa.int64()).cast(pa.timestamp("us", "UTC")),
            "available": _listed(self.available, pa.bool_()),
            "taken": _listed(self.taken, pa.bool_()),
            **{name: pa.array(getattr(self, name), pa.bool_()) for name in _MASKS},
            **{f"{_PROBABILITY}{name}": _listed(values, pa.float64()) for name, values in self.probabilities.items()},
            **{f"{_SLICE}{name}": pa.array(values, pa.string()) for name, values in self.slices.items()},
        }
        table = pa.table(columns).replace_schema_metadata({_QUESTION: self.question.to_json()})
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, compression="zstd")

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what `save` wrote; ArtefactError where it is missing or damaged."""
        try:
            table = pq.read_table(path)
            question = Question.from_json((table.schema.metadata or {})[_QUESTION].decode())
            width = len(question.candidates)

            def matrix(name: str) -> Any:
                return table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)

            def named(prefix: str) -> list[str]:
                return [name for name in table.column_names if name.startswith(prefix)]

            return cls(
                question=question,
                customer_id=table[CUSTOMER_ID].to_numpy().astype(object),
                as_of=table[AS_OF].cast(pa.int64()).to_numpy(),
                available=np.asarray(matrix("available"), np.bool_),
                taken=np.asarray(matrix("taken"), np.bool_),
                **{name: table[name].to_numpy().astype(np.bool_) for name in _MASKS},
                probabilities={
                    name.removeprefix(_PROBABILITY): np.asarray(matrix(name), np.float64)
                    for name in named(_PROBABILITY)
                },
                slices={name.removeprefix(_SLICE): table[name].to_numpy().astype(object) for name in named(_SLICE)},
            )
        except (OSError, KeyError, TypeError, ValueError, json.JSONDecodeError, pa.ArrowInvalid) as error:
            raise ArtefactError(f"{path} holds no predictions that can be read: {error!r}; train again") from error


def _listed(values: Bool | Float64, kind: pa.DataType) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).ravel(), kind), values.shape[1])

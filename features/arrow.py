"""Arrow columns and kernels as this package uses them, in one place because the type stubs know few of the kernels.

A column is a chunked array of n values. Nothing here copies more than it must.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

from features.schema import Bool

Column: TypeAlias = "pa.ChunkedArray[Any]"

kernels: Any = pyarrow.compute
"""Arrow's compute functions. Untyped: the stubs take a chunked array of bool for a scalar, a filter for an error."""


def mask_of(kept: Column) -> Bool:
    """A bool column [n] as NumPy; null counts as False."""
    return np.asarray(kernels.fill_null(kept, False).to_numpy(), dtype=np.bool_)


def column_of(values: npt.NDArray[Any]) -> Column:
    """A NumPy array [n] as a column."""
    return pa.chunked_array([pa.array(values)])


def table_of(columns: Mapping[str, Column]) -> pa.Table:
    """A table of columns of one length."""
    return pa.Table.from_arrays(list(columns.values()), names=list(columns))


def take(table: pa.Table, rows: npt.NDArray[np.int64]) -> pa.Table:
    """The rows of `table` at `rows` [k], in that order."""
    return table.take(pa.array(rows, pa.int64()))

"""Back-off counts: the prior, corrected key after key by how much more often than expected an option was chosen.

    u[i, j] = prior[j] + sum over keys of table_key[group of row i, j]

Each table holds ln((W + s) / (E + s)): W choices of an option counted in a group of rows, E as many as expected from
what came before, s the key's strength (DuMouchel 1999, "Bayesian data mining in large frequency tables", The American
Statistician 53, has this gamma-Poisson ratio). A group with little evidence adds nothing: it backs off to its coarser
keys, and in the end to the prior.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from safetensors.numpy import load_file, save_file

from features.errors import ArtefactError
from features.schema import Float32, Rows
from serving.count_keys import MOST_MEMBERS, Key
from serving.scorers import Layout, check_finite, read_scorer_file, write_scorer_file


class CountsScorer:
    """The prior plus what each key's table says. tables: float32 of `Key.shape`, one per key."""

    family: ClassVar[str] = "counts"
    file: ClassVar[str] = "tables.safetensors"

    def __init__(self, layout: Layout, prior: Float32, keys: Sequence[Key], tables: Sequence[Float32]) -> None:
        self.layout = layout
        self.prior = prior
        self.keys = tuple(keys)
        self.tables = tuple(tables)

    def utilities(self, rows: Rows) -> Float32:
        """Log-utilities, float32 [n, m + 1], the outside option last."""
        customer, candidates = self.layout.customer(rows), self.layout.candidates(rows)
        utilities = np.tile(self.prior, (len(rows), 1))
        for key, table in zip(self.keys, self.tables, strict=True):
            utilities += key.looked_up(table, key.codes(customer, candidates))
        return utilities

    def save(self, folder: Path) -> None:
        config = {"keys": [key.to_dict() for key in self.keys]}
        write_scorer_file(folder, self.family, self.layout, self.prior, config)
        named = {f"{number:03d}": np.ascontiguousarray(table) for number, table in enumerate(self.tables)}
        save_file(named, folder / self.file)

    @classmethod
    def load(cls, folder: Path) -> CountsScorer:
        """Verify the files first (`ChoiceModel.load` does)."""
        layout, prior, config = read_scorer_file(folder, cls.family)
        keys = tuple(Key.from_dict(raw) for raw in config["keys"])
        named = load_file(folder / cls.file)
        tables = tuple(named[name] for name in sorted(named))
        shapes = [key.shape(len(layout.positions)) for key in keys]
        if [table.shape for table in tables] != shapes:
            raise ArtefactError(
                f"the tables of {cls.file} have the shapes of their keys, {shapes}, however they are "
                f"{[table.shape for table in tables]}; train again"
            )
        for key, table in zip(keys, tables, strict=True):
            check_finite("counts", table)
            check_columns(key, layout)
        return cls(layout, prior, keys, tables)


def check_columns(key: Key, layout: Layout) -> None:
    """ArtefactError unless every fact of a key looks at columns that the rows have."""
    for fact in key.facts:
        width = len(layout.candidate_names if fact.kind == "own" else layout.customer_names)
        if not fact.columns or min(fact.columns) < 0 or max(fact.columns) >= width:
            raise ArtefactError(
                f"a {fact.kind} fact looks at columns 0..{width - 1}, however it names {fact.columns}; train again"
            )
        inside = all(0 <= one < len(fact.columns) for pattern in fact.patterns for one in pattern)
        if fact.kind == "pattern" and not (fact.patterns and inside and len(fact.columns) <= MOST_MEMBERS):
            raise ArtefactError(
                f"patterns are sets of at most {MOST_MEMBERS} columns, however some are not; train again"
            )
        if fact.kind in ("share", "place") and len(fact.columns) != len(layout.positions):
            raise ArtefactError(
                f"a {fact.kind} fact has a column per candidate, however {len(fact.columns)} are not "
                f"{len(layout.positions)}; train again"
            )

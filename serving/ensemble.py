"""An ensemble: several scorers whose log-utilities are averaged with equal weights.

The mean of utilities is, up to a constant of the row, the mean of the members' log-probabilities, whatever is
available: one masked softmax over it gives their geometric mean, normalised (a logarithmic opinion pool; Genest and
Zidek 1986, "Combining probability distributions", Statistical Science 1). A mean of probabilities would have to be
made anew for every set of available options. Weights are equal: tuned ones lose to them on small data.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from features.errors import ArtefactError
from features.schema import Float32, Rows
from serving.choice import Scorer, load_scorer
from serving.compiled import Compiled
from serving.scorers import Layout, read_scorer_file, write_scorer_file


class EnsembleScorer:
    """Members of one layout, each of another family; a family's name is the folder of its files."""

    family: ClassVar[str] = "ensemble"

    def __init__(self, layout: Layout, prior: Float32, members: Sequence[Scorer]) -> None:
        names = [member.family for member in members]
        if not members or len(set(names)) != len(names) or self.family in names:
            raise ValueError(f"members are at least one, each of another family, however they are {names}")
        self.layout = layout
        self.prior = prior
        self.members = tuple(members)

    def utilities(self, rows: Rows) -> Float32:
        """Log-utilities, float32 [n, m + 1], the outside option last: the members' mean.

        Where a member's is not finite, neither is the mean: the candidate is dropped and counted, as it would be by
        that member alone.
        """
        total = np.zeros((len(rows), len(self.layout.positions) + 1))
        for member in self.members:
            total += member.utilities(rows)
        return (total / len(self.members)).astype(np.float32)

    @property
    def uncompiled(self) -> str:
        reasons = ((one.family, one.uncompiled) for one in self.members if isinstance(one, Compiled))
        return "; ".join(f"{family}: {reason}" for family, reason in reasons if reason)

    def check_compiled(self, rows: Rows) -> None:
        """Every member's own."""
        for member in self.members:
            if isinstance(member, Compiled):
                member.check_compiled(rows)

    def save(self, folder: Path) -> None:
        names = [member.family for member in self.members]
        write_scorer_file(folder, self.family, self.layout, self.prior, {"members": names})
        for member in self.members:
            (folder / member.family).mkdir()
            member.save(folder / member.family)

    @classmethod
    def load(cls, folder: Path) -> EnsembleScorer:
        """Verify the files first (`ChoiceModel.load` does)."""
        layout, prior, config = read_scorer_file(folder, cls.family)
        members = []
        for name in config["members"]:
            if not (isinstance(name, str) and name.isalpha()) or name == cls.family:
                raise ArtefactError(f"members are families other than {cls.family}, however {name!r} is one")
            member = load_scorer(folder / name)
            inner: Layout | None = getattr(member, "layout", None)
            if member.family != name or inner != layout:
                raise ArtefactError(f"the member in {name}/ should be of that family and of the same rows; train again")
            members.append(member)
        return cls(layout, prior, members)

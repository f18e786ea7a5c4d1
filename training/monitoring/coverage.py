"""Coverage: how much of the catalogue do served decisions use, and how evenly?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from features.catalog import Catalog
from training.breadth import gini
from training.monitoring.served_log import Decided

PRODUCTS, CHANNELS, CONTENTS = "products", "channels", "contents"


@dataclass(frozen=True)
class Coverage:
    """One part of the catalogue. counts: id → contacts, most used first; those that no contact used are 0.

    exposure_gini: 0 = all alike, towards 1 = always the same; NaN where nobody was contacted.
    """

    part: str
    counts: Mapping[str, int]
    exposure_gini: float

    @property
    def used(self) -> int:
        return sum(count > 0 for count in self.counts.values())

    @property
    def share(self) -> float:
        return self.used / len(self.counts) if self.counts else float("nan")

    @property
    def unused(self) -> tuple[str, ...]:
        return tuple(name for name, count in self.counts.items() if not count)


def coverage(found: Sequence[Decided], catalog: Catalog) -> tuple[Coverage, ...]:
    """Of products, outbound channels and contents, over the contacts among these decisions."""
    parts = {
        PRODUCTS: catalog.product_ids,
        CHANNELS: tuple(channel.id for channel in catalog.channels if channel.outbound),
        CONTENTS: tuple(content.id for content in catalog.contents),
    }
    covered = []
    for place, (part, names) in enumerate(parts.items()):
        used = Counter(one.action[place] for one in found)
        counts = {name: used[name] for name in sorted(names, key=lambda name: -used[name])}
        amounts = np.array(list(counts.values()), dtype=np.float64)
        covered.append(Coverage(part, counts, gini(amounts) if amounts.any() else float("nan")))
    return tuple(covered)

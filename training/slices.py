"""Groups of customers in which a model is looked at apart: segment, age, region, and those of whom little is known.

Every text attribute with few values is a slice, every number that tells an age or a tenure is one in bands, and the
history that a customer has is one. A slice is cut from the model's own rows, so it is what was known at the moment.
"""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np

from features.schema import Float64, Rows, Texts

MOST_GROUPS = 12
BANDS = 4
UNKNOWN = "unknown"
HISTORY = "history"
_AGES = re.compile(r"(?:^|_|\b)(age|birth|born|tenure|since|joined|opened|years)(?:$|_|\b)", re.IGNORECASE)


def slices(rows: Rows) -> dict[str, Texts]:
    """Slice → group of each row, [n] texts; every slice has two groups or more."""
    found = _of_texts(rows)
    names = rows.schema.customer_names
    for attribute in rows.schema.attributes:
        column = f"{attribute.name} (years ago)" if attribute.kind == "date" else attribute.name
        if attribute.kind in ("number", "date") and _AGES.search(attribute.name) and column in names:
            found[attribute.name] = bands(rows.customer[:, names.index(column)].astype(np.float64))
    found[HISTORY] = np.where(rows.held.any(axis=1), "holds something", "holds nothing").astype(object)
    return {name: groups for name, groups in found.items() if len(set(groups.tolist())) > 1}


def _of_texts(rows: Rows) -> dict[str, Texts]:
    names = rows.schema.customer_names
    found = {}
    for attribute, words in rows.schema.vocabularies:
        if not 2 <= len(words) <= MOST_GROUPS:
            continue
        groups = np.full(len(rows), UNKNOWN, dtype=object)
        for word in words:
            groups[rows.customer[:, names.index(f"{attribute} = {word}")] == 1.0] = word
        found[attribute] = groups
    return found


def bands(values: Float64, count: int = BANDS) -> Texts:
    """Groups of about equal size by value, named by their bounds; NaN is its own. values: float64 [n]."""
    known = values[~np.isnan(values)]
    groups = np.full(len(values), UNKNOWN, dtype=object)
    if not len(known):
        return groups
    borders = np.unique(np.quantile(known, np.linspace(0, 1, count + 1)[1:-1]))
    texts = [f"below {borders[0]:.4g}"]
    texts += [f"{low:.4g} to {high:.4g}" for low, high in pairwise(borders)]
    texts.append(f"{borders[-1]:.4g} and more")
    place = np.searchsorted(borders, values, side="right")
    groups[~np.isnan(values)] = np.array(texts, dtype=object)[place[~np.isnan(values)]]
    return groups

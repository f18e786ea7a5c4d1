"""Which facts rows offer to be counted by: found by what columns look like and are called, for any bank's tables."""

from __future__ import annotations

from collections import Counter

import numpy as np

from features.schema import Bool, Float32, RowSchema
from serving.count_keys import MOST_MEMBERS, Fact, Kind, aligned, as_number, per_member, shares
from serving.question import Block
from serving.scorers import Layout
from training.examples import Examples

BINS = 8
"""Bins of equal mass of a number."""
PATTERNS = 48
"""Most frequent sets of held products (or the like) that have a code of their own."""
FEWEST_IN_PATTERN = 20
BINNED_ON = 50_000
"""Rows, evenly spaced, from which the bins are taken."""


def facts_of(layout: Layout, examples: Examples) -> list[Fact]:
    """All facts that may become keys; only what was available is looked at."""
    some = examples.take(slice(None, None, -(-len(examples) // BINNED_ON)))
    customer, candidates = layout.customer(some.rows), layout.candidates(some.rows)
    available = some.available[:, :-1]
    found = _words(layout, examples.rows.schema)
    in_words = {column for fact in found for column in fact.columns}
    found += _of_members(layout, examples.rows.schema, customer, available)
    for column in range(customer.shape[1]):
        if column not in in_words:
            found += _numbers("bins", (column,), customer[:, column])
    for column in range(candidates.shape[2]):
        found += _numbers("own", (column,), candidates[:, :, column][available])
    return found


def _words(layout: Layout, schema: RowSchema) -> list[Fact]:
    """A text attribute's columns are one fact."""
    place = {name: position for position, name in enumerate(layout.customer_names)}
    groups = [[f"{name} = {word}" for word in words] for name, words in schema.vocabularies]
    return [
        Fact("word", tuple(place[name] for name in group))
        for group in groups
        if group and all(name in place for name in group)
    ]


def _of_members(layout: Layout, schema: RowSchema, customer: Float32, available: Bool) -> list[Fact]:
    """What the customer block tells of all products, or all channels: the greatest, the least, the set, the own."""
    found: list[Fact] = []
    blocks: tuple[tuple[Block, tuple[str, ...]], ...] = (("product", schema.products), ("channel", schema.channels))
    for block, members in blocks:
        if len(members) < 2:
            continue
        for columns in per_member(layout.customer_names, members).values():
            values = customer[:, list(columns)]
            found += [Fact("most", columns), Fact("least", columns)]
            patterns = _patterns(values)
            found += [Fact("pattern", columns, patterns=patterns)] if patterns else []
            own = aligned(columns, block, layout)
            if own:
                found.append(Fact("place", own))
                found += _numbers("share", own, shares(customer[:, list(own)])[available])
    return found


def _patterns(values: Float32) -> tuple[tuple[int, ...], ...]:
    """The frequent sets of columns above 0; none where most rows have a set of their own."""
    if values.shape[1] > MOST_MEMBERS:
        return ()
    _, first, count = np.unique(as_number(values > 0), return_index=True, return_counts=True)
    order = np.argsort(-count, kind="stable")[:PATTERNS]
    order = order[count[order] >= FEWEST_IN_PATTERN]
    if len(order) < 2 or count[order].sum() < len(values) / 2:
        return ()
    return tuple(tuple(np.flatnonzero(values[first[one]] > 0).tolist()) for one in order)


def _numbers(kind: Kind, columns: tuple[int, ...], values: Float32) -> list[Fact]:
    """The fact of a number in bins; none where it never differs."""
    known = values[~np.isnan(values)]
    if not len(known):
        return []
    edges = np.unique(np.quantile(known.astype(np.float64), np.arange(BINS) / BINS, method="lower"))
    if len(edges) == 1 and (known == known[0]).all() and len(known) == values.size:
        return []
    return [Fact(kind, columns, tuple(float(edge) for edge in edges))]


def told(keys: list[str]) -> str:
    """Keys in words, each once, as often as it was used."""
    return "; ".join(name if count == 1 else f"{name} x{count}" for name, count in Counter(keys).items())

"""Which contents may be sent to whom, for many customers at once: what batch scoring of contents knows of the rules.

Product (held, eligible), language, consent and declared reach are known from the rows. Caps, quiet hours and the other
policies depend on the moment of sending and are asked when a decision is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from features.catalog import Catalog
from features.policies import ReachRule
from features.policy_file import declared
from features.schema import Bool, Int64, Rows
from serving.content import Contents
from serving.eligibility import contactable, rankable

LANGUAGE = "language"
"""The attribute that says which language a customer reads."""


def products_of(catalog: Catalog) -> Int64:
    """int64 [K]: the position of the product that each content is about, -1 for none."""
    place = {product: position for position, product in enumerate(catalog.product_ids)}
    return np.array([place.get(content.product_id or "", -1) for content in catalog.contents], dtype=np.int64)


def sendable(rows: Rows, catalog: Catalog, eligible: Sequence[frozenset[str] | None] | None = None) -> Bool:
    """bool [n, K]: contents of the catalogue that a customer may get on some channel.

    Its product may be offered, the language is the one that serving would choose, and an outbound channel for it
    reaches the customer, who did not opt out of it. Without an attribute `language` all languages are the same.
    """
    who = [None] * len(rows) if eligible is None else list(eligible)
    offered = np.concatenate([rankable(rows, catalog, who), np.ones((len(rows), 1), np.bool_)], axis=1)
    may = offered[:, products_of(catalog)]  # -1 is the last column: true
    fits = np.array(
        [[content.channel in (None, channel) for content in catalog.contents] for channel in catalog.channel_ids]
    ).reshape(len(catalog.channels), len(catalog.contents))
    open_ = contactable(rows.opted_out, catalog, None) & reached(rows, catalog)
    return np.asarray(may & (open_ @ fits) & understood(rows, catalog))


def reached(rows: Rows, catalog: Catalog) -> Bool:
    """bool [n, H]: channels whose declared address attribute, where it is a flag or a number, is there and not 0."""
    found = np.ones((len(rows), len(catalog.channels)), np.bool_)
    names = rows.schema.customer_names
    for rule in declared(catalog):
        if isinstance(rule, ReachRule) and rule.attribute in names:
            known = rows.customer[:, names.index(rule.attribute)]
            there = np.isfinite(known) & (known != 0)
            about = np.array([rule.target.channel(channel) for channel in catalog.channels], dtype=np.bool_)
            found &= there[:, None] | ~about
    return found


def understood(rows: Rows, catalog: Catalog) -> Bool:
    """bool [n, K]: contents in the language that serving would choose for the customer."""
    words: Mapping[str, tuple[str, ...]] = dict(rows.schema.vocabularies)
    if not words.get(LANGUAGE):
        return np.ones((len(rows), len(catalog.contents)), np.bool_)
    spoken = _spoken(catalog, (*words[LANGUAGE], None))  # [languages + 1, K]
    columns = [rows.schema.customer_names.index(f"{LANGUAGE} = {word}") for word in words[LANGUAGE]]
    reads = np.nan_to_num(rows.customer[:, columns]) > 0.5  # [n, languages]
    return np.asarray(spoken[np.where(reads.any(axis=1), reads.argmax(axis=1), len(columns))])


def _spoken(catalog: Catalog, languages: Sequence[str | None]) -> Bool:
    """bool [languages, K]: contents that serving would send to a customer of that language on some channel."""
    known = Contents(catalog)
    place = {content.id: position for position, content in enumerate(catalog.contents)}
    found = np.zeros((len(languages), len(place)), np.bool_)
    for row, language in enumerate(languages):
        for channel in catalog.channels:
            for product in (None, *catalog.products):
                for content in known.matching(product, channel, language):
                    found[row, place[content.id]] = True
    return found

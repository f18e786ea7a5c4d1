"""The consent view: on which channels and for which purposes a customer said no and when, and their last complaint."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa

from features.catalog import Catalog
from features.columns import Kind, Purpose
from features.folds import DAY, slugs
from features.importing import Bank
from features.joins import Layout
from features.row_plan import Part, Source
from features.schema import Bool, Column, State, View
from features.touches import Folding, Occurrence, Touch, fold_timeline

NAME = "consent"
TTL = timedelta(days=36_500)
PURPOSES = (Purpose.MARKETING, Purpose.SERVICE)
"""Mandatory messages know no opt-out."""
SAID = {Kind.OPTED_OUT: 1.0, Kind.OPTED_IN: 0.0}
"""1 = refused, 0 = agreed. The newest word counts, and of an opt-in and an opt-out at one moment the larger."""
CUSTOMER_NAMES = ("days since complaint",)


def view(catalog: Catalog) -> View:
    said = [
        f"{channel}__{purpose}_{part}"
        for channel in slugs(catalog.channel_ids)
        for purpose in PURPOSES
        for part in ("said_at", "refused")
    ]
    return View(NAME, "customer", TTL, tuple(Column(name) for name in ("complained_at__all", *said)))


def folding(catalog: Catalog) -> Folding:
    """Consent is said per channel and purpose; an event that names none means all."""
    channels = range(len(catalog.channels))
    layout = Layout((), 1, ((len(channels) * len(PURPOSES), 1),))

    def touch(event: Occurrence) -> Touch:
        if event.kind == Kind.COMPLAINED:
            return Touch(times=(0,))
        if event.kind not in SAID:
            return Touch()
        said = (
            channel * len(PURPOSES) + place
            for channel in (channels if event.channel is None else (event.channel,))
            for place, purpose in enumerate(PURPOSES)
            if channel >= 0 and event.purpose in (None, purpose)
        )
        return Touch(pairs=tuple((layout.pair(0, one), SAID[Kind(event.kind)]) for one in said))

    return Folding(layout, touch)


def states(bank: Bank) -> pa.Table:
    """One row per customer and time of a word on consent or complaint; never said: null."""
    return fold_timeline(bank, view(bank.catalog), folding(bank.catalog))


def refused(state: State, channels: int, purpose: Purpose) -> Bool:
    """[n, H]: True where contact on the channel for the purpose was refused; silence is consent."""
    if purpose not in PURPOSES:
        return np.zeros((len(state.at), channels), dtype=bool)
    each = 2 * len(PURPOSES)  # of a channel: time and 1 = refused of each purpose, behind the time of the complaint
    if state.numbers.shape[1] != 1 + channels * each:
        raise ValueError(
            f"consent holds {1 + channels * each} numbers for {channels} channels, however these states hold "
            f"{state.numbers.shape[1]}; build the features again"
        )
    return np.asarray(state.numbers[:, 2 + 2 * PURPOSES.index(purpose) :: each] == 1.0)


def source(channels: int) -> Source:
    """`complained`: the last complaint. What was said is no feature: it is a rule."""
    return Source(NAME, TTL, 1 + channels * len(PURPOSES) * 2, (Part("complained", "since", (0,), DAY),))

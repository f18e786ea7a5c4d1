"""The worth of every allowed contact of many customers: what the real-time decision would say, in blocks.

Scores come from the champions, values from `serving.value`, and who may be offered what from the rules that the
decision obeys. Customers of whom nothing is known, and those whom an experiment decides for, are not campaigned to.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd

from features import profile
from features.assemble import assemble
from features.columns import AS_OF, CUSTOMER_ID
from features.errors import ArtefactError, NextbestError
from features.progress import SILENT, Progress
from features.schema import Bool, Float64, Rows, States
from serving.arms import arm_of, withheld
from serving.batch import allowed, check_eligible, check_fits
from serving.batch_states import states_for_rows
from serving.campaign_parts import Worths
from serving.campaign_rules import CampaignRules
from serving.choice import ChoiceModel
from serving.content import Contents, customer_values
from serving.eligibility import contactable
from serving.scoring import Panel, Source, source_of
from serving.value import MESSAGES, Worth

if TYPE_CHECKING:
    from features.catalog import Catalog
    from features.home import Build
    from features.schema import RowSchema
    from serving.registry import Loaded

log = logging.getLogger(__name__)

BLOCK = 20_000
"""Customers scored at once."""
StatesOf: TypeAlias = "Callable[[Build, pd.DataFrame], States]"
"""What was known of the customers of entities at their `as_of`, in their order."""
Load: TypeAlias = "Callable[[str, str], Loaded]"
"""(model name, reference) → model; raises ArtefactError with the reason where there is none."""


@dataclass(frozen=True)
class Valuer:
    """What contacts are valued with: the champions, and the worth that the real-time decision uses."""

    products: ChoiceModel
    channels: ChoiceModel
    worth: Worth
    rules: CampaignRules
    origin: str = ""
    """What the models, and what was counted for the worth, are known by; the rest is the build's own."""

    @cached_property
    def contents(self) -> Bool:
        """Bool [P, H]: pairs that there is something to say for; worked out once."""
        return _with_contents(self.rules.layers.catalog)


def open_valuer(
    build: Build, tracking_uri: str, days: int, online_url: str = "", counted: Worth | None = None
) -> Valuer:
    """What a campaign of so many days is valued with, as the real-time decision is; ArtefactError without champions.

    counted: the worth, where another process has gone through the whole log for it already.
    """
    from serving.registry import CHANNEL_MODEL, PRODUCT_MODEL, champion

    products, channels = (champion(name, tracking_uri) for name in (PRODUCT_MODEL, CHANNEL_MODEL))
    for loaded in (products, channels):
        check_fits(build, loaded.model)
    worth = counted or _worth(build, tracking_uri, online_url)
    origin = f"{products.digest} {channels.digest} {_counted(worth)}"
    return Valuer(products.model, channels.model, worth, CampaignRules.of(build, days), origin)


def _worth(build: Build, tracking_uri: str, online_url: str) -> Worth:
    """What the real-time decision says that actions are worth: from the log, the priors and the declarations."""
    from features.arbitration import read_declared
    from features.assemble import row_schema
    from features.evidence import evidence
    from features.online_states import open_states
    from serving.registry import CHAMPION, CHANNEL_MODEL, PRIOR, PRODUCT_MODEL, resolve
    from serving.response import usual_rates

    catalog, present = build.catalog, row_schema(build.bank)
    panels = [
        panel(name, ids, outside, CHAMPION, lambda asked, which: resolve(asked, which, tracking_uri), present)
        for name, ids, outside in (
            (PRODUCT_MODEL, catalog.product_ids, True),
            (CHANNEL_MODEL, catalog.channel_ids, False),
        )
    ]
    nobody = open_states(build, online_url).read([""])
    end = np.array([build.data_end.timestamp()])
    usual = usual_rates(panels[0], panels[1], PRIOR, lambda schema: assemble(nobody, end, schema))
    return Worth.of(catalog, read_declared(catalog), evidence(build.bank), usual)


def _counted(worth: Worth) -> str:
    """SHA-256 of all numbers of a worth, in hex: the priors and the online store have a part in them."""
    digest = hashlib.sha256(worth.unit.encode())
    for numbers in (worth.margins, worth.costs, worth.response, worth.opt_out, worth.take_ups):
        digest.update(b"none" if numbers is None else np.ascontiguousarray(numbers, dtype=np.float64).tobytes())
    return digest.hexdigest()


def panel(
    question: str, candidates: Sequence[str], outside: bool, reference: str, load: Load, present: RowSchema
) -> Panel:
    """The chain of models for one question: the one referred to, then the prior where there is one."""
    from serving.registry import PRIOR, misfit

    sources: list[Source] = []
    missing: list[str] = []
    if not candidates:
        return Panel(question, (), outside)
    for name in dict.fromkeys((reference, PRIOR)):
        try:
            found = load(question, name)
            reason = misfit(found.model.row_schema, present)
            if reason:
                raise ArtefactError(f"{question} version {found.version}: {reason}")
        except (NextbestError, OSError) as error:
            if name != PRIOR:
                log.warning("%s", error)
                missing.append(f"no usable {name} of {question}")
            continue
        versions = [source.version for source in sources]
        if found.version not in versions:
            sources.append(source_of(name, found.version, found.model))
    return Panel(question, tuple(candidates), outside, tuple(sources), tuple(missing))


def worths(
    build: Build,
    valuer: Valuer,
    entities: pd.DataFrame,
    progress: Progress = SILENT,
    block: int = BLOCK,
    source: StatesOf | None = None,
) -> Iterator[Worths]:
    """Blocks of consecutive entities. source: where states come from (None: `states_for_rows`)."""
    check_eligible(entities, build.catalog)
    known_of = source or states_for_rows
    with progress.step(f"score {len(entities):,} customers", len(entities)) as advance:
        for start in range(0, len(entities), block):
            part = entities.iloc[start : start + block].reset_index(drop=True)
            yield _block(build, valuer, part, known_of(build, part))
            advance(len(part))


def _block(build: Build, valuer: Valuer, part: pd.DataFrame, states: States) -> Worths:
    catalog, worth = build.catalog, valuer.worth
    moments = _moments(part)
    rules = valuer.rules.among(part[CUSTOMER_ID], min(moments))
    as_of = np.asarray(part[AS_OF].astype("datetime64[us, UTC]").astype("int64"), dtype=np.float64) / 1e6  # [b]
    rows_of = _assembled(states, as_of)
    rows = rows_of(valuer.products.row_schema)
    products = _scores(valuer.products, rows, allowed(valuer.products, rows, catalog, part), catalog.product_ids)
    rows = rows_of(valuer.channels.row_schema)
    channels_open = contactable(rows.opted_out, catalog, None)  # [b, H]
    at = [catalog.channel_ids.index(channel) for channel in valuer.channels.question.candidates]
    channels = _scores(valuer.channels, rows, channels_open[:, at], catalog.channel_ids)
    possible = np.isfinite(products)[:, :, None] & np.isfinite(channels)[:, None, :] & valuer.contents  # [b, P, H]
    possible &= _released(worth, catalog, part)[:, :, None]
    facts = states[profile.NAME]
    possible[~(facts.at <= as_of)] = False  # NaN: never seen
    messages = rows.customer[:, rows.schema.customer_names.index(MESSAGES)]  # NaN: never written to
    pressure = np.where(messages > 0, messages, 0.0)
    value = np.full(possible.shape, np.nan)
    counted = rules.counted
    left = np.zeros((len(counted), len(part)), dtype=np.int64)
    for row in np.flatnonzero(possible.any(axis=(1, 2))):
        customer = customer_values(build.bank.attributes, facts.take(np.array([row])))
        held = frozenset(itertools.compress(catalog.product_ids, rows.held[row]))
        situation = rules.situation(part[CUSTOMER_ID][row], moments[row], customer, held)
        left[:, row] = [rules.left(one, situation) for one in counted]
        product, channel = np.nonzero(possible[row] & ~rules.refused(situation, possible[row]))
        pairs = list(zip(product.tolist(), channel.tolist(), strict=True))
        value[row, product, channel] = worth.expected(
            products[row], channels[row], pairs, float(pressure[row]), customer
        )
    return Worths(value, tuple((one.name, one.counts, most) for one, most in zip(counted, left, strict=True)))


def _scores(model: ChoiceModel, rows: Rows, available: Bool, ids: tuple[str, ...]) -> Float64:
    """Float64 [b, len(ids)]: probabilities in the catalogue's order; NaN where the model has none."""
    scores = np.full((len(rows), len(ids)), np.nan)
    scores[:, [ids.index(candidate) for candidate in model.question.candidates]] = model.probabilities(rows, available)
    return scores


def _released(worth: Worth, catalog: Catalog, part: pd.DataFrame) -> Bool:
    """Bool [b, P]: products that no control group and no maturity ramp keeps from the customer; none for a customer
    whom another arm than the agent decides for."""
    declared = worth.declared
    released = np.ones((len(part), len(catalog.products)), dtype=np.bool_)
    for row, (customer_id, moment) in enumerate(zip(part[CUSTOMER_ID], _moments(part), strict=True)):
        if arm_of(declared.arms, customer_id, moment) != "agent":
            released[row] = False
            continue
        kept_back = withheld(declared.arms, declared.maturity, worth.take_ups, catalog.product_ids, customer_id, moment)
        released[row, [catalog.product_ids.index(product) for product in kept_back]] = False
    return released


def _moments(part: pd.DataFrame) -> list[datetime]:
    return [moment.to_pydatetime() for moment in part[AS_OF]]


def _with_contents(catalog: Catalog) -> Bool:
    """Bool [P, H]: pairs that there is something to say for; all of them where the catalogue has no contents."""
    contents = Contents(catalog)
    if not contents:
        return np.ones((len(catalog.products), len(catalog.channels)), dtype=np.bool_)
    return np.array(
        [
            [
                any(one.id not in contents.refused for one in contents.matching(product, channel, None))
                for channel in catalog.channels
            ]
            for product in catalog.products
        ],
        dtype=np.bool_,
    ).reshape(len(catalog.products), len(catalog.channels))


def _assembled(states: States, as_of: Float64) -> Callable[[RowSchema], Rows]:
    known: dict[str, Rows] = {}

    def rows_of(schema: RowSchema) -> Rows:
        if schema.fingerprint not in known:
            known[schema.fingerprint] = assemble(states, as_of, schema)
        return known[schema.fingerprint]

    return rows_of

"""The one row builder: states of a customer, brought to the moment of the question, become a model row.

Training, batch scoring and the live endpoint all call `assemble`; there is no other way to a row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from features import consent, engagement, holdings, market, profile, purchases, transactions
from features.columns import EVENT_TIMESTAMP, Purpose, Table
from features.folds import DAY, seconds
from features.importing import Bank
from features.row_plan import Plan
from features.schema import Float32, Float64, Int64, Rows, RowSchema, States

MODULES = (profile, holdings, transactions, engagement, purchases, consent, market)
AT_ONCE = 176
"""Customers whose numbers are worked on together: so many stay near the processor."""
CALENDAR_NAMES = ("hour of day", "hour of day, sine", "hour of day, cosine", "weekday", "day of month")
PRODUCT_NAMES = (
    "held",
    "days since opened",
    *purchases.PRODUCT_NAMES,
    *market.PRODUCT_NAMES,
)
_OF_PRODUCT = (
    "holdings.held",
    "holdings.opened",
    *(f"purchases.{name}" for name, *_ in (*purchases.SUMS, *purchases.LATEST)),
    *(f"market.{name}" for name, _ in market.SUMS),
)
_OF_CHANNEL = (
    *(f"engagement.{name}" for name, *_ in (*engagement.SUMS, *engagement.LATEST)),
    *(f"engagement.{name}" for name in engagement.DERIVED_NAMES),
)
_VISITS = [name for name, *_ in engagement.SUMS].index("visits")
LARGEST = float(np.finfo(np.float32).max)
_FIRST_DAY = date(1970, 1, 1).toordinal()
THURSDAY = 3
"""Weekday of 1 January 1970."""
FEW = 32
FLAT_PRODUCTS = 40
"""Up to this many products, what is held and bought of each also stands in the customer block, so that a model can
learn which product leads to which."""


def row_schema(bank: Bank, until: datetime | None = None) -> RowSchema:
    """The schema of rows of this bank; vocabularies hold only values known at `until` (None: all)."""
    known = np.ones(bank.tables[Table.CUSTOMERS].num_rows, dtype=bool)
    if until is not None:
        known = seconds(bank.tables[Table.CUSTOMERS][EVENT_TIMESTAMP]) <= until.timestamp()
    words = profile.vocabularies(bank, known)
    catalog = bank.catalog
    flat_products = catalog.product_ids if len(catalog.product_ids) <= FLAT_PRODUCTS else ()
    return RowSchema(
        products=catalog.product_ids,
        holdable=tuple(product.holdable for product in catalog.products),
        channels=catalog.channel_ids,
        attributes=bank.attributes,
        vocabularies=words,
        time_zone=catalog.time_zone,
        customer_names=(
            *profile.customer_names(bank.attributes, words),
            *CALENDAR_NAMES,
            *transactions.CUSTOMER_NAMES,
            "products held",
            *purchases.CUSTOMER_NAMES,
            *engagement.CUSTOMER_NAMES,
            *consent.CUSTOMER_NAMES,
            *(
                f"{product}: {name}"
                for name in ("held", "times bought", "days since bought")
                for product in flat_products
            ),
            *(f"{channel}: {name}" for name in engagement.CHANNEL_NAMES for channel in catalog.channel_ids),
        ),
        product_names=PRODUCT_NAMES,
        channel_names=engagement.CHANNEL_NAMES,
    )


class _Order:
    """How the rows of one schema are made: what is read of the states, and where it stands in a row.

    A row is the customer's columns, those of each product, those of each channel. customer, product: their numbers of
    columns; held: where it says what is held.
    """

    def __init__(self, schema: RowSchema) -> None:
        self._schema = schema
        products, channels = len(schema.products), len(schema.channels)
        self._products, self._channels = products, channels
        self._plan = plan = Plan(
            (
                profile.source(schema),
                holdings.source(products),
                purchases.source(products),
                transactions.source(),
                engagement.source(channels),
                consent.source(channels),
                market.source(products),
            )
        )
        said, since = plan.said, plan.since
        self._market, self._contacts = (_all(said, view.NAME, view.SUMS) for view in (market, engagement))
        self._has = slice(said["holdings.held"].start, said["purchases.bought"].stop)
        self._flow = said["transactions.money_in"], said["transactions.money_out"]
        self._visits, self._responded, self._sent = (
            said[f"engagement.{name}"] for name in ("visits", "responded", "sent")
        )
        self._responded_at, self._sent_at = said["engagement.responded_at"], said["engagement.message was"]
        self._by = slice(said["engagement.visit by"].start, said["engagement.message by"].stop)
        self._visited, self._bought_at = since["engagement.visit was"], since["purchases.bought_at"]
        self._each_channel = np.arange(channels)[:, None]
        self._profile = [source.view for source in plan.sources].index(profile.NAME)
        self._gathered = self._places()
        self.width = len(self._gathered)
        self.product = products * len(PRODUCT_NAMES)
        self.customer = self.width - self.product - channels * len(engagement.CHANNEL_NAMES)
        self.held = slice(self.customer, self.customer + self.product, len(PRODUCT_NAMES))

    def cells(self, states: States, as_of: Float64) -> Float32:
        """Rows of n customers, a column each, float32 [width, n]; values beyond float32 are its largest."""
        # Few calls, each for all numbers: for one customer it is the calls that cost.
        products, channels, sums = self._products, self._channels, len(engagement.SUMS)
        known, said, since = self._plan.read(states, as_of)
        count = len(as_of)
        market.to_shares(said[self._market], products)
        all_channels = np.add.reduce(_by_customer(said[self._contacts], sums, channels), axis=2)  # [n, sums]
        by = said[self._by, None] == self._each_channel  # [newest, H, n]
        waiting = engagement.waiting(
            said[self._responded_at].T, said[self._sent_at].T, by[engagement.VISITS_BACK :].transpose(2, 0, 1)
        ).T  # [H, n]
        has = _by_customer(said[self._has], 2, products)  # what is held, what was bought
        visited = since[self._visited]
        money_in, money_out = self._flow
        # In the order of `_derived`.
        derived = (
            engagement.shares(said[self._visits].T, all_channels[:, _VISITS : _VISITS + 1]).T,
            engagement.rates(said[self._responded], said[self._sent]),
            by.reshape(len(by) * channels, count),
            waiting,
            np.add.reduce(waiting, axis=0, keepdims=True),
            all_channels.T,
            visited[1:] - visited[:-1],
            np.add.reduce(has, axis=2).T,
            np.fmin.reduce(since[self._bought_at], axis=0, keepdims=True, initial=np.nan),
            said[money_in] - said[money_out],
            calendar(as_of, self._schema.time_zone).T,
            profile.marks(states[profile.NAME], known[self._profile], self._schema).T,
        )
        cells = np.concatenate((said, since, *derived))
        np.maximum(cells, -LARGEST, out=cells)
        np.minimum(cells, LARGEST, out=cells)
        return cells.astype(np.float32).take(self._gathered, axis=0)

    def blocks(self, states: States, as_of: Float64) -> tuple[Float32, Float32, Float32, Float32]:
        """Of n customers what is theirs, their products', their channels', and what they hold, [n, k] each."""
        cells, product = self.cells(states, as_of), self.customer + self.product
        return cells[: self.customer].T, cells[self.customer : product].T, cells[product:].T, cells[self.held].T

    def _derived(self) -> dict[str, Int64]:
        """Where what only the views themselves know stands, behind what the plan tells."""
        channels = self._channels
        share, rate, *visits, waiting = (f"engagement.{name}" for name in engagement.DERIVED_NAMES)
        widths = {
            **dict.fromkeys((share, rate, *visits), channels),
            "engagement.messages": engagement.MESSAGES_BACK * channels,
            waiting: channels,
            "engagement.all waiting": 1,
            **{f"engagement.all {name}": 1 for name, *_ in engagement.SUMS},
            "engagement.gaps": engagement.VISITS_BACK - 1,
            "holdings.total": 1,
            "purchases.total": 1,
            "purchases.last": 1,
            "transactions.flow": 1,
            "calendar": len(CALENDAR_NAMES),
            "profile.words": sum(map(len, self._schema.word_places)),
        }
        ends = np.cumsum([self._plan.width + self._plan.times, *widths.values()]).tolist()
        return {name: np.arange(end - widths[name], end) for name, end in zip(widths, ends[1:], strict=True)}

    def _places(self) -> Int64:
        """Of every cell of a row, in order, where what it holds stands."""
        at = {**self._plan.columns, **self._derived()}
        flat = len(self._schema.products) <= FLAT_PRODUCTS
        of_product = np.stack([at[name] for name in _OF_PRODUCT])  # [K, P]
        of_channel = np.stack([at[name] for name in _OF_CHANNEL])  # [L, H]
        customer = (
            *(at[f"profile.{place}"] for place in range(len(self._schema.plain_kinds))),
            at["profile.words"],
            at["calendar"],
            *(at[f"transactions.{name}"] for name, _ in transactions.SUMS),
            *(at[f"transactions.{name}"] for name in ("flow", "balance", "booked")),
            at["holdings.total"],
            at["purchases.total"],
            at["purchases.last"],
            *(at[f"engagement.{name}"] for name in ("all sent", "all visits", "visit was", "gaps", "all waiting")),
            at["consent.complained"],
            *(at[name] for name in ("holdings.held", "purchases.bought", "purchases.bought_at") if flat),
            of_channel.ravel(),
        )
        return np.concatenate([*customer, of_product.T.ravel(), of_channel.T.ravel()])


def _by_customer(cells: Float64, *shape: int) -> Float64:
    """Numbers [k, n], a column per customer, as [n, *shape] in one piece: what is summed up of one customer is summed
    up in one order, however many are asked of."""
    return cells.T.copy().reshape(cells.shape[1], *shape)


def _all(spans: Mapping[str, slice], view: str, sums: Sequence[tuple[str, *tuple[object, ...]]]) -> slice:
    """The place of all of a view's sums, which stand together."""
    first, last = (spans[f"{view}.{name}"] for name, *_ in (sums[0], sums[-1]))
    return slice(first.start, last.stop)


def assemble(states: States, as_of: Float64, schema: RowSchema) -> Rows:
    """Model rows of n customers, each at its own moment.

    states: view name → State of n entities; as_of: float64 [n], seconds since 1970 UTC.
    A state older than its view's time to live, or younger than `as_of`, counts as unknown; consent never expires and
    a refusal holds even for a moment before it.
    """
    count, order = len(as_of), _order(schema)
    products, channels = len(schema.products), len(schema.channels)
    if count <= AT_ONCE:
        customer, product, channel, held = order.blocks(states, as_of)
        return Rows(
            customer=np.ascontiguousarray(customer),
            product=np.ascontiguousarray(product).reshape(count, products, len(PRODUCT_NAMES)),
            channel=np.ascontiguousarray(channel).reshape(count, channels, len(engagement.CHANNEL_NAMES)),
            held=np.ascontiguousarray(held) == 1.0,
            opted_out=consent.refused(states[consent.NAME], channels, Purpose.MARKETING),
            schema=schema,
        )
    rows = Rows(
        customer=np.empty((count, order.customer), dtype=np.float32),
        product=np.empty((count, products, len(PRODUCT_NAMES)), dtype=np.float32),
        channel=np.empty((count, channels, len(engagement.CHANNEL_NAMES)), dtype=np.float32),
        held=np.empty((count, products), dtype=np.bool_),
        opted_out=consent.refused(states[consent.NAME], channels, Purpose.MARKETING),
        schema=schema,
    )
    for start in range(0, count, AT_ONCE):
        part = slice(start, start + AT_ONCE)
        theirs = {name: state.part(part) for name, state in states.items()}
        customer, product, channel, held = order.blocks(theirs, as_of[part])
        rows.customer[part] = customer
        rows.product.reshape(count, -1, copy=False)[part] = product
        rows.channel.reshape(count, -1, copy=False)[part] = channel
        np.equal(held, 1.0, out=rows.held[part])
    return rows


_orders: dict[str, _Order] = {}


def _order(schema: RowSchema) -> _Order:
    """The order of a schema's rows, made once."""
    found = _orders.get(schema.fingerprint)
    if found is None:
        found = _orders[schema.fingerprint] = _Order(schema)
    return found


def calendar(as_of: Float64, time_zone: str) -> Float64:
    """Local hour, weekday (Monday = 0) and day of month: float64 [n, k], columns in the order of CALENDAR_NAMES."""
    if len(as_of) <= FEW:  # one customer must not pay for pandas, nor for calls that are made for many
        zone = ZoneInfo(time_zone)
        block = np.array([_local(moment, zone) for moment in as_of.tolist()]).reshape(-1, len(CALENDAR_NAMES))
    else:
        moments, which = np.unique(as_of, return_inverse=True)
        if len(moments) < len(as_of):  # many customers are mostly asked for at one moment
            return calendar(moments, time_zone)[which]
        block = np.empty((len(as_of), len(CALENDAR_NAMES)))
        local = as_of + _utc_offset(as_of, time_zone)
        days = np.floor(local / DAY)
        dates = days.astype(np.int64).astype("datetime64[D]")
        block[:, 0] = (local - days * DAY) / 3_600
        block[:, 1] = 2 * np.pi * block[:, 0] / 24
        block[:, 3] = (days + THURSDAY) % 7
        block[:, 4] = (dates - dates.astype("datetime64[M]")).astype(np.int64) + 1.0
    np.cos(block[:, 1], out=block[:, 2])
    np.sin(block[:, 1], out=block[:, 1])
    return block


def _local(moment: float, zone: ZoneInfo) -> tuple[float, ...]:
    """Hour, its angle, a place for its cosine, weekday and day of month."""
    offset = datetime.fromtimestamp(moment, zone).utcoffset()
    local = moment + (offset.total_seconds() if offset else 0.0)
    days = math.floor(local / DAY)
    hour = (local - days * DAY) / 3_600
    day = date.fromordinal(_FIRST_DAY + days).day
    return hour, 2 * np.pi * hour / 24, 0.0, float((days + THURSDAY) % 7), float(day)


def _utc_offset(as_of: Float64, time_zone: str) -> Float64:
    """Seconds by which local time is ahead of UTC at each moment, [n]."""
    moments = pd.DatetimeIndex(np.floor(as_of).astype(np.int64).astype("datetime64[s]"), tz="UTC")
    local = moments.tz_convert(time_zone).tz_localize(None).to_numpy("datetime64[s]").astype(np.int64)
    return np.asarray(local - np.floor(as_of), dtype=np.float64)

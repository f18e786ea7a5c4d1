"""A generated bank of the size that the benchmarks ask about: 24 products, 8 channels, 3 x 8 x 5 = 120 actions.

Three products have five contents each that fit every channel, so that of 24 ranked products three can be sent: 120
actions, all open to nearly everybody. The limits are declared and checked, and so wide that a benchmark never reaches
them: a decision that a cap forbids is cheaper than one that is made. Customers are attracted by what their attributes
say, so that models have something to learn and are as large as they would be. The same numbers give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

PRODUCTS, CHANNELS, PROMOTED, CONTENTS = 24, 8, 3, 5
ACTIONS = PROMOTED * CHANNELS * CONTENTS
MONTHS = 12
START = np.datetime64("2025-01-01T00:00:00", "us")
DAY = 86_400_000_000
"""Microseconds."""
SEGMENTS = ("student", "family", "affluent", "senior", "business", "young")
REGIONS = ("north", "south", "east", "west", "coast", "capital")
CHANNEL_IDS = ("app_push", "in_app", "sms", "email", "wechat", "voice", "branch", "web")
COSTS = (0.01, 0.0, 0.05, 0.02, 0.03, 4.0, 15.0, 0.0)
CATEGORIES = tuple(f"category_{number:02d}" for number in range(16))
AMOUNTS = 20
"""Attributes that are amounts, beside the named ones."""
VISITS, OFFERS, BOOKINGS = 6, 6, 8
"""Per customer, on average."""
LENGTH = 28
"""Events of a customer's timeline, on average."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def product_ids() -> list[str]:
    return [f"product_{number:02d}" for number in range(PRODUCTS)]


def customer_ids(count: int) -> list[str]:
    return [f"c{number:07d}" for number in range(count)]


def heavy_id(length: int, number: int) -> str:
    return f"h{length:06d}-{number:03d}"


def write_bank(folder: Path, customers: int, seed: int = 7, heavy: Mapping[int, int] | None = None) -> None:
    """The bank of so many customers in `folder`, in the format of a bank data directory.

    heavy: how many customers more have timelines of this length, by length.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    (folder / "catalog.toml").write_text(_catalog(), encoding="utf-8")
    more = [heavy_id(length, number) for length, count in (heavy or {}).items() for number in range(count)]
    lengths = [length for length, count in (heavy or {}).items() for _ in range(count)]
    ids = np.array([*customer_ids(customers), *more], dtype=object)
    segment, table = _people(random, ids)
    taste = random.gumbel(size=(len(SEGMENTS), PRODUCTS))[segment]
    taste += 0.7 * random.standard_normal(taste.shape)
    habit = random.dirichlet(np.full(CHANNELS, 0.4), size=len(ids))
    pq.write_table(table, folder / "customers.parquet")
    pq.write_table(_holdings(random, ids, taste), folder / "holdings.parquet")
    pq.write_table(_transactions(random, ids), folder / "transactions.parquet")
    pq.write_table(_timeline(random, ids, taste, habit, np.array(lengths, dtype=np.int64)), folder / "timeline.parquet")


def _catalog() -> str:
    """`catalog.toml`: what a bank of this size declares; JSON's scalars and lists are TOML's too."""
    lines = ['currency = "CNY"', 'time_zone = "Asia/Shanghai"']

    def entry(section: str, **values: object) -> None:
        lines.extend(["", f"[[{section}]]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())])

    for number, product in enumerate(product_ids()):
        entry(
            "products",
            id=product,
            name=product.replace("_", " ").capitalize(),
            holdable=number >= PROMOTED and number % 2 == 0,
            group=f"group_{number % 6}",
            margin=40.0 + 35.0 * number,
        )
    for channel, cost in zip(CHANNEL_IDS, COSTS, strict=True):
        form = {"sms": "sms", "email": "html"}.get(channel, "text")
        quiet = {"quiet_hours": ["22:00", "08:00"]} if channel in ("app_push", "sms", "voice") else {}
        entry("channels", id=channel, name=channel, direction="both", cost=cost, format=form, max_length=400, **quiet)
    for product in product_ids()[:PROMOTED]:
        for number in range(CONTENTS):
            template = (
                "Dear customer in {{ region }}, {{ product_name }} fits {{ segment }} accounts: offer "
                f"{number + 1}, valid this month. Ask us on {{{{ channel_name }}}}."
            )
            entry("contents", id=f"{product}.{number}", product_id=product, language="en", template=template)
    for policy in (
        {"id": "cap_overall", "kind": "cap", "limit": 100_000, "days": 30},
        {"id": "cap_channel", "kind": "cap", "per": "channel", "limit": 100_000, "days": 30},
        {"id": "cap_product", "kind": "cap", "per": "product", "limit": 100_000, "days": 7},
        {"id": "adults", "kind": "audience", "attribute": "born", "min": 18},
        {"id": "reach_app", "kind": "reach", "channel": "app_push", "attribute": "has_app"},
        {
            "id": "afford",
            "kind": "affordability",
            "product": "product_01",
            "attribute": "income",
            "payment": 1,
            "share": 0.4,
        },
        {"id": "after_no", "kind": "suppression", "per": "channel", "after": 1000, "days": 30},
        {"id": "reserved", "kind": "reservation", "hours": 72},
    ):
        entry("policies", **policy)
    return "\n".join(lines) + "\n"


def _people(random: np.random.Generator, ids: npt.NDArray[np.object_]) -> tuple[Ints, pa.Table]:
    count = len(ids)
    segment = random.integers(len(SEGMENTS), size=count)
    income = np.exp(random.normal(9.0 + 0.2 * segment, 0.5))
    born = np.datetime64("1945-01-01") + random.integers(0, 21_000, size=count)
    columns: dict[str, object] = {
        "customer_id": ids,
        "event_timestamp": _times(np.full(count, START.astype(np.int64))),
        "segment": np.array(SEGMENTS, dtype=object)[segment],
        "region": np.array(REGIONS, dtype=object)[random.integers(len(REGIONS), size=count)],
        "income": income,
        "born": pa.array(born.astype("datetime64[D]")),
        "has_app": np.ones(count, dtype=bool),
        "language": np.full(count, "en", dtype=object),
    }
    for number in range(AMOUNTS):
        columns[f"amount_{number:02d}"] = np.exp(random.normal(number % 5 + 0.3 * segment * (number % 3), 1.0))
    return segment, pa.table({name: pa.array(values) for name, values in columns.items()})


def _when(random: np.random.Generator, count: int, first_day: int = 1, last_day: int = 365) -> Ints:
    """Microseconds since 1970, evenly over the bank's year."""
    return START.astype(np.int64) + random.integers(first_day * DAY, last_day * DAY, size=count)


def _times(microseconds: Ints) -> pa.Array:
    return pa.array(microseconds, pa.timestamp("us", "UTC"))


def _holdings(random: np.random.Generator, ids: npt.NDArray[np.object_], taste: Floats) -> pa.Table:
    holdable = np.array([number >= PROMOTED and number % 2 == 0 for number in range(PRODUCTS)])
    likes = 1 / (1 + np.exp(2.5 - taste)) * holdable
    who, what = np.nonzero(random.random(taste.shape) < likes)
    names = np.array(product_ids(), dtype=object)
    return pa.table(
        {
            "customer_id": ids[who],
            "event_timestamp": _times(_when(random, len(who), last_day=30)),
            "product_id": names[what],
            "action": np.full(len(who), "opened", dtype=object),
        }
    )


def _transactions(random: np.random.Generator, ids: npt.NDArray[np.object_]) -> pa.Table:
    who = np.repeat(np.arange(len(ids)), random.poisson(BOOKINGS, size=len(ids)))
    count = len(who)
    order = np.argsort(when := _when(random, count), kind="stable")
    return pa.table(
        {
            "customer_id": ids[who][order],
            "event_timestamp": _times(when[order]),
            "amount": np.round(random.normal(-30.0, 200.0, size=count), 2),
            "category": np.array(CATEGORIES, dtype=object)[random.integers(len(CATEGORIES), size=count)],
            "balance": np.round(np.exp(random.normal(8.0, 1.0, size=count)), 2),
        }
    )


class _Log:
    """Timeline rows as they are made, kind by kind."""

    columns = ("customer", "at", "kind", "channel", "product", "content", "decision", "propensity", "value")

    def __init__(self) -> None:
        self._parts: list[dict[str, npt.NDArray[np.generic]]] = []

    def add(self, kind: str, customer: Ints, at: Ints, **given: npt.NDArray[np.generic]) -> None:
        """channel, product, content: positions, -1 = none. decision: numbers, -1 = none."""
        count = len(customer)
        none = np.full(count, -1, dtype=np.int64)
        unknown = np.full(count, np.nan)
        defaults = dict.fromkeys(("channel", "product", "content", "decision"), none)
        part = {**defaults, "propensity": unknown, "value": unknown, **given}
        self._parts.append({"customer": customer, "at": at, "kind": np.full(count, kind, dtype=object), **part})

    def table(self, ids: npt.NDArray[np.object_]) -> pa.Table:
        whole = {name: np.concatenate([part[name] for part in self._parts]) for name in self.columns}
        order = np.lexsort((whole["customer"], whole["at"]))
        whole = {name: values[order] for name, values in whole.items()}
        count = len(order)

        def named(names: list[str], at: npt.NDArray[np.generic]) -> pa.Array:
            return pa.array(np.array([*names, None], dtype=object)[at.astype(np.int64)], pa.string())

        marketing = np.isin(whole["kind"], ["decided", "sent", "delivered", "opened", "clicked"])
        decision = pa.array([f"d{number}" if number >= 0 else None for number in whole["decision"]], pa.string())
        contents = [f"{product}.{number}" for product in product_ids() for number in range(CONTENTS)]
        sent = np.isin(whole["kind"], ["sent", "delivered", "opened", "clicked"])
        return pa.table(
            {
                "event_id": [f"e{number}" for number in range(count)],
                "customer_id": ids[whole["customer"].astype(np.int64)],
                "event_timestamp": _times(whole["at"].astype(np.int64)),
                "kind": pa.array(whole["kind"], pa.string()),
                "channel": named(list(CHANNEL_IDS), whole["channel"]),
                "purpose": pa.array(np.where(marketing, "marketing", None), pa.string()),
                "product_id": named(product_ids(), whole["product"]),
                "content_id": named(contents, whole["content"]),
                "decision_id": decision,
                "message_id": pa.array(
                    [
                        f"m{n}" if n >= 0 and is_sent else None
                        for n, is_sent in zip(whole["decision"], sent, strict=True)
                    ],
                    pa.string(),
                ),
                "propensity": pa.array(whole["propensity"], pa.float64(), from_pandas=True),
                "value": pa.array(whole["value"], pa.float64(), from_pandas=True),
            }
        )


def _timeline(
    random: np.random.Generator, ids: npt.NDArray[np.object_], taste: Floats, habit: Floats, lengths: Ints
) -> pa.Table:
    """lengths: about how many events the last customers have; the others have as many as anybody."""
    log, customers = _Log(), len(ids)
    busy = np.concatenate([np.ones(customers - len(lengths)), lengths / LENGTH])
    who = np.repeat(np.arange(customers), random.poisson(VISITS * busy))
    log.add("visited", who, _when(random, len(who)), channel=_by(random, habit[who]))

    who = np.repeat(np.arange(customers), random.poisson(OFFERS * busy))
    at, channel = _when(random, len(who), last_day=355), random.integers(CHANNELS, size=len(who))
    product = random.integers(PROMOTED, size=len(who))
    made = {
        "channel": channel,
        "product": product,
        "content": product * CONTENTS + random.integers(CONTENTS, size=len(who)),
        "decision": np.arange(len(who)),
    }
    log.add("decided", who, at, **made, propensity=np.full(len(who), 1 / ACTIONS))
    log.add("sent", who, at + 60_000_000, **made)
    arrived = random.random(len(who)) < 0.95
    log.add("delivered", who[arrived], at[arrived] + 90_000_000, **_some(made, arrived))
    seen = arrived & (random.random(len(who)) < 0.15 + 0.8 * habit[who, channel])
    log.add("opened", who[seen], at[seen] + 3_600_000_000, **_some(made, seen))
    clicked = seen & (random.random(len(who)) < 1 / (1 + np.exp(0.5 - taste[who, product])))
    log.add("clicked", who[clicked], at[clicked] + 3_900_000_000, **_some(made, clicked))
    bought = clicked & (random.random(len(who)) < 0.4)
    log.add(
        "converted", who[bought], at[bought] + 2 * DAY, **_some(made, bought) | {"content": made["content"][bought]}
    )

    # Take-ups without an offer, by taste: what next-best-product learns from.
    who = np.repeat(np.arange(customers), random.poisson(2.0, size=customers))
    log.add("converted", who, _when(random, len(who)), product=_by(random, _softmax(1.5 * taste[who])))
    refuses = np.flatnonzero(random.random(customers) < 0.01)
    refused = random.integers(CHANNELS, size=len(refuses))
    log.add("opted_out", refuses, _when(random, len(refuses)), channel=refused)
    return log.table(ids)


def _some(made: dict[str, npt.NDArray[np.generic]], these: npt.NDArray[np.bool_]) -> dict[str, npt.NDArray[np.generic]]:
    return {name: values[these] for name, values in made.items()}


def _softmax(scores: Floats) -> Floats:
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Floats = odds / odds.sum(axis=1, keepdims=True)
    return shares


def _by(random: np.random.Generator, shares: Floats) -> Ints:
    """One position per row of shares [n, k], drawn by them."""
    drawn = random.random((len(shares), 1)) < np.cumsum(shares, axis=1)
    return np.argmax(drawn, axis=1).astype(np.int64)

"""`nextbest campaign`: plan a campaign, and the prices that steer real-time decisions while it runs."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from training.edge import Edge, command


@click.group()
def campaign() -> None:
    """Campaigns: many customers compete for few messages."""


@command(campaign, "plan", "nextbest campaign plan --entities customers.parquet --out plan.parquet --budget 5000")
@click.option("--entities", type=Path, required=True, help="Who, as of when, and among what (Parquet or CSV).")
@click.option("--out", type=Path, required=True, help="Parquet file to write: one line per contact.")
@click.option("--budget", type=float, help="For all messages together, catalogue currency. Default: unlimited.")
@click.option("--days", type=int, default=1, show_default=True, help="How long; a channel's capacity is per day.")
@click.option("--contacts", type=int, default=1, show_default=True, help="Per customer at most, on different days.")
def campaign_plan(edge: Edge, entities: Path, out: Path, budget: float | None, days: int, contacts: int) -> None:
    """Choose contacts worth most together under capacity, budget and caps; write them, and prices for the server."""
    from serving.batch import read_entities, write_scores
    from serving.campaign import check_once, plan_parts
    from serving.campaign_blocks import Champions, valued
    from serving.campaign_parts import Terms
    from serving.kept_parts import digest_of
    from training.terminal import table

    terms = Terms(days, contacts, budget)
    build = edge.home.build()
    rows = read_entities(entities)
    check_once(rows)
    opened = partial(Champions.open, build.folder, edge.tracking_uri, days, edge.settings.online_url)
    with valued(opened, rows, terms, out, digest_of(entities), edge.terminal) as kept:
        found = plan_parts(build.catalog, kept.unit, rows, kept.order, kept, terms, edge.terminal)
        write_scores(iter([found.plan]), out)
        prices = found.prices.write(edge.home_folder)
    result = {
        "out": str(out),
        "prices": str(prices),
        "prices_version": found.prices.version,
        "customers": found.customers,
        "contacts": len(found.plan),
        "possible": found.possible,
        "considered": found.considered,
        "unit": found.prices.unit,
        "value": found.value,
        "bound": found.bound,
        "gap": found.gap,
        "violations": found.violations,
        "spent": found.spent,
        "messages": found.messages,
        "channel_prices": dict(found.prices.channels),
        "budget_price": found.prices.budget,
    }
    capacity = {channel.id: channel.capacity for channel in build.catalog.channels}
    lines = [
        (name, f"{count:,}", "–" if (most := capacity[name]) is None else f"{most * days:,}", f"{price:.4g}")
        for (name, count), price in zip(found.messages.items(), found.prices.channels.values(), strict=True)
    ]
    edge.answer(
        result,
        f"{out}: {len(found.plan):,} contacts for {found.customers:,} customers on {days} days, worth "
        f"{found.value:,.2f} {found.prices.unit}, at most {found.gap:.4%} below the best; spent {found.spent:,.2f}",
        f"{sum(found.violations.values())} violations; prices {found.prices.version} in {prices}: restart the server "
        "to decide by them",
        table("channels", ("channel", "messages", "capacity", "price of one more"), lines),
    )

"""`nextbest deliver`: the reference routing service as a command."""

from __future__ import annotations

import os
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import click

from training.edge import Edge, command


def add_deliver(group: click.Group) -> None:
    """Add the command to `group`."""

    @command(group, "deliver", "nextbest deliver jobs.jsonl --targets targets.toml --addresses addresses.csv")
    @click.argument("jobs", metavar="JOBS", type=Path)
    @click.option("--targets", type=Path, required=True, help="Where each channel's messages go (TOML).")
    @click.option("--addresses", type=Path, help="customer_id, channel, address (CSV).")
    @click.option("--url", default="http://127.0.0.1:3000", show_default=True, help="Of the service that decides.")
    @click.option("--once", is_flag=True, help="Do what is due and end; call again later.")
    @click.option("--poll", type=click.FloatRange(0.1, 86_400), default=30.0, show_default=True,
                  help="Seconds between two looks at the timelines of those that wait.")  # fmt: skip
    @click.option("--threads", type=click.IntRange(1, 64), default=4, show_default=True)
    def deliver(
        edge: Edge, jobs: Path, targets: Path, addresses: Path | None, url: str, once: bool, poll: float, threads: int
    ) -> None:
        """Take JOBS to the service, deliver what it decides, and post receipts back.

        JOBS has one JSON object per line: an "id", and what POST /v1/decide takes, or POST /v1/route for a given
        message. Nothing is kept here: a command that was killed goes on where the timeline says it was.
        """
        from serving.router.client import Client
        from serving.router.deliver import AppriseDelivery
        from serving.router.journey import Done
        from serving.router.routing import Router, read_jobs
        from serving.router.targets import read_addresses, read_targets

        todo = read_jobs(jobs)
        known = {} if addresses is None else read_addresses(addresses)
        delivery = AppriseDelivery(read_targets(targets, os.environ))
        with Client(url) as client, edge.terminal.step(f"deliver {len(todo)} jobs"):
            router = Router(client, delivery, known, lambda: datetime.now(UTC))
            found = router.advance_all(todo, threads) if once else router.run(todo, time.sleep, poll, threads)
        counts = Counter(step.word for step in found.values())
        told = {name: step.reason for name, step in found.items() if isinstance(step, Done) and step.reason}
        result = {"jobs": len(todo), "outcomes": dict(counts), "invalid": told}
        lines = [f"{count:,} {word}" for word, count in counts.most_common()]
        edge.answer(
            result, f"{len(todo):,} jobs: {', '.join(lines)}", *(f"{name}: {why}" for name, why in told.items())
        )

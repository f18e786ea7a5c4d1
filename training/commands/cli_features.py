"""`nextbest features build` and `nextbest export`: the bank's tables and the ledger's timeline, joined."""

from __future__ import annotations

import os
from pathlib import Path

import click

from training.edge import Edge, command

WITHOUT_LEDGER = click.option(
    "--without-ledger", is_flag=True, help="From the tables alone: leave out what was served from this home."
)


@click.group()
def features() -> None:
    """Features of customers."""


@command(features, "build", "nextbest features build my-bank/")
@click.argument("directory", metavar="DIR", type=Path)
@WITHOUT_LEDGER
def features_build(edge: Edge, directory: Path, without_ledger: bool) -> None:
    """Import the tables in DIR and the home's ledger, apply the features to Feast, and materialise them."""
    from features.build import build_features

    served = None if without_ledger else edge.served()
    build = build_features(directory, edge.home, edge.terminal, served, edge.settings.online_url)
    events = build.bank.served
    result = {
        "folder": str(build.folder),
        "fingerprint": build.fingerprint,
        "data_end": build.data_end.isoformat(),
        "served_events": events.known.num_rows,
        "served_left_out": dict(events.left_out),
    }
    lines = [f"{events.known.num_rows:,} events are the ledger's"] if events.known.num_rows else []
    lines += [f"{count:,} events of the ledger are left out: {why}" for why, count in events.left_out.items()]
    edge.answer(result, f"features of {directory} up to {build.data_end.isoformat()} are in {build.folder}", *lines)


def add_export(group: click.Group) -> None:
    """Add the command to `group`."""

    @command(group, "export", "nextbest export --out my-bank-and-ledger/")
    @click.option("--out", type=Path, required=True, help="Folder to write: a bank data directory.")
    def export(edge: Edge, out: Path) -> None:
        """Write the imported tables as a bank data directory, the ledger's timeline among them."""
        from features.errors import InputError
        from features.importing import make_bank, write_directory

        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"--out must be a folder that is empty or not there yet, however {out} is neither")
        bank = edge.home.build().bank
        joined = make_bank(bank.catalog, bank.tables, bank.attributes, edge.served())
        draft = out.with_name(f"{out.name}.{os.getpid()}.tmp")
        write_directory(joined, draft)
        os.replace(draft, out)
        rows = {str(name): table.num_rows for name, table in joined.tables.items()}
        added = bank.served.known.num_rows + joined.served.known.num_rows
        result = {"out": str(out), "rows": rows, "served_events": added, "left_out": dict(joined.served.left_out)}
        told = ", ".join(f"{name} {count:,}" for name, count in rows.items())
        edge.answer(result, f"{out}: {told}; {added:,} events of the timeline are the ledger's")

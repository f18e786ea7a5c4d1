"""The truth beside the data: what is written to `truth/`, and how it is read again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import InputError
from features.schema import Bool, Float64
from features.simulation.calendar import Ints, month_starts, to_micros
from features.simulation.files import TableFile, numbers, texts, write_table
from features.simulation.parameters import Parameters
from features.simulation.truth import Latents, Truth

TRUTH = "truth"
MARKER = "simulation.json"
DECISIONS = "decisions.parquet"
_RHYTHM = ("morning", "noon", "evening")
_PLAIN = ("weekend", "persuadable", "fatigue_sensitivity", "price_sensitivity")


def write_truth(folder: Path, truth: Truth, held: Bool, known: Float64) -> None:
    """Write parameters, latents, and per customer and month: needs, addresses, organic intensities.

    held: bool [M, N, P] at each month's start; known: [N]. The intensity is null before a customer is known.
    """
    ids = pa.array(truth.customer_ids, pa.string())
    (folder / "parameters.json").write_text(truth.parameters.to_json() + "\n", encoding="utf-8")
    catalog = {
        "products": truth.product_ids,
        "channels": truth.channel_ids,
        "contents": truth.content_ids,
        "months": len(truth.month_starts) - 1,
    }
    (folder / "index.json").write_text(json.dumps(catalog, indent=1) + "\n", encoding="utf-8")
    latents = truth.latents
    columns = {"customer_id": ids}
    columns |= {f"preference_{c}": pa.array(latents.preference[:, i]) for i, c in enumerate(truth.channel_ids)}
    columns |= {f"rhythm_{name}": pa.array(latents.rhythm[:, i]) for i, name in enumerate(_RHYTHM)}
    columns |= {name: pa.array(getattr(latents, name)) for name in _PLAIN}
    write_table(folder / "customers.parquet", pa.table(columns))

    everyone = np.arange(len(truth.customer_ids))
    with TableFile(folder / "months.parquet") as file:
        for month, start in enumerate(truth.month_starts[:-1]):
            at = np.full(len(everyone), start)
            organic = truth.organic(everyone, at, held[month]).astype(np.float32)
            organic[known > start] = np.nan
            columns = {"customer_id": texts(ids, everyone), "month": pa.array(np.full(len(everyone), month))}
            columns |= {f"need_{p}": pa.array(truth.need[month, :, i]) for i, p in enumerate(truth.product_ids)}
            columns |= {f"address_{c}": pa.array(truth.address[month, :, i]) for i, c in enumerate(truth.channel_ids)}
            columns |= {f"organic_{p}": numbers(organic[:, i]) for i, p in enumerate(truth.product_ids)}
            file.write(pa.table(columns))


def load_truth(directory: Path) -> Truth:
    """Read the truth of the simulated bank in `directory`.

    Raises InputError when the folder holds no simulated bank.
    """
    folder = directory / TRUTH
    if not (folder / MARKER).is_file():
        raise InputError(
            f"{directory} is not a simulated bank: it has no {TRUTH}/{MARKER}; make one with "
            "`nextbest data simulate DIR --customers N --months M --seed S`"
        )
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    products, channels, months = index["products"], index["channels"], index["months"]
    people = pq.read_table(folder / "customers.parquet")
    table = pq.read_table(folder / "months.parquet")
    shape = (months, len(people))

    def by_month(prefix: str, names: list[str]) -> list[pa.ChunkedArray]:
        return [table[f"{prefix}_{name}"].to_numpy().reshape(shape) for name in names]

    latents = Latents(
        preference=np.column_stack([people[f"preference_{name}"].to_numpy() for name in channels]),
        rhythm=np.column_stack([people[f"rhythm_{name}"].to_numpy() for name in _RHYTHM]),
        **{name: people[name].to_numpy() for name in _PLAIN},
    )
    return Truth(
        parameters=Parameters.from_json((folder / "parameters.json").read_text(encoding="utf-8")),
        customer_ids=tuple(people["customer_id"].to_pylist()),
        product_ids=tuple(products),
        channel_ids=tuple(channels),
        content_ids=tuple(index["contents"]),
        latents=latents,
        month_starts=month_starts(months),
        need=np.stack(by_month("need", products), axis=-1),
        address=np.stack(by_month("address", channels), axis=-1),
    )


def load_decisions(directory: Path) -> pa.Table:
    """The true probabilities of every logged decision: see `steps.Steps` for the columns."""
    return pq.read_table(directory / TRUTH / DECISIONS)


def held_before(holdings: pa.Table, truth: Truth, customer: Ints, when: Float64) -> Bool:
    """What n customers held just before `when` (seconds of the simulated calendar): bool [n, P].

    holdings: the bank's `holdings` table. A product counts as held when more openings than closings lie before.
    """
    owner = truth.rows_of(holdings["customer_id"].to_pylist())
    position = {name: index for index, name in enumerate(truth.product_ids)}
    product = np.array([position[name] for name in holdings["product_id"].to_pylist()], dtype=np.int64)
    micros = holdings["event_timestamp"].cast(pa.int64()).to_numpy()
    change = np.where(np.asarray(holdings["action"].to_pylist(), dtype=np.object_) == "opened", 1, -1)
    products = len(position)
    key = owner * products + product
    order = np.lexsort((micros, key))
    key, micros, total = key[order], micros[order], np.concatenate([[0], np.cumsum(change[order])])
    asked = customer[:, None] * products + np.arange(products)
    first = np.searchsorted(key, asked, side="left")
    # Ranks turn (key, time) into one sorted number, so one search finds the changes of that key before that time.
    rank = np.unique(np.concatenate([micros, to_micros(when)]), return_inverse=True)[1]
    width = len(rank) + 1
    last = np.searchsorted(key * width + rank[: len(micros)], asked * width + rank[len(micros) :, None], side="left")
    return np.asarray(total[last] - total[first] > 0)

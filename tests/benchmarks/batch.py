"""Batch scoring at full size: N customers × 24 products, where the time goes, and what is left after a kill.

    python -m tests.benchmarks.batch --customers 1000000 [--folder DIR] [--kill]

A simulated bank of some thousand customers is built and a model trained on it; then the customers' states are copied,
under other ids, until there are enough, straight into the files of a build. Every product of the simulation stands for
two, one for every other customer, so that there are 24. The scoring itself is `nextbest score`'s; with --kill that very
command is killed half-way, without a warning, and given again: what it writes then must be the same file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
MODEL = "next-best-product"
TWIN = "_plus"
BLOCK = 20_000
"""Customers of a part: `serving.batch_file.BLOCK`."""
GROUP = 100_000
"""Rows of a row group of the copied states."""


def main(argv: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--customers", type=int, default=1_000_000)
    options.add_argument("--base", type=int, default=1_500, help="customers that are simulated and learned from")
    options.add_argument("--folder", type=Path, default=Path("/tmp/nextbest-batch"), help="kept and used again")
    options.add_argument("--threads", type=int, default=None)
    options.add_argument("--kill", action="store_true", help="kill the command half-way and give it again")
    options.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    chosen = options.parse_args(argv)
    if chosen.measure:
        print(json.dumps(measured(chosen.folder, chosen.customers, chosen.threads)))
        return 0
    learn(chosen.folder, chosen.base)
    multiply(chosen.folder, chosen.customers)
    arguments = ["--customers", str(chosen.customers), "--folder", str(chosen.folder), "--measure"]
    arguments += ["--threads", str(chosen.threads)] if chosen.threads else []
    done = _python("-m", "tests.benchmarks.batch", *arguments)
    told = json.loads(done.stdout.splitlines()[-1])
    if chosen.kill:
        told |= killed(chosen.folder, chosen.customers)
    for name, value in told.items():
        print(f"{name:40} {value}")
    return 0


def killed(folder: Path, customers: int) -> dict[str, Any]:
    """`nextbest score`, killed when half of its parts are written, then given again; beside the file of `measured`."""
    root = folder / f"home-{customers}"
    out = root / "killed.parquet"
    out.unlink(missing_ok=True)
    arguments = ["--entities", str(root / "who.parquet"), "--out", str(out), "--model", "challenger"]
    command = [sys.executable, "-m", "training.cli", "score", MODEL, *arguments, "--home", str(root)]
    env = _environment(folder / "mlruns")
    first = subprocess.Popen(command, cwd=ROOT, env=env, start_new_session=True, stderr=subprocess.DEVNULL)
    while len(list(out.parent.glob(f".{out.name}.parts/*/*.npy"))) < customers / BLOCK / 2:
        if first.poll() is not None:
            raise SystemExit(f"it ended with {first.returncode} before it could be killed")
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    left = {path: path.stat().st_mtime_ns for path in out.parent.glob(f".{out.name}.parts/*/*.npy")}
    there = out.exists()
    began = time.perf_counter()
    again = subprocess.Popen(command, cwd=ROOT, env=env, start_new_session=True, stderr=subprocess.DEVNULL)
    peak, changed = 0, 0
    while again.poll() is None:
        peak = max(peak, _resident(again.pid))
        changed = max(changed, sum(mtime != _mtime(path, mtime) for path, mtime in left.items()))
        time.sleep(0.1)
    whole, taken_up = (hashlib.sha256(path.read_bytes()).hexdigest() for path in (root / "scores.parquet", out))
    return {
        "killed with parts": f"{len(left)} of {-(-customers // BLOCK)}",
        "a file was there": there,
        "parts scored again": changed,
        "wall s of the rest": round(time.perf_counter() - began, 1),
        "peak GiB of the rest, children included": round(peak / 2**30, 2),
        "the same file": whole == taken_up,
    }


def _resident(group: int) -> int:
    """Bytes of memory that all processes of a group hold."""
    held = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            told = path.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if int(told[2]) == group:
            held += int(told[21]) * os.sysconf("SC_PAGE_SIZE")
    return held


def _mtime(path: Path, otherwise: int) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return otherwise


def learn(folder: Path, customers: int) -> None:
    """A simulated bank with twin products, its features, and a LightGBM model; what is there already stays."""
    bank = folder / "bank"
    if not (folder / "learned").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _cli(folder, "data", "simulate", str(bank), "--customers", str(customers), "--months", "12", "--seed", "3")
        _twin(bank)
        _cli(folder, "features", "build", str(bank))
        _cli(folder, "train", MODEL, "--family", "lightgbm")
        (folder / "learned").touch()


def multiply(folder: Path, customers: int) -> Path:
    """A build of `customers` customers in a home of its own, and a file of entities that asks for all of them."""
    from features.columns import Table
    from features.home import Build, Home

    home = Home(folder / f"home-{customers}")
    if not (home.root / "current").exists():
        known = Home(folder / "home").build()
        copy = home.builds / f"{known.fingerprint}-{customers}"
        shutil.rmtree(home.root, ignore_errors=True)
        (copy / "views").mkdir(parents=True)
        shutil.copytree(known.bank_folder, copy / "bank")
        shutil.copytree(known.feast_folder, copy / "feast")
        build = Build(copy, f"{known.fingerprint}-{customers}", known.views, known.data_end)
        ids = known.bank.tables[Table.CUSTOMERS]["customer_id"].unique().to_pylist()
        copies = -(-customers // len(ids))
        for view in known.views:
            states = pq.read_table(known.view_path(view))
            if view.entity == "market":
                pq.write_table(states, build.view_path(view))
                continue
            states = states.take(
                pc.sort_indices(states, [("customer_id", "ascending"), ("event_timestamp", "ascending")])
            )
            with pq.ParquetWriter(build.view_path(view), states.schema) as writer:
                for start in range(0, copies, max(1, GROUP // max(1, states.num_rows))):
                    numbers = range(start, min(start + max(1, GROUP // max(1, states.num_rows)), copies))
                    parts = [_renamed(states, number) for number in numbers]
                    writer.write_table(pa.concat_tables(parts), row_group_size=GROUP)
        _copy_online(known.online_path, build.online_path, copies)
        build.mark_complete()
        home.use(build)
        names = [f"{number:05d}-{one}" for number in range(copies) for one in sorted(ids)][:customers]
        end = pa.scalar(int(known.data_end.timestamp() * 1e6) + 1, pa.int64()).cast(pa.timestamp("us", "UTC"))
        pq.write_table(pa.table({"customer_id": names, "as_of": pa.repeat(end, customers)}), home.root / "who.parquet")
    return home.root


def measured(folder: Path, customers: int, threads: int | None) -> dict[str, Any]:
    """Score everybody in this process: wall and processor time, peak memory, and the share of the compiled trees."""
    from features.home import Home
    from serving.batch import read_entities
    from serving.batch_file import origin_of, score_file
    from serving.registry import resolve

    home = Home(folder / f"home-{customers}")
    build, path, out = home.build(), home.root / "who.parquet", home.root / "scores.parquet"
    began, used = time.perf_counter(), time.process_time()
    loaded = resolve(MODEL, "challenger", f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}")
    scorer: Any = loaded.model.scorer
    timed = TimedWalk(scorer.compiled)
    scorer.compiled = timed
    read = time.perf_counter()
    entities = read_entities(path)
    scoring, before = time.perf_counter(), time.process_time()
    lines = score_file(build, loaded.model, entities, out, origin_of(loaded, path), threads=threads)
    wall, cpu, scored = time.perf_counter() - began, time.process_time() - used, time.process_time() - before
    return {
        "customers": customers,
        "lines": lines,
        "threads": threads or len(os.sched_getaffinity(0)),
        "wall s": round(wall, 1),
        "cpu s": round(cpu, 1),
        "cpu s in compiled predict": round(timed.seconds, 1),
        "share of cpu in compiled predict": round(timed.seconds / cpu, 3),
        "the same without starting": round(timed.seconds / scored, 3),
        "cpu µs per customer without starting": round(scored / customers * 1e6, 1),
        "model loaded s": round(read - began, 1),
        "entities read s": round(scoring - read, 1),
        "peak GiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "file MB": round(out.stat().st_size / 1e6, 1),
    }


class TimedWalk:
    """Compiled trees, and the processor time that was spent in them."""

    def __init__(self, walk: Any) -> None:
        self._walk = walk
        self._lock = threading.Lock()
        self.seconds = 0.0

    def sums(self, customer: Any, candidates: Any) -> Any:
        before = time.thread_time()
        sums = self._walk.sums(customer, candidates)
        with self._lock:
            self.seconds += time.thread_time() - before
        return sums


def _copy_online(known: Path, path: Path, copies: int) -> None:
    """The online store of the copies: each customer's packed rows under the copies' ids."""
    with closing(sqlite3.connect(known)) as source, closing(sqlite3.connect(path)) as target:
        source.backup(target)  # its write-ahead log included
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
        market = [row[0] for row in connection.execute("SELECT view_id FROM layouts WHERE name = 'market'")]
        connection.execute("CREATE TEMP TABLE one AS SELECT * FROM states WHERE view_id <> ?", market)
        connection.execute("DELETE FROM states WHERE view_id <> ?", market)
        numbers = ((f"{number:05d}-",) for number in range(copies))
        connection.executemany(
            "INSERT INTO states SELECT view_id, ? || key, event_us, created_us, numbers, texts FROM one", numbers
        )


def _renamed(states: pa.Table, number: int) -> pa.Table:
    """The states of copies of the customers."""
    ids = pc.binary_join_element_wise(f"{number:05d}", states["customer_id"], "-")
    return states.set_column(states.schema.get_field_index("customer_id"), states.schema.field("customer_id"), ids)


def _twin(bank: Path) -> None:
    """Every product a second time, for every other customer."""
    text = (bank / "catalog.toml").read_text("utf-8")
    catalog = tomllib.loads(text)
    blocks = [_block("products", one) for one in catalog["products"]]
    blocks += [_block("contents", one) for one in catalog.get("contents", [])]
    (bank / "catalog.toml").write_text(text + "\n" + "\n".join(blocks), "utf-8")
    for name in ("holdings", "timeline"):
        path = bank / f"{name}.parquet"
        table = pq.read_table(path)
        odd = np.array([int(one, 36) % 2 == 1 for one in pc.utf8_slice_codeunits(table["customer_id"], -1).to_pylist()])
        for column in {"product_id", "content_id"} & set(table.column_names):
            twin = pc.binary_join_element_wise(table[column], TWIN, "")
            place = table.schema.get_field_index(column)
            table = table.set_column(place, table.schema.field(column), pc.if_else(pa.array(odd), twin, table[column]))
        pq.write_table(table, path)


def _block(kind: str, one: dict[str, Any]) -> str:
    twin = {**one, "id": one["id"] + TWIN, **({"product_id": one["product_id"] + TWIN} if "product_id" in one else {})}
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in twin.items()]
    return "\n".join([f"[[{kind}]]", *lines, ""])


def _cli(folder: Path, *arguments: str) -> None:
    _python("-m", "training.cli", *arguments, "--home", str(folder / "home"), tracking=folder / "mlruns")


def _python(*arguments: str, tracking: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = _environment(tracking)
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done


def _environment(tracking: Path | None) -> dict[str, str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    if tracking:
        tracking.mkdir(parents=True, exist_ok=True)
        env["MLFLOW_TRACKING_URI"] = f"sqlite:///{tracking / 'mlflow.db'}"
    return env


if __name__ == "__main__":
    raise SystemExit(main())

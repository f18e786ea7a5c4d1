"""Point-in-time rows at size: ours against Feast's duckdb store and a query by hand, each time in a process of its own.

    python tests/benchmarks/point_in_time.py --rows 1000000 --repeats 3
    python tests/benchmarks/point_in_time.py --rows 20000 --customers 2000 --repeats 1

Every round asks every way once, in turn, so that all meet the same load. CPU time and wall time are those of the join,
from a spine in memory to a table in memory, imports and registry left out; memory is the peak of the whole process.
Every cell is compared, by digests of columns. The first round reads the files for all and is not counted.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from history_ways import WAYS, digests  # noqa: E402
from history_world import QUESTIONS, make_world  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the ratios and, with --json, write every figure; 1 where a cell differs."""
    options = _parser().parse_args(arguments)
    if options.way:
        print(json.dumps(measure(options.way, Path(options.folder), options.question)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        if not (folder / "spine.parquet").exists():
            make_world(folder, options.rows, options.customers)
        figures = {question: rounds(folder, question, options.ways, options.repeats) for question in options.questions}
    for question, by_way in figures.items():
        print("\n".join(told(question, by_way)))
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1))
    return 0 if all(same_cells(by_way) for by_way in figures.values()) else 1


def rounds(folder: Path, question: str, ways: Sequence[str], repeats: int) -> dict[str, list[dict[str, Any]]]:
    """Figures per way and round, the ways asked in turn."""
    figures: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for number in range(repeats + 1):
        for way in ways if number else ways[-1:]:
            command = [sys.executable, __file__, "--way", way, "--folder", str(folder), "--question", question]
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
            if done.returncode:
                raise RuntimeError(
                    f"{way} must answer question {question!r}, however it failed:\n{done.stderr[-2000:]}"
                )
            if number:
                figures[way].append(json.loads(done.stdout.splitlines()[-1]))
                last = figures[way][-1]
                print(
                    f"{question} round {number} {way}: {last['cpu']:.1f} s CPU, {last['wall']:.1f} s", file=sys.stderr
                )
    return figures


def measure(way: str, folder: Path, question: str) -> dict[str, Any]:
    """Ask once, in this process."""
    ask = WAYS[way](folder, question)
    started, cpu = time.perf_counter(), _cpu()
    table = ask()
    wall, cpu = time.perf_counter() - started, _cpu() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"cpu": cpu, "wall": wall, "peak_gib": peak, "rows": table.num_rows, "cells": digests(table)}


def same_cells(by_way: dict[str, list[dict[str, Any]]]) -> bool:
    """Whether all ways gave the same cells in every round."""
    told = [(figure["rows"], figure["cells"]) for figures in by_way.values() for figure in figures]
    return all(one == told[0] for one in told)


def told(question: str, by_way: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The report of one question: medians, and our ratios with their spread over the rounds."""
    views = ", ".join(f"{view.name} ({view.per_customer} per key)" for view in QUESTIONS[question])
    rows = max(figure["rows"] for figures in by_way.values() for figure in figures)
    lines = [f"{question}: {rows} rows, {20 * len(QUESTIONS[question])} features of {views}"]
    lines.append(f"{'':14}{'CPU s':>8}{'wall s':>8}{'peak GiB':>10}")
    for way, figures in by_way.items():
        values = [median(figure[name] for figure in figures) for name in ("cpu", "wall", "peak_gib")]
        lines.append(f"{way:14}{values[0]:8.2f}{values[1]:8.2f}{values[2]:10.2f}")
    for ours in [way for way in by_way if way.startswith("ours")]:
        for other in [way for way in by_way if not way.startswith("ours")]:
            ratios = [a["cpu"] / b["cpu"] for a, b in zip(by_way[ours], by_way[other], strict=True)]
            spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
            lines.append(f"{ours} / {other}: {median(ratios):.2f} of its CPU time ({spread})")
    lines.append(f"cells: {'identical' if same_cells(by_way) else 'DIFFERENT'}")
    return lines


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the spine")
    parser.add_argument("--customers", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3, help="rounds that count")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--questions", nargs="+", choices=QUESTIONS, default=list(QUESTIONS))
    parser.add_argument("--folder", help="keep the sources here, and use them again; default: a temporary folder")
    parser.add_argument("--json", help="write every figure to this file")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--question", choices=QUESTIONS, default="all", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())

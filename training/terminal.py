"""Progress and tables for the person at the terminal; everything here goes to stderr, stdout is for results."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from features.progress import Advance

SHOWN_FROM = 0.2
"""Seconds: shorter steps leave no line behind."""


class Terminal:
    """Shows steps: moving bars on a terminal, one line per finished step elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._depth = 0

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Advance]:
        started = time.perf_counter()
        self._depth += 1
        try:
            # rich allows one live display at a time: an inner step only leaves its line
            if self.console.is_terminal and self._depth == 1:
                with self._bars() as bars:
                    task = bars.add_task(name, total=total)
                    yield lambda done: bars.advance(task, done)
            else:
                yield lambda done: None
        finally:
            self._depth -= 1
        seconds = time.perf_counter() - started
        if seconds >= SHOWN_FROM:
            self.say(f"  {name} · {seconds:.1f} s", "dim")

    def say(self, text: str, style: str | None = None) -> None:
        """One line for the person."""
        self.console.print(text, style=style, markup=False, soft_wrap=True)

    def _bars(self) -> Bars:
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        return Bars(*columns, TimeElapsedColumn(), console=self.console, transient=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], numbers_from: int = 1) -> Table:
    """A rich table; columns from `numbers_from` on are aligned to the right."""
    shown = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=box.SIMPLE_HEAD)
    for position, name in enumerate(columns):
        shown.add_column(name, justify="right" if position >= numbers_from else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(text(cell) for cell in row))
    return shown


def text(value: object) -> str:
    """A value as a table shows it: floats to four places, nothing for None."""
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def metric_rows(metrics: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> list[list[object]]:
    """One row per model: its name, then the metrics in `names` that it has."""
    return [[model, *(values.get(name) for name in names)] for model, values in metrics.items()]

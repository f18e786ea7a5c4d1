"""Progress of long work, passed in as an argument so that libraries stay silent unless asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]


class Progress(Protocol):
    """Something that can show named steps."""

    def step(self, name: str, total: int | None = None) -> AbstractContextManager[Advance]:
        """Open step `name` of `total` units (None: unknown); the value is called with units done."""
        ...


class Silent:
    """Shows nothing: the default of every library function."""

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Advance]:
        yield lambda done: None


SILENT = Silent()

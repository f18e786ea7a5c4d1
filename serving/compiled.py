"""Scorers that answer by compiled code, and why one does not.

Nobody trusts compiled code. A scorer proves at load that it says what the library says, on rows made of its own
thresholds, and once more on rows of the bank where a model is tried out. What fails is left to the library, which is
slower and never wrong; the reason is logged, and shown by `/readyz`.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from features.schema import Rows


@runtime_checkable
class Compiled(Protocol):
    """A scorer of a family that can be compiled."""

    @property
    def uncompiled(self) -> str:
        """Why it is slower than it could be; "" where it is compiled."""
        ...

    def check_compiled(self, rows: Rows) -> None:
        """Fall back to the library where compiled code says something else of these rows."""
        ...

"""What a long run keeps of its blocks until its file is written, so that one that was killed can be taken up.

    .<file>.parts/lock          held by the run that writes the file
    .<file>.parts/<digest>/     parts: named by all that their numbers depend on, so that no other run takes them up

A part is written whole or not at all, and begins with the digest of what follows: damage is never taken for numbers.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from features.arrow import kernels
from features.columns import CUSTOMER_ID
from features.errors import InputError
from features.schema import Int64

Columns: TypeAlias = Mapping[str, npt.NDArray[Any]]

_DIGEST = hashlib.sha256().digest_size


@contextmanager
def kept_parts(out: Path, *depends_on: str) -> Iterator[Path]:
    """The folder of the parts of `out` that depend on this, for this run alone, removed after it unless it failed.

    Makes the folder that `out` lies in. InputError where another run is writing the same file.
    """
    known_by = hashlib.sha256("\0".join(depends_on).encode()).hexdigest()
    above = out.with_name(f".{out.name}.parts")
    folder = above / known_by[:32]
    folder.mkdir(parents=True, exist_ok=True)
    with (above / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"one run at a time writes {out}, however another one does; wait for its end") from None
        for other in above.iterdir():
            if other.is_dir() and other != folder:
                shutil.rmtree(other)
        yield folder
        shutil.rmtree(above)


def save_part(path: Path, columns: Columns) -> None:
    """Write a part: arrays of numbers and texts by name."""
    held = io.BytesIO()
    np.savez(held, allow_pickle=False, **columns)
    content = held.getbuffer()
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    with draft.open("wb") as file:
        file.write(hashlib.sha256(content).digest())
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def load_part(path: Path) -> dict[str, npt.NDArray[Any]] | None:
    """The arrays of a part; None where there is none, or something happened to it since."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
        return None
    with np.load(io.BytesIO(content[_DIGEST:]), allow_pickle=False) as columns:
        return dict(columns)


def digest_of(path: Path) -> str:
    """What a file of entities is known by."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def in_order_of_ids(entities: pd.DataFrame) -> Int64:
    """int64 [n]: the places of entities by their ids: who lies together in the files is asked about together."""
    order = kernels.array_sort_indices(pa.array(entities[CUSTOMER_ID], pa.string())).to_numpy()
    return np.asarray(order, dtype=np.int64)

"""What a run costs: time, memory, size, and how long one customer waits for an answer. All of it is of this machine.

Two models are only compared on what was measured side by side: latencies are taken in turns, so that whatever else the
machine does is shared by both.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from features.schema import Bool, Float64, Rows
from serving.choice import ChoiceModel

CALLS = 200
WARM = 20
"""Calls that are not counted: libraries start their threads and fill their caches."""
SECONDS = 5.0
"""Of measuring, at most."""
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def forget_peak() -> None:
    """Begin to measure the peak of memory anew, where the system can (Linux); else it is that of the whole process."""
    try:
        _RESET.write_text("5")
    except OSError:
        return


def peak_memory_mb() -> float:
    """The most memory that this process has held since `forget_peak`, resident, in MB (1e6 bytes)."""
    try:
        lines = _STATUS.read_text().splitlines()
        return float(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024 / 1e6
    except (OSError, StopIteration):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6


def of_training(started: float, model_bytes: int) -> dict[str, float]:
    """What every training tells. started: the `perf_counter` when it began; model_bytes: of what was registered."""
    seconds = time.perf_counter() - started
    return {"train_seconds": seconds, "peak_memory_mb": peak_memory_mb(), "model_bytes": float(model_bytes)}


def named(spent: Mapping[str, float]) -> dict[str, float]:
    """As metrics of a run."""
    return {f"cost/{name}": value for name, value in spent.items()}


def folder_bytes(folder: Path) -> int:
    """Size of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def latencies(
    models: Mapping[str, ChoiceModel], rows: Mapping[str, Rows], available: Bool, calls: int = CALLS
) -> dict[str, Float64]:
    """Milliseconds, float64 [calls] each, that every model takes for one customer and all candidates.

    rows: name → n rows in the schema of that model; available: bool [n, m]. Customers come in turn, and so do models.
    Fewer calls where they would take more than SECONDS.
    """
    names = list(models)
    taken: dict[str, list[float]] = {name: [] for name in names}
    end = time.perf_counter() + SECONDS
    for call in range(WARM + calls):
        one = call % len(available)
        for name in names[call % len(names) :] + names[: call % len(names)]:
            row = rows[name].take(slice(one, one + 1))
            started = time.perf_counter()
            models[name].score(row, available[one : one + 1])
            ended = time.perf_counter()
            if call >= WARM:
                taken[name].append((ended - started) * 1e3)
        if call >= WARM and ended > end:
            break
    return {name: np.array(values) for name, values in taken.items()}


def latency_metrics(found: Mapping[str, Float64]) -> dict[str, float]:
    """`<name>latency_ms_p50` and `_p99` of each; name: what stands before, "" or "champion_"."""
    return {
        f"{name}latency_ms_p{level}": float(np.percentile(values, level))
        for name, values in found.items()
        for level in (50, 99)
    }

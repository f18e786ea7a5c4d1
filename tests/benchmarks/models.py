"""Model time of one decision: LightGBM's own predict, lleaves where it is at hand, and the compiled trees, in turn.

    python -m tests.benchmarks.models [--candidates 24 192] [--lleaves DIR]

The trees are learned on made-up choices with 60 columns of the customer and 12 of each candidate. All three are asked
about the same customers, one after the other in every round, so that whatever else the machine does hits all alike;
times are µs of wall clock: median, and the tenth and ninetieth of a hundred. `--lleaves DIR` is a folder into which
`pip install --target DIR lleaves==1.3.0 llvmlite==0.44.0` was done: lleaves cannot use the LLVM of today, so it
compiles in a process of its own, into a file, and its code is called from here with lleaves' own predict.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from serving.compiled_kernel import kernel
from serving.compiled_trees import compiled
from serving.scorers import pair_matrix

WIDTH, DEPTH, TREES = 60, 12, 250
CUSTOMERS, ROUNDS = 200, 3
PAIRS = 150_000


def main(argv: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--candidates", type=int, nargs="+", default=[24, 192])
    options.add_argument("--lleaves", type=Path, help="folder with lleaves and a LLVM that it can use")
    options.add_argument("--trees", type=int, default=TREES)
    chosen = options.parse_args(argv)
    for candidates in chosen.candidates:
        compare(candidates, chosen.trees, chosen.lleaves)
    return 0


def compare(m: int, trees: int, lleaves: Path | None) -> None:
    customer, candidates, prior, booster = learned(m, trees)
    kernel()
    began = time.process_time()
    walk = compiled(booster, WIDTH, DEPTH, prior)
    seconds = time.process_time() - began
    print(f"{m} candidates, {booster.num_trees()} trees: compiled and proved in {seconds:.2f} s of CPU")
    everybody = np.zeros(m, np.int64), np.arange(m)
    lines = [pair_matrix(customer[i : i + 1], candidates[i : i + 1], prior, *everybody) for i in range(CUSTOMERS)]
    ways: dict[str, Callable[[int], Any]] = {
        "LightGBM": lambda i: booster.predict(lines[i], raw_score=True, num_threads=1),
        "compiled": lambda i: walk.sums(customer[i : i + 1], candidates[i : i + 1])[0],
    }
    if lleaves:
        theirs = lleaves_of(booster, lleaves)
        ways["lleaves"] = lambda i: theirs.predict(lines[i], n_jobs=1)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for i in [*range(CUSTOMERS)] * ROUNDS:
        said = {}
        for name, ask in ways.items():
            began = time.perf_counter()
            said[name] = ask(i)
            times[name].append(time.perf_counter() - began)
        np.testing.assert_array_equal(said["compiled"], said["LightGBM"])
    base = np.median(times["compiled"])
    for name, taken in times.items():
        low, middle, high = np.quantile(np.array(taken) * 1e6, (0.1, 0.5, 0.9))
        print(f"  {name:9} {middle:9.1f} µs [{low:.1f}, {high:.1f}]   {np.median(taken) / base:6.2f} × compiled")


def learned(m: int, trees: int) -> tuple[Any, Any, Any, lightgbm.Booster]:
    """Customers [n, C], their candidates [n, m, K], prior [m + 1], and trees that learned whom they choose."""
    draw = np.random.default_rng(0)
    n = max(CUSTOMERS, PAIRS // m)
    customer = draw.normal(size=(n, WIDTH)).astype(np.float32)
    candidates = draw.exponential(size=(n, m, DEPTH)).astype(np.float32)
    customer[draw.random(customer.shape) < 0.2] = np.nan
    candidates[draw.random(candidates.shape) < 0.3] = np.nan
    candidates[:, :, 0] = draw.random((n, m)) < 0.2
    prior = np.log(draw.dirichlet(np.full(m + 1, 5.0))).astype(np.float32)
    utility = np.nan_to_num(customer) @ draw.normal(size=(WIDTH, m)) * 0.5 + prior[:-1]
    utility += np.nan_to_num(candidates) @ draw.normal(size=DEPTH) * 0.3 + draw.gumbel(size=(n, m))
    chosen = utility.argmax(axis=1)[:, None] == np.arange(m)
    lines = pair_matrix(customer, candidates, prior, np.repeat(np.arange(n), m), np.tile(np.arange(m), n))
    settings = {
        "objective": "binary",
        "num_leaves": 31,
        "learning_rate": 0.1,
        "max_bin": 127,
        "feature_fraction": 0.8,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "max_cat_to_onehot": 1,
        "cat_l2": 1.0,
        "cat_smooth": 1.0,
        "min_data_per_group": 20,
        "verbosity": -1,
        "num_threads": 2,
        "seed": 0,
        "deterministic": True,
        "feature_contri": [1.0] * (lines.shape[1] - 1) + [30.0],
    }
    data = lightgbm.Dataset(lines, chosen.ravel().astype(float), categorical_feature=[lines.shape[1] - 1])
    return customer, candidates, prior, lightgbm.train(settings, data, trees)


def lleaves_of(booster: lightgbm.Booster, folder: Path) -> Any:
    """lleaves' model of the same trees."""
    from llvmlite import binding

    with tempfile.TemporaryDirectory() as name:
        text, code = Path(name) / "trees.txt", Path(name) / "trees.o"
        booster.save_model(text)
        script = f"import lleaves; lleaves.Model({str(text)!r}).compile(cache={str(code)!r}, raw_score=True)"
        env = {**os.environ, "PYTHONPATH": str(folder)}
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", script], env=env, check=True)
        print(f"  lleaves compiled in {time.perf_counter() - began:.0f} s")
        sys.path.append(str(folder))
        from lleaves.lleaves import Model, get_entry_func_type

        model = Model(str(text))
        machine = binding.Target.from_default_triple().create_target_machine(
            cpu=binding.get_host_cpu_name(),
            features=binding.get_host_cpu_features().flatten(),
            reloc="pic",
            codemodel="large",
        )
        engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
        compiled_code = code.read_bytes()
        engine.set_object_cache(getbuffer_func=lambda module: compiled_code)
        engine.finalize_object()
    model._execution_engine = engine
    model._c_entry_func = get_entry_func_type(True)(engine.get_function_address("forest_root"))
    model.use_fp64 = model.is_compiled = True
    return model


if __name__ == "__main__":
    raise SystemExit(main())

"""Imports follow the life of a decision, features ← serving ← training, and importing does nothing else."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("features", "serving", "training")
MAY_IMPORT = {
    "features": {"features"},
    "serving": {"features", "serving"},
    "training": {"features", "serving", "training"},
}
FEAST_PLUG_INS = {"offline.py", "online.py", "online_answer.py", "online_rows.py"}
FEAST_IMPORTERS = {f"features/{name}" for name in ("definitions.py", "store.py", *FEAST_PLUG_INS)}
VAGUE_NAMES = {"utils", "util", "common", "helpers", "helper", "misc", "manager", "base"}

MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imported_names(path: Path) -> Iterator[str]:
    """Top-level names of everything a module imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.split(".")[0]


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_comes_before_it_in_the_life_of_a_decision(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / package).rglob("*.py")
        for name in imported_names(path)
        if name in PACKAGES and name not in MAY_IMPORT[package]
    ]
    assert wrong == []


def test_only_the_feast_modules_import_feast() -> None:
    importers = {str(path.relative_to(ROOT)) for path in MODULES if "feast" in set(imported_names(path))}
    assert importers == FEAST_IMPORTERS


def test_nothing_pickles() -> None:
    picklers = {"pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal"}
    assert [path.name for path in MODULES if picklers & set(imported_names(path))] == []


def test_module_names_say_what_is_in_them() -> None:
    assert [path for path in MODULES if path.stem in VAGUE_NAMES] == []


def test_only_the_edges_ask_for_the_time() -> None:
    """The command line, the HTTP service and run bookkeeping may read the clock; below them time is an argument."""
    edges = {"training/cli.py", "training/commands/cli_deliver.py", "serving/service.py", "training/track.py"}
    asking = {
        str(path.relative_to(ROOT))
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in {"now", "utcnow", "today"}
    }
    assert asking <= edges


def test_importing_every_module_writes_nothing_and_changes_no_global_state(tmp_path: Path) -> None:
    script = f"""
import importlib, json, logging, os, sys
import pandas, duckdb, pyarrow, numpy  # the libraries' own import effects are not ours
sys.path.insert(0, {str(ROOT)!r})
before = (dict(os.environ), os.getcwd(), list(logging.getLogger().handlers))
for name in {[dotted(path) for path in MODULES if path.name != "service.py"]!r}:
    importlib.import_module(name)
    ours = {{key: os.environ.get(key) for key in os.environ if key.startswith("NEXTBEST")}}
    assert os.getcwd() == before[1], name
    assert logging.getLogger().handlers == before[2], f"{{name}} configured logging"
print(json.dumps(sorted(set(os.environ) - set(before[0]))))
"""
    done = subprocess.run(
        [sys.executable, "-B", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == [], "importing left files behind"
    added = [name for name in json.loads(done.stdout.splitlines()[-1]) if name.startswith(("NEXTBEST", "MLFLOW"))]
    assert added == [], "importing set environment variables"

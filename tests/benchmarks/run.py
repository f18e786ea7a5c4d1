"""All benchmarks of this folder in one run, collected into one report: what `make bench` calls.

    python tests/benchmarks/run.py --world /tmp/world --out bench
    python tests/benchmarks/run.py --only decisions,models -- --seconds 2

Every module here that has a `main(argv)` is a benchmark: a program of its own that prints Markdown on standard output
and what it is doing on standard error. Of the options it may take, it is given those that it names in its text:
`--world` (the generated world, made once for all), `--seconds`, `--rounds`, `--out` (a path without ending, for
OUT.json and OUT.md) or `--json` (a file). What follows `--` goes to all that run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from world import make_world

HERE = Path(__file__).resolve().parent
FIRST = ("decisions", "where_time_goes", "growth")
NOT = ("run", "load")
"""What has a `main` and is no benchmark."""


def benchmarks(folder: Path = HERE) -> list[str]:
    """Names of the benchmarks in `folder`, the decisions first."""
    found = [path.stem for path in sorted(folder.glob("*.py")) if "\ndef main(" in path.read_text("utf-8")]
    found = [name for name in found if name not in NOT and not name.startswith("test_")]
    return sorted(found, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    names = [name for name in benchmarks() if not options.only or name in options.only.split(",")]
    if not names:
        print(f"--only must name some of {', '.join(benchmarks())}", file=sys.stderr)
        return 2
    ended, parts = 0, []
    options.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        world = options.world
        if world is None:
            world = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nextbest-bench-"))) / "world"
        if any('"--world"' in (HERE / f"{name}.py").read_text("utf-8") for name in names):
            make_world(world, options.customers)
        for name in names:
            arguments = _arguments(name, world, options)
            print(f"{name} {' '.join(arguments)}", file=sys.stderr, flush=True)
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, HERE / f"{name}.py", *arguments], stdout=subprocess.PIPE, text=True, check=False
            )
            ended = ended or done.returncode
            broken = f"\n\nended with {done.returncode}" if done.returncode else ""
            minutes = (time.perf_counter() - began) / 60
            parts.append(f"# {name}\n\n{done.stdout.strip()}{broken}\n\n{minutes:.1f} min")
            print(parts[-1] + "\n", flush=True)
            (options.out / "report.md").write_text("\n\n".join(parts) + "\n")
    return ended


def _arguments(name: str, world: Path, options: argparse.Namespace) -> list[str]:
    text = (HERE / f"{name}.py").read_text("utf-8")
    given: dict[str, object] = {
        "--seconds": options.seconds,
        "--rounds": options.rounds,
        "--out": options.out / name,
        "--json": options.out / f"{name}.json",
    }
    if '"--world"' in text:
        given |= {"--world": world, "--customers": options.customers}
    known = [(option, value) for option, value in given.items() if f'"{option}"' in text and value is not None]
    return [*(str(part) for pair in known for part in pair), *options.more]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names of benchmarks, with commas")
    parser.add_argument("--world", type=Path, help="keep the generated world here and use it again")
    parser.add_argument("--customers", type=int, help="of the world, where it is made")
    parser.add_argument("--seconds", type=float, help="of each measurement; default: each benchmark's own")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--out", type=Path, default=Path(".nextbest/bench"), help="folder of report.md and all files")
    parser.add_argument("more", nargs="*", help="after --: for every benchmark that runs")
    return parser


if __name__ == "__main__":
    sys.exit(main())

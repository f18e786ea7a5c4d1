"""A server under load takes up a hundred models, and refuses fifty bad ones, and nobody who asks it notices.

Small and at full size by `make proof`; each step alone is in tests/serving/test_trial.py and test_reload.py. What is
asked for has the model's version in it and is checked against it: a ranking is always the same for one customer and
version, and a decision that is made again from its record comes out bit for bit. An answer that mixed two models would
fail one or the other.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from damages import DAMAGES, seal
from served import Caller, Load, Shelf, home_of, under_load

from features.assemble import row_schema
from features.columns import CUSTOMER_ID, Table
from features.schema import RowSchema
from serving.choice import ChoiceModel
from serving.launch import Server, free_port
from serving.registry import CHANNEL_MODEL, PRODUCT_MODEL
from serving.settings import Settings

MOVES = (
    (PRODUCT_MODEL, "lightgbm", "champion"),
    (PRODUCT_MODEL, "prior", "prior"),
    (CHANNEL_MODEL, "lightgbm", "champion"),
    (PRODUCT_MODEL, "torch", "champion"),
    (CHANNEL_MODEL, "prior", "prior"),
    (PRODUCT_MODEL, "prior", "champion"),
)
"""Which model is replaced, by what family, in which place."""
SHOWN_DAMAGES = ("lightgbm cut booster.txt", "lightgbm trees that stop short sealed")
"""Those of the small run."""
CALLERS, PAUSE = 4, 0.01
AGAIN_AFTER = 60
"""Decisions that are made before one is made again."""
SOON = 240.0
"""Seconds in which the server has noticed an alias, whatever else this machine does."""

full = (pytest.mark.proof, pytest.mark.timeout(7200))


@dataclass
class Bench:
    """A running server, the registry that it follows, and what it is asked."""

    shelf: Shelf
    schema: RowSchema
    customers: list[str]
    as_of: str
    folder: Path
    model_of: Callable[..., ChoiceModel]
    made: int = 0
    server: Server = field(init=False)

    def put(
        self, name: str, family: str, spoil: Callable[[Path], object] = lambda folder: None, alias: str = "champion"
    ) -> str:
        """A new version of model `name`, spoilt; the alias moves there."""
        self.made += 1
        folder = self.folder / f"model-{self.made}"
        self.model_of(self.schema, family, self.made, name).save(folder)
        spoil(folder)
        version = self.shelf.put(name, folder)
        self.shelf.move(name, version, alias)
        return version

    def until(self, wanted: Callable[[dict[str, Any]], bool]) -> float:
        """Wait for what /readyz says; the seconds that it took."""
        caller, started = Caller(self.server.url), time.monotonic()
        while not wanted(ready := caller.json("/readyz")):
            assert time.monotonic() - started < SOON, ready
            time.sleep(0.02)
        caller.close()
        return time.monotonic() - started

    def serves(self, name: str, version: str) -> Callable[[dict[str, Any]], bool]:
        return lambda ready: version in {one["version"] for one in ready["models"][name]}

    def family(self) -> dict[int, float]:
        """The server's processes that do not come and go with the artefacts: number → when it was started."""
        processes = psutil.Process(self.server.pid).children(recursive=True)
        lasting = [process for process in processes if "serving.canary" not in process.cmdline()]
        return {process.pid: process.create_time() for process in lasting}


@pytest.fixture(scope="module")
def bench(
    simulated_bank: Path, tmp_path_factory: pytest.TempPathFactory, model_of: Callable[..., ChoiceModel]
) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("reload")
    home, shelf = home_of(simulated_bank, folder / "home"), Shelf(folder)
    bank, settings = home.build().bank, Settings(home.root, shelf.uri, reload_seconds=0.2)
    customers = bank.tables[Table.CUSTOMERS][CUSTOMER_ID].unique().to_pylist()
    # A week later: what is only known at the end of a week is known to all of them then.
    as_of = (home.build().data_end + timedelta(days=7)).isoformat()
    made = Bench(shelf, row_schema(bank), customers, as_of, folder, model_of)
    first = {name: made.put(name, "prior") for name in (PRODUCT_MODEL, CHANNEL_MODEL)}
    for name in first:
        made.put(name, "prior", alias="prior")
    with Server(settings, port=free_port(), output=folder / "log") as made.server:
        made.server.wait_ready(SOON)
        for name, version in first.items():
            made.until(made.serves(name, version))
        yield made
        assert made.server.stop() == 0


def asking(bench: Bench) -> Callable[[Caller, int, Load], None]:
    """One turn of a caller: a ranking, a decision, and one of a while ago made again.

    At once would prove little: what is half swapped may well do the same twice.
    """
    rankings: dict[tuple[str, str], list[Any]] = {}
    waiting: deque[str] = deque()

    def ask(caller: Caller, number: int, load: Load) -> None:
        question = {"customer_id": bench.customers[number % len(bench.customers)], "as_of": bench.as_of}
        status, body = caller("POST", "/v1/rank", question)
        ranking = json.loads(body)
        load.did("rank", status == 200 and not ranking["degraded"], ranking.get("degraded_because", body))
        key = (question["customer_id"], ranking["versions"]["models"][PRODUCT_MODEL])
        load.did("same ranking", rankings.setdefault(key, ranking["products"]) == ranking["products"], body)
        status, body = caller("POST", "/v1/decide", question)
        decision = json.loads(body)
        load.did("decide", status == 200, body)
        waiting.append(decision["decision_id"])
        if len(waiting) > AGAIN_AFTER:
            status, body = caller("GET", f"/v1/decisions/{waiting.popleft()}?replay=true")
            replay = json.loads(body)["replay"]
            moved_on = not replay["replayed"] and replay["reason"].startswith("moved on")
            load.did("moved on" if moved_on else "replay", status == 200 and (moved_on or replay["equal"]), replay)

    return ask


@pytest.mark.proof  # that a running server follows its registry at all is in tests/serving/test_reload.py
@pytest.mark.parametrize("reloads", [pytest.param(2, id="small"), pytest.param(100, id="full", marks=full)])
def test_reloads_under_load_drop_no_request_and_mix_no_answer(bench: Bench, reloads: int) -> None:
    lasting, seconds = bench.family(), []
    with under_load(bench.server.url, CALLERS, PAUSE, asking(bench)) as load:
        for number in range(reloads):
            name, family, alias = MOVES[number % len(MOVES)]
            version = bench.put(name, family, alias=alias)
            seconds.append(bench.until(bench.serves(name, version)))
        load.until("decide", load.counts["decide"] + 2 * AGAIN_AFTER)  # until those around the last one are made again
    middle = sorted(seconds)[len(seconds) // 2]
    print(f"{reloads} reloads, median {middle:.1f} s, longest {max(seconds):.1f} s; {dict(load.counts)}")
    assert load.wrong == []
    assert min(load.counts[what] for what in ("rank", "decide", "replay")) > reloads
    assert bench.family() == lasting


@pytest.mark.proof  # that a damaged artefact only ends the child that tries it is in tests/serving/test_trial.py
@pytest.mark.parametrize(
    "damages",
    [
        pytest.param([damage for damage in DAMAGES if str(damage) in SHOWN_DAMAGES], id="small"),
        pytest.param(DAMAGES, id="full", marks=full),
    ],
)
def test_damaged_artefacts_end_no_worker_and_what_serves_serves_on(bench: Bench, damages: Any) -> None:
    assert len(damages) >= len(SHOWN_DAMAGES)
    good = bench.put(PRODUCT_MODEL, "prior")
    bench.until(bench.serves(PRODUCT_MODEL, good))
    lasting, told = bench.family(), []
    with under_load(bench.server.url, CALLERS, PAUSE, asking(bench)) as load:
        for damage in damages:

            def spoil(folder: Path, damage: Any = damage) -> None:
                damage.spoil(folder)
                if damage.sealed:
                    seal(folder)

            version = bench.put(PRODUCT_MODEL, damage.family, spoil)
            refused = lambda ready, version=version: any(r["version"] == version for r in ready["reload"]["refused"])  # noqa: E731
            told.append((bench.until(refused), str(damage)))
            bench.until(bench.serves(PRODUCT_MODEL, good))
    print(f"{len(told)} damaged artefacts, longest {max(told)}; {dict(load.counts)}")
    assert load.wrong == []
    assert bench.family() == lasting
    last = bench.put(PRODUCT_MODEL, "prior")
    bench.until(bench.serves(PRODUCT_MODEL, last))
    metrics = Caller(bench.server.url)("GET", "/metrics")[1].decode()
    assert f'nextbest_model_version{{model="{PRODUCT_MODEL}",name="champion",version="{last}"}} 1.0' in metrics

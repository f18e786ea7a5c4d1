"""The loop around the served product, one simulated day after the other: `test_closed_loop` says what it measures."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import numpy as np
from judged import Judge, Judged
from living_bank import LivingBank, moment
from true_value import Numbers

from features.build import build_features
from features.home import Home
from features.simulate import simulate
from features.simulation.calendar import START_SECONDS, month_starts
from serving.export import served_events
from serving.launch import environment, free_port
from serving.router.client import Client
from serving.router.journey import Route
from serving.settings import Settings
from training.metrics import HR_AT_3, LOG_LOSS
from training.plan import MODELS, NEXT_BEST_PRODUCT, Order
from training.track import MODEL_FOLDER, PRIOR_FOLDER, Tracking
from training.train import train

EVERY_DAYS = 10
"""Each customer is decided for once in so many days, a part of them every day."""
SETTLE_DAYS = 20
"""After the last round: until everything that messages can lead to has happened."""
ARMS = """
[[policies]]
id = "experiment"
kind = "arms"
salt = "closed-loop"
period_days = 30
shares = { agent = 0.6, random = 0.15, business_as_usual = 0.15, holdout = 0.1 }
"""
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Size:
    """history: months before the loop. rounds of `days` each."""

    customers: int
    history: int
    rounds: int
    days: int
    seeds: int


class Service:
    """The app of the product in a process of its own, over HTTP, with a clock that is told the time."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self._clock = folder / "clock"
        self._clock.write_bytes(struct.pack("d", 0.0))
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Service:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        script = [sys.executable, str(Path(__file__).with_name("simulated_server.py")), str(port), str(self._clock)]
        variables = {**environment(self._settings, os.environ), "PYTHONPATH": str(_ROOT)}
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(script, env=variables, stdout=log, stderr=log)
        self._until(lambda ready: True, "the server is ready")

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(30)

    def tell(self, when: float) -> None:
        """Set the clock, to seconds of the simulated calendar."""
        with self._clock.open("r+b") as file:
            file.write(struct.pack("d", START_SECONDS + when))

    def wait_for(self, versions: Mapping[str, str]) -> None:
        """Until the running server answers with these champions, which it has to notice by itself."""
        self._until(lambda ready: versions == {model: chain[0]["version"] for model, chain in ready["models"].items()},
                    f"{versions} were taken up")  # fmt: skip

    def _until(self, true: Any, what: str, seconds: float = 180.0) -> None:
        assert self._process
        limit = time.monotonic() + seconds
        with httpx.Client(trust_env=False) as http:
            while True:
                assert self._process.poll() is None, (self._folder / "server.log").read_text()[-3000:]
                try:
                    answer = http.get(f"{self.url}/readyz", timeout=10)
                    if answer.status_code == 200 and true(answer.json()):
                        return
                    told = answer.text
                except httpx.TransportError as error:
                    told = repr(error)
                assert time.monotonic() < limit, f"not within {seconds:g} s: {what}; {told}"
                time.sleep(0.1)


@dataclass
class Loop:
    """One seed: a bank of its own, the service over it, and what was learned round by round."""

    seed: int
    size: Size
    folder: Path
    judged: list[Judged] = field(default_factory=list)
    learned: list[dict[str, Any]] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)

    def run(self) -> dict[str, Any]:
        """All rounds; what is measured, as JSON-ready values."""
        size = self.size
        lasts = size.history + (size.rounds * size.days + SETTLE_DAYS) // 28 + 2
        simulate(self.folder / "simulated", size.customers, lasts, self.seed)
        ten_in_the_morning = float(month_starts(size.history)[-1]) + 2 * 3600.0
        self.bank = LivingBank(self.folder / "simulated", ten_in_the_morning, self.seed)
        tracking = f"sqlite:///{self.folder}/mlflow.db"
        self.tracking = Tracking(tracking)
        self.settings = Settings(Home(self.folder / "home").root, tracking, reload_seconds=0.5)
        self.learn()
        with Service(self.settings, self.folder) as service:
            self.service = service
            for number in range(size.rounds):
                service.wait_for(self.learned[-1]["versions"])
                self.judged.append(self.round(number))
                self.learn()
                service.wait_for(self.learned[-1]["versions"])  # by hot reload
                service.stop()  # and once a round the server starts anew, on the tables that were imported
                service.start()
            for _ in range(SETTLE_DAYS):
                self.day([])
        return self.measured()

    def round(self, number: int) -> Judged:
        """So many days of deciding, delivering and reacting."""
        judge = Judge(self.bank, Home(self.folder / "home").build(), self.settings)
        for day in range(number * self.size.days, (number + 1) * self.size.days):
            turn = self.bank.customers[self.bank.customers % EVERY_DAYS == day % EVERY_DAYS]
            self.day([(int(at), f"{self.seed}-{day}-{at}") for at in turn], judge)
        return judge.judged

    def day(self, turn: Sequence[tuple[int, str]], judge: Judge | None = None) -> None:
        """What has happened is posted, those whose turn it is are decided for, messages leave, a day passes."""
        bank, started = self.bank, time.perf_counter()
        self.service.tell(bank.now)
        with Client(self.service.url) as client, ThreadPoolExecutor(4) as pool:
            self.statuses.update(client.report(bank.outbox.due(bank.now)))
            posted = time.perf_counter()

            def decide(one: tuple[int, str]) -> tuple[dict[str, Any], dict[str, Any]]:
                answer = client.decide({"customer_id": bank.truth.customer_ids[one[0]]}, one[1])
                return answer, client.record(answer["decision_id"])

            decided = list(pool.map(decide, turn))
        self.seconds.update(events=posted - started, decisions=time.perf_counter() - posted)
        customer = np.array([at for at, _ in turn], dtype=np.int64)
        if judge:
            judge.add(customer, [record for _, record in decided])
        contact = [place for place, (answer, _) in enumerate(decided) if answer["action"]]
        self.deliver(customer[contact], [decided[place][0] for place in contact])
        bank.live(1.0, customer, EVERY_DAYS)

    def deliver(self, customer: Any, answers: Sequence[Mapping[str, Any]]) -> None:
        """Each message leaves at once, on its first channel alone: so an action is what the truth knows a value of."""
        routes = [Route.of(answer) for answer in answers]
        assert all(route.legs[0].send_at == moment(self.bank.now) for route in routes), "nothing is put off at ten"
        named = [(str(route.product_id), route.legs[0].channel, str(route.legs[0].content_id)) for route in routes]
        actions = Numbers.of(self.bank.truth, named)
        self.bank.send(customer, actions, [route.decision_id for route in routes])

    def learn(self) -> None:
        """Import the tables and the ledger, train, and let the gate decide what the alias names."""
        started = time.perf_counter()
        home = Home(self.folder / "home")
        self.bank.write(self.folder / "tables", ARMS)
        build = build_features(self.folder / "tables", home, served=served_events("", home.ledger_path))
        built = time.perf_counter()
        found: dict[str, Any] = {"versions": {}, "passed": {}, "rows": {}}
        for model in MODELS:
            trained = train(Order(model, "lightgbm", seed=self.seed), build, self.tracking, {})
            surely_better = passes(model, trained.metrics)
            folder = MODEL_FOLDER if surely_better else PRIOR_FOLDER
            found["versions"][model] = self.tracking.promote(model, trained.run_id, folder)
            found["passed"][model] = bool(surely_better)
            found["rows"][model] = trained.rows["all"]
        self.learned.append(found)
        self.seconds.update(build=built - started, train=time.perf_counter() - built)

    def measured(self) -> dict[str, Any]:
        """Everything of this seed."""
        ledger = served_events("", Home(self.folder / "home").ledger_path)
        return {
            "seed": self.seed,
            "rounds": [judged.document(ledger) for judged in self.judged],
            "learned": self.learned,
            "statuses": dict(self.statuses),
            "over_caps": self.bank.over_caps(),
            "seconds": {name: round(spent, 1) for name, spent in self.seconds.items()},
        }


def passes(model: str, metrics: Mapping[str, float]) -> bool:
    """Whether a model is surely better than the prior on the validation rows, by what training chooses families by."""
    if model == NEXT_BEST_PRODUCT:
        return metrics.get(f"valid/{HR_AT_3}_minus_prior_low", 0.0) > 0
    return metrics.get(f"valid/{LOG_LOSS}_minus_prior_high", 0.0) < 0


if __name__ == "__main__":
    made = Loop(int(sys.argv[1]), Size(*map(int, sys.argv[2:7])), Path(sys.argv[7]))
    print(json.dumps(made.run()))

"""A moved alias is taken up between two requests; what is refused, gone or out of reach leaves what serves in place."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from fastapi.testclient import TestClient

from features.errors import NoSuchModel
from features.schema import RowSchema
from serving.api import create_app
from serving.calibration import IDENTITY, Calibration
from serving.decide import Decider
from serving.errors import RegistryUnreachable
from serving.ledger import Ledger, SqliteLedger
from serving.opening import Opening, Serving
from serving.places import References, no_models
from serving.question import Question
from serving.registry import CHANNEL_MODEL, PRODUCT_MODEL, TIMING_MODEL, Registered
from serving.reload import FIRST_RETRY, Reloader
from serving.schedule import Scheduler
from serving.scoring import Panel
from serving.trial import Refused, Stopped

if TYPE_CHECKING:
    from conftest import World
else:
    World = Any

PRODUCTS, CHANNELS, TIMING = ((name, "champion") for name in (PRODUCT_MODEL, CHANNEL_MODEL, TIMING_MODEL))
PRIOR = (PRODUCT_MODEL, "prior")
LEDGER = cast(Ledger, object())


@dataclass
class FakeRegistry:
    """Aliases and where they point; counts how often it is asked."""

    aliases: dict[tuple[str, str], str] = field(default_factory=dict)
    stamped: bool = True
    reachable: bool = True
    asked: int = 0

    def stamp(self) -> object | None:
        return (tuple(sorted(self.aliases.items())), self.reachable) if self.stamped else None

    def find(self, model_name: str, reference: str) -> Registered:
        self.asked += 1
        if not self.reachable:
            raise RegistryUnreachable("no route to the registry")
        if (model_name, reference) not in self.aliases:
            raise NoSuchModel(f"{model_name} has no {reference}")
        return Registered(model_name, self.aliases[model_name, reference], "run", "nowhere")


@dataclass(frozen=True)
class Fake:
    """What serving looks at of a model before it is asked."""

    row_schema: RowSchema
    question: Question
    calibration: Calibration = IDENTITY


@dataclass
class FakeTrial:
    """Passes everything but the versions in `bad`; remembers what it was given."""

    schema: RowSchema
    bad: set[str] = field(default_factory=set)
    tried: list[str] = field(default_factory=list)

    def __call__(self, wanted: Sequence[Registered], stopping: Callable[[], bool]) -> list[Any]:
        self.tried += [one.version for one in wanted]
        question = Question(PRODUCT_MODEL, self.schema.products, "product", "joint", True, 30.0)
        return [Refused("damaged") if one.version in self.bad else Fake(self.schema, question) for one in wanted]


@dataclass
class Served:
    """A server that polls: `turn` is what happens every few seconds."""

    registry: FakeRegistry
    trial: FakeTrial
    reloader: Reloader
    serving: Serving

    def turn(self) -> Served:
        self.serving = self.reloader.turn(self.serving)
        return self

    @property
    def products(self) -> list[tuple[str, str]]:
        return self.serving.models[PRODUCT_MODEL]


@pytest.fixture
def served(world: World) -> Served:
    def renew(products: Panel, channels: Panel, scheduler: Scheduler) -> Decider:
        return replace(world.decider, products=products, channels=channels, scheduler=scheduler)

    references = References("champion", "champion", "champion")
    registry, trial = FakeRegistry({PRODUCTS: "1"}), FakeTrial(world.schema)
    reloader = Reloader(references, registry, trial, 10.0)
    bare = renew(*no_models(world.decider.catalog, references))
    return Served(registry, trial, reloader, Serving(bare, LEDGER, (), renew, reloader)).turn()


def test_a_moved_alias_is_taken_up_and_who_began_with_the_old_one_keeps_it(served: Served) -> None:
    before = served.serving
    served.registry.aliases[PRODUCTS] = "2"
    served.turn()
    assert (before.models[PRODUCT_MODEL], served.products) == ([("champion", "1")], [("champion", "2")])
    assert served.serving is not before
    assert served.serving.ledger is before.ledger
    assert served.reloader.state.counts == (("taken", 2), ("refused", 0), ("unreachable", 0))


def test_every_model_has_its_place_and_only_what_is_new_is_tried_out(served: Served) -> None:
    served.registry.aliases |= {PRIOR: "2", CHANNELS: "8", TIMING: "9"}
    served.turn()
    assert served.products == [("champion", "1"), ("prior", "2")]
    assert served.serving.models[CHANNEL_MODEL] == [("champion", "8")]
    assert served.serving.models[TIMING_MODEL] == [("champion", "9")]
    assert served.trial.tried == ["1", "2", "8", "9"]
    assert served.serving.degraded == []


def test_a_version_that_only_changes_its_place_is_not_tried_out_again(served: Served) -> None:
    served.registry.aliases |= {PRODUCTS: "2", PRIOR: "1"}
    served.turn()
    assert served.products == [("champion", "2"), ("prior", "1")]
    served.registry.aliases[PRODUCTS] = "1"
    served.turn()
    assert served.products == [("champion", "1")]
    assert served.trial.tried == ["1", "2"]


def test_where_nothing_moved_the_registry_is_not_even_asked(served: Served) -> None:
    before, asked = served.serving, served.registry.asked
    assert served.turn().turn().serving is before
    assert served.registry.asked == asked


def test_a_registry_that_cannot_tell_cheaply_is_asked_and_nothing_is_tried_out(served: Served) -> None:
    served.registry.stamped = False
    before, asked = served.serving, served.registry.asked
    assert served.turn().turn().serving is before
    assert served.registry.asked > asked
    assert served.trial.tried == ["1"]


def test_a_refused_version_leaves_the_old_one_and_everyone_can_see_why(served: Served) -> None:
    served.trial.bad = {"2"}
    served.registry.aliases |= {PRODUCTS: "2", CHANNELS: "8"}
    served.turn()
    assert served.products == [("champion", "1")]
    assert served.serving.models[CHANNEL_MODEL] == [("champion", "8")], "a good one beside it is taken"
    refusal = {"model": PRODUCT_MODEL, "version": "2", "reason": "damaged", "tries": 1}
    assert served.reloader.state.document()["refused"] == [refusal]
    assert served.serving.degraded == ["no usable champion of send-time: all hours are taken alike"]
    served.registry.aliases[PRODUCTS] = "3"
    served.turn()
    assert served.products == [("champion", "3")]
    assert served.reloader.state.refusals == ()


def test_a_refused_version_is_tried_again_at_growing_distances(served: Served) -> None:
    served.trial.bad = {"2"}
    served.registry.aliases[PRODUCTS] = "2"
    polls = []
    for poll in range(1, 2 + 7 * FIRST_RETRY):
        before = len(served.trial.tried)
        served.turn()
        polls += [poll] * (len(served.trial.tried) - before)
    assert polls == [1, 1 + FIRST_RETRY, 1 + 3 * FIRST_RETRY, 1 + 7 * FIRST_RETRY]
    assert served.reloader.state.document()["refused"][0]["tries"] == 4


def test_what_was_the_machine_s_fault_passes_the_next_time(served: Served) -> None:
    served.trial.bad = {"2"}
    served.registry.aliases[PRODUCTS] = "2"
    served.turn()
    served.trial.bad = set()
    for _ in range(FIRST_RETRY):
        served.turn()
    assert served.products == [("champion", "2")]


def test_an_alias_that_is_gone_takes_no_model_away(served: Served) -> None:
    del served.registry.aliases[PRODUCTS]
    served.turn()
    assert served.products == [("champion", "1")]
    assert served.reloader.state.document()["gone"] == ["champion of next-best-product"]


def test_a_registry_out_of_reach_changes_nothing_and_is_asked_again(served: Served) -> None:
    served.registry.reachable = False
    served.registry.aliases[PRODUCTS] = "2"
    served.turn().turn()
    assert served.products == [("champion", "1")]
    assert served.reloader.state.trouble == "no route to the registry"
    assert served.reloader.state.unreachable == 2
    served.registry.reachable = True
    served.turn()
    assert served.products == [("champion", "2")]
    assert served.reloader.state.trouble is None


def test_a_running_server_follows_its_registry_and_says_so(served: Served, world: World, tmp_path: Path) -> None:
    """Nothing here asks it to: it looks by itself."""
    ledger = SqliteLedger(tmp_path / "ledger.db")
    served.reloader.seconds = 0.01
    opening = Opening(lambda: replace(served.serving, ledger=ledger))
    with TestClient(create_app(opening, lambda: world.ask().as_of, lambda: "0" * 32)) as client:
        until_ready(client, lambda ready: ready["models"][PRODUCT_MODEL] == [{"name": "champion", "version": "1"}])
        served.trial.bad = {"3"}
        served.registry.aliases |= {PRODUCTS: "2", CHANNELS: "3", TIMING: "4"}
        ready = until_ready(client, lambda ready: ready["models"][PRODUCT_MODEL][0]["version"] == "2")
        assert ready["models"][TIMING_MODEL] == [{"name": "champion", "version": "4"}]
        assert ready["reload"]["refused"][0]["version"] == "3"
        metrics = client.get("/metrics").text
    assert 'nextbest_model_version{model="next-best-product",name="champion",version="2"} 1.0' in metrics
    assert 'version="1"' not in metrics
    assert 'nextbest_reloads_total{outcome="taken"} 3.0' in metrics
    assert re.search(r'nextbest_reloads_total\{outcome="refused"\} [1-9]', metrics)
    assert not ledger.open


def test_a_server_that_stops_does_not_wait_for_what_is_tried_out(served: Served, tmp_path: Path) -> None:
    ledger, began = SqliteLedger(tmp_path / "ledger.db"), threading.Event()

    def endless(wanted: Sequence[Registered], stopping: Callable[[], bool]) -> list[Any]:
        began.set()
        while not stopping():
            time.sleep(0.01)
        raise Stopped("the server stops")

    reloader = Reloader(served.reloader.references, served.registry, endless, 0.01)
    opening = Opening(lambda: replace(served.serving, ledger=ledger, reloader=reloader))
    opening.start()
    served.registry.aliases[PRODUCTS] = "2"
    assert began.wait(10)
    started = time.monotonic()
    opening.close()
    assert time.monotonic() - started < 4
    assert not ledger.open


def until_ready(client: TestClient, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """/readyz, as soon as it is what is wanted."""
    for _ in range(1000):
        answer = client.get("/readyz")
        if answer.status_code == 200 and wanted(answer.json()):
            return dict(answer.json())
        time.sleep(0.01)
    raise AssertionError(client.get("/readyz").text)

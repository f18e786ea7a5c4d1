"""What is taken up was loaded and asked in another process first; what ends that process is refused, and no more."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from features.errors import ArtefactError
from features.schema import RowSchema
from serving.canary import Canary
from serving.choice import MANIFEST, ChoiceModel, _sha256
from serving.registry import PRODUCT_MODEL, Registered
from serving.trial import Refused, Stopped, Trial

if TYPE_CHECKING:
    from conftest import World
else:
    World = Any

SECONDS = 6
ModelOf = Callable[..., ChoiceModel]


def seal(folder: Path) -> None:
    """Make the manifest again: whatever the files say now is what their maker meant."""
    files = {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    (folder / MANIFEST).write_text(json.dumps({"files": files}))


def in_circles(booster: str) -> str:
    """Every child of every node is the root; not a byte longer, as LightGBM goes by the length of its trees."""
    children = re.compile(r"(?<=_child=).*")
    return children.sub(lambda line: re.sub(r"\S", "0", line[0]), booster)


@dataclass
class Shelf:
    """Artefacts in folders; counts how often one is fetched."""

    folder: Path
    fetched: int = 0

    def fetch(self, registered: Registered, into: Path) -> Path:
        self.fetched += 1
        return Path(shutil.copytree(self.folder / registered.version, into))

    def put(self, version: str, model: ChoiceModel) -> Registered:
        model.save(self.folder / version)
        return Registered(PRODUCT_MODEL, version, "run", "")

    def damage(self, version: str, file: str, change: Callable[[str], str]) -> None:
        path = self.folder / version / file
        path.write_text(change(path.read_text()))
        seal(path.parent)


@pytest.fixture
def canary(world: World) -> Canary:
    customers = world.decider.customers
    return Canary.of(world.bank, world.schema, customers, world.ask().as_of)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "shelf")


def test_a_canary_survives_the_way_to_another_process(canary: Canary) -> None:
    again = Canary.of_text(canary.text)
    assert again.text == canary.text
    assert again.present.fingerprint == canary.present.fingerprint
    assert [len(state.at) for state in again.states.values()] == [5] * len(canary.states), "four customers and nobody"


def test_an_artefact_that_never_answers_is_ended_and_refused_and_those_around_it_pass(
    world: World, canary: Canary, shelf: Shelf, model_of: ModelOf, tmp_path: Path
) -> None:
    wanted = [shelf.put(name, model_of(world.schema, "lightgbm", 1)) for name in ("good", "endless", "last")]
    shelf.damage("endless", "booster.txt", in_circles)
    good, endless, last = Trial(shelf.fetch, canary, tmp_path / "passed", SECONDS)(wanted, lambda: False)
    assert isinstance(good, ChoiceModel)
    assert isinstance(last, ChoiceModel)
    np.testing.assert_array_equal(canary.answer(PRODUCT_MODEL, good), canary.answer(PRODUCT_MODEL, last))
    assert isinstance(endless, Refused)
    assert endless.reason.startswith("the process that tried it out was ended by SIGPROF")


@pytest.mark.parametrize(
    ("file", "before", "after", "reason"),
    [
        ("booster.txt", "leaf_value=", "leaf_value=nan ", "finite"),
        ("question.json", "next-best-product", "channel-choice", "must choose among"),
        ("rows.json", '"age"', '"aged"', "trained"),
        ("scorer.json", '"lightgbm"', '"oracle"', "oracle"),
        ("calibration.json", "{", "[", "not a model"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(
    file: str, before: str, after: str, reason: str, world: World, canary: Canary, shelf: Shelf, model_of: ModelOf
) -> None:
    shelf.put("1", model_of(world.schema, "lightgbm", 1))
    shelf.damage("1", file, lambda text: text.replace(before, after, 1))
    with pytest.raises(ArtefactError, match=reason):
        canary.answer(PRODUCT_MODEL, ChoiceModel.load(shelf.folder / "1"))


def test_who_passed_is_not_tried_out_again_unless_something_differs(
    world: World, canary: Canary, shelf: Shelf, model_of: ModelOf, tmp_path: Path
) -> None:
    wanted = [shelf.put("1", model_of(world.schema, "prior", 1))]
    trial = Trial(shelf.fetch, canary, tmp_path / "passed", SECONDS)
    assert isinstance(trial(wanted, lambda: False)[0], ChoiceModel)
    assert len(list((tmp_path / "passed").iterdir())) == 1
    assert isinstance(trial(wanted, lambda: True)[0], ChoiceModel), "no process is started that could be stopped"
    shutil.rmtree(shelf.folder / "1")
    shelf.put("1", model_of(world.schema, "prior", 2))
    with pytest.raises(Stopped):
        trial(wanted, lambda: True)
    (mark,) = (tmp_path / "passed").iterdir()
    shutil.rmtree(shelf.folder / "1")
    shelf.put("1", model_of(world.schema, "prior", 1))
    mark.write_text("something else")
    outcome = trial(wanted, lambda: True)[0]
    assert isinstance(outcome, Refused)
    assert "same twice" in outcome.reason


def test_a_schema_with_swapped_columns_does_not_fit(world: World, canary: Canary, model_of: ModelOf) -> None:
    names = world.schema.customer_names
    swapped = RowSchema(**{**vars_of(world.schema), "customer_names": (*names[:-2], names[-1], names[-2])})
    with pytest.raises(ArtefactError, match="other customer columns"):
        canary.answer(PRODUCT_MODEL, model_of(swapped, "prior", 1))


def vars_of(schema: RowSchema) -> dict[str, Any]:
    return {name: getattr(schema, name) for name in schema.__dataclass_fields__}

"""From the registry that training writes to a model that answers."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from features.errors import ArtefactError
from features.schema import Bool, Float64, Rows, RowSchema
from serving.calibration import IDENTITY, Calibration
from serving.choice import ChoiceModel
from serving.question import Question
from serving.registry import MOST_BYTES, PRODUCT_MODEL, Loaded, Registry, champion, misfit, resolve
from serving.registry import Registered as Version
from serving.scorers import Layout, PriorScorer
from serving.worths import panel
from training.track import MODEL_FOLDER, PRIOR_FOLDER, Tracking

if TYPE_CHECKING:
    from conftest import World
else:
    World = Any


@dataclass(frozen=True)
class Registered:
    uri: str
    version: str
    run_id: str
    folder: Path


def choice_model(schema: RowSchema, prior: tuple[float, ...]) -> ChoiceModel:
    question = Question(PRODUCT_MODEL, schema.products, "product", "joint", True, 30.0)
    scorer = PriorScorer(Layout.of(question, schema), np.log(np.array(prior, dtype=np.float32)))
    return ChoiceModel(question, scorer, Calibration("identity"), schema)


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, world: World) -> Registered:
    """A registry with one champion and its prior, written by training's own code."""
    folder = tmp_path_factory.mktemp("mlruns")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    tracking = Tracking(uri)
    with tracking.run(tracking.experiment("test"), "run", {}) as run:
        for name, prior in ((MODEL_FOLDER, (0.3, 0.1, 0.6)), (PRIOR_FOLDER, (0.1, 0.1, 0.8))):
            choice_model(world.schema, prior).save(folder / "made" / name)
            run.folder(folder / "made" / name, name)
    version = tracking.register(PRODUCT_MODEL, run, champion=True)
    return Registered(uri, version, run.id, folder)


def test_the_champion_that_training_registered_answers(registered: Registered, world: World) -> None:
    loaded = champion(PRODUCT_MODEL, registered.uri)
    assert (loaded.version, loaded.run_id) == (registered.version, registered.run_id)
    decider = world.decider
    rows = decider.assemble(decider.customers.read(["anna"]), np.array([0.0]), world.schema)
    answer = loaded.model.probabilities(rows, np.ones((1, 2), dtype=np.bool_))
    assert answer == pytest.approx(np.array([[0.3, 0.1]]), abs=1e-6)


def test_a_version_a_run_and_an_alias_name_the_same_model(registered: Registered) -> None:
    references = (registered.version, registered.run_id, "champion")
    assert {resolve(PRODUCT_MODEL, reference, registered.uri).version for reference in references} == {
        registered.version
    }


@pytest.mark.parametrize("reference", ["nobody", "99", "0" * 32])
def test_what_is_not_registered_is_a_reason(registered: Registered, reference: str) -> None:
    with pytest.raises(ArtefactError, match=reference):
        resolve(PRODUCT_MODEL, reference, registered.uri)


def test_asking_a_registry_that_does_not_exist_does_not_create_it(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no MLflow database"):
        champion(PRODUCT_MODEL, f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_artefact_is_refused(registered: Registered, world: World, tmp_path: Path) -> None:
    tracking = Tracking(registered.uri)
    with tracking.run(tracking.experiment("test"), "damaged", {}) as run:
        choice_model(world.schema, (0.3, 0.1, 0.6)).save(tmp_path / "model")
        run.folder(tmp_path / "model", MODEL_FOLDER)
    root = tracking.client.get_run(run.id).info.artifact_uri
    tracking.client.create_registered_model("other")
    version = tracking.client.create_model_version("other", source=f"{root}/{MODEL_FOLDER}", run_id=run.id)
    assert resolve("other", str(version.version), registered.uri).run_id == run.id
    question = Path(root.removeprefix("file://")) / MODEL_FOLDER / "question.json"
    question.write_bytes(question.read_bytes()[:-5])
    with pytest.raises(ArtefactError, match="SHA-256"):
        resolve("other", str(version.version), registered.uri)


def test_a_model_of_other_products_channels_or_attributes_does_not_fit(world: World) -> None:
    present = world.schema
    assert present.vocabularies == (("first_name", ("Anna", "Hedwig", "Stille")),)
    shorter = tuple(name for name in present.customer_names if "Hedwig" not in name and "Stille" not in name)
    fewer_words = replace(present, vocabularies=(("first_name", ("Anna",)),), customer_names=shorter)
    assert misfit(fewer_words, present) is None
    assert misfit(replace(present, customer_names=present.customer_names[:-1]), present) is not None
    for part in ("products", "holdable", "channels", "attributes"):
        reason = misfit(replace(present, **{part: ()}), present)
        assert reason is not None
        assert part in reason


@dataclass(frozen=True)
class Fixed:
    row_schema: RowSchema
    question: Question
    calibration: Calibration = IDENTITY

    def probabilities(self, rows: Rows, available: Bool) -> Float64:
        return np.where(available, 0.1, np.nan)


def test_a_model_that_does_not_fit_is_left_out_and_the_prior_answers(world: World) -> None:
    good, bad = world.schema, replace(world.schema, channels=("fax",))
    question = Question(PRODUCT_MODEL, good.products, "product", "joint", True, 30.0)

    def load(name: str, reference: str) -> Loaded:
        schema = bad if reference == "champion" else good
        version = {"champion": "2", "prior": "1"}[reference]
        return Loaded(Fixed(schema, question), name, version, "run")  # type: ignore[arg-type]  # what serving uses of it

    made = panel(PRODUCT_MODEL, good.products, True, "champion", load, good)
    assert [source.name for source in made.sources] == ["prior"]
    assert made.missing == ("no usable champion of next-best-product",)


def test_a_registry_that_is_out_of_reach_leaves_an_empty_panel(world: World) -> None:
    def load(name: str, reference: str) -> Loaded:
        raise ArtefactError("gone")

    made = panel(PRODUCT_MODEL, world.schema.products, True, "champion", load, world.schema)
    assert made.sources == ()
    assert made.missing


def test_the_stamp_moves_with_the_aliases_and_with_nothing_else(registered: Registered) -> None:
    registry = Registry(registered.uri)
    before = registry.stamp()
    registry.find(PRODUCT_MODEL, "champion")
    assert registry.stamp() == before
    client = Tracking(registered.uri).client
    for version in ("1", registered.version):
        client.set_registered_model_alias(PRODUCT_MODEL, "moving", version)
        assert registry.stamp() != before
        assert registry.find(PRODUCT_MODEL, "moving").version == version
        before = registry.stamp()


def test_a_registry_that_only_asking_can_tell_of_has_no_stamp() -> None:
    assert Registry("http://127.0.0.1:9").stamp() is None


def test_what_is_fetched_is_a_copy(registered: Registered, tmp_path: Path) -> None:
    registry = Registry(registered.uri)
    found = registry.find(PRODUCT_MODEL, "champion")
    copy = registry.fetch(found, tmp_path / "copy")
    assert copy.is_relative_to(tmp_path)
    assert ChoiceModel.load(copy).question.model == PRODUCT_MODEL


def link(folder: Path) -> None:
    (folder / "scorer.json").symlink_to("/etc/passwd")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "scorer.json")


def inner(folder: Path) -> None:
    (folder / "scorer.json").mkdir()


def huge(folder: Path) -> None:
    with (folder / "scorer.json").open("wb") as file:
        file.truncate(MOST_BYTES + 1)


def many(folder: Path) -> None:
    for number in range(65):
        (folder / f"{number}.json").touch()


@pytest.mark.parametrize("put", [link, pipe, inner, huge, many], ids=lambda put: put.__name__)
def test_what_is_no_folder_of_a_few_ordinary_files_is_not_even_copied(
    put: Callable[[Path], None], registered: Registered, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    put(folder)
    with pytest.raises(ArtefactError, match="train"):
        Registry(registered.uri).fetch(Version(PRODUCT_MODEL, "1", "run", str(folder)), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_folder_that_is_not_there_is_an_artefact_s_fault(registered: Registered, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="not a folder that can be read"):
        Registry(registered.uri).fetch(Version(PRODUCT_MODEL, "1", "run", str(tmp_path / "no")), tmp_path / "copy")

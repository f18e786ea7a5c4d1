"""The choice model: the masked softmax, ranks, and an artefact that is either whole or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.errors import ArtefactError
from features.schema import Float32, Rows
from serving.calibration import IDENTITY, Calibration
from serving.choice import ChoiceModel, Question, masked_log_softmax, ranks
from training.families import FAMILIES

JOINT = Question("next-best-product", ("a", "b", "c"), "product", "joint", True, 30.0)
ONLY_INSIDE = replace(JOINT, outside=False)
EACH = replace(JOINT, link="each")
UTILITIES = np.log(np.array([[1, 2, 5, 2]], dtype=np.float32))
ALL = np.ones((1, 3), dtype=bool)


def test_joint_shares_are_over_the_available_and_the_outside_option() -> None:
    np.testing.assert_allclose(JOINT.probabilities(UTILITIES, ALL), [[0.1, 0.2, 0.5]], rtol=1e-6)
    without_last = np.array([[True, True, False]])
    np.testing.assert_allclose(JOINT.probabilities(UTILITIES, without_last), [[0.2, 0.4, np.nan]], rtol=1e-6)


def test_without_outside_option_the_shares_are_over_the_available() -> None:
    np.testing.assert_allclose(ONLY_INSIDE.probabilities(UTILITIES, ALL), [[1 / 8, 2 / 8, 5 / 8]], rtol=1e-6)


def test_each_candidate_alone_stands_against_the_outside_option() -> None:
    np.testing.assert_allclose(EACH.probabilities(UTILITIES, ALL), [[1 / 3, 2 / 4, 5 / 7]], rtol=1e-6)


@pytest.mark.parametrize("question", [JOINT, ONLY_INSIDE, EACH])
def test_extreme_utilities_overflow_nowhere(question: Question) -> None:
    utilities = np.array([[3e38, -3e38, 0, 3e38], [-3e38, -3e38, -3e38, 0], [800, -800, 0, 0]], dtype=np.float32)
    probabilities = question.probabilities(utilities, np.ones((3, 3), dtype=bool))
    assert np.isfinite(probabilities).all()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()


def test_a_shift_of_all_utilities_changes_nothing() -> None:
    shifted = masked_log_softmax(UTILITIES.astype(np.float64) + 700.0, np.ones((1, 4), dtype=bool))
    np.testing.assert_allclose(np.exp(shifted), [[0.1, 0.2, 0.5, 0.2]], rtol=1e-6)


def test_nothing_available_is_minus_infinity_throughout() -> None:
    assert np.isneginf(masked_log_softmax(UTILITIES, np.zeros((1, 4), dtype=bool))).all()


def test_ranks_put_the_most_probable_first_and_break_ties_by_order() -> None:
    probabilities = np.array([[0.2, 0.5, 0.2, np.nan, 0.9]])
    available = np.array([[True, True, True, True, False]])
    np.testing.assert_array_equal(ranks(probabilities, available), [[2, 1, 3, 0, 0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": ("a", "a")}, "distinct"),
        ({"candidates": ()}, "at least one"),
        ({"link": "each", "outside": False}, "outside"),
        ({"link": "ordered"}, "link"),
        ({"block": "content"}, "block"),
    ],
)
def test_a_question_without_sense_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(JOINT, **change)


def test_a_question_survives_json() -> None:
    assert Question.from_json(EACH.to_json()) == EACH


@dataclass(frozen=True)
class Told:
    """A scorer that says what it is told."""

    says: Float32
    family: str = "told"

    def utilities(self, rows: Rows) -> Float32:
        return self.says

    def save(self, folder: Path) -> None:
        raise OSError("the disk is full")


@pytest.fixture
def told(choice_world: Callable[..., Any]) -> Callable[..., tuple[ChoiceModel, Rows]]:
    def make(says: list[list[float]], link: str = "joint", outside: bool = True) -> tuple[ChoiceModel, Rows]:
        world = choice_world(len(says), 1, link=link, outside=outside)
        rows = world.examples.rows
        return ChoiceModel(world.question, Told(np.array(says, np.float32)), IDENTITY, rows.schema), rows

    return make


def test_candidates_without_a_finite_utility_are_dropped_and_counted(told: Callable[..., Any]) -> None:
    model, rows = told([[0, np.nan, 0, np.inf, 0], [0, 0, 0, 0, 0]])
    available = np.array([[True, True, True, True], [True, True, False, True]])
    scored = model.score(rows, available)
    assert scored.dropped == 2
    np.testing.assert_allclose(scored.probabilities[0], [1 / 3, np.nan, 1 / 3, np.nan])
    np.testing.assert_allclose(scored.probabilities[1], [1 / 4, 1 / 4, np.nan, 1 / 4])
    np.testing.assert_array_equal(ranks(scored.probabilities, available)[0], [1, 0, 2, 0])


def test_a_broken_outside_option_drops_the_row_where_it_is_needed_only(told: Callable[..., Any]) -> None:
    available = np.ones((1, 4), dtype=bool)
    model, rows = told([[0, 0, 0, 0, np.nan]])
    assert model.score(rows, available).dropped == 4
    model, rows = told([[0, 0, 0, 0, np.nan]], outside=False)
    np.testing.assert_allclose(model.probabilities(rows, available), 0.25)


def test_calibrated_shares_without_outside_option_still_sum_to_one(told: Callable[..., Any]) -> None:
    model, rows = told([[3, 1, 0, 2, 0]], outside=False)
    sharpened = replace(model, calibration=Calibration("temperature", (0.5,)))
    available = np.array([[True, True, False, True]])
    weights = np.exp([6.0, 2.0, 4.0])
    np.testing.assert_allclose(
        sharpened.probabilities(rows, available)[0, [0, 1, 3]], weights / weights.sum(), rtol=1e-6
    )


def test_availability_of_the_wrong_shape_is_refused(told: Callable[..., Any]) -> None:
    model, rows = told([[0, 0, 0, 0, 0]])
    with pytest.raises(ValueError, match="available"):
        model.probabilities(rows, np.ones((1, 5), dtype=bool))


@pytest.fixture(scope="module")
def saved(choice_world: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small LightGBM model on disk."""
    world = choice_world(200, 1)
    fitted = FAMILIES["lightgbm"].fit(world.question, world.examples, world.examples)
    folder = tmp_path_factory.mktemp("artefacts") / "model"
    ChoiceModel(world.question, fitted.scorer, IDENTITY, world.examples.rows.schema).save(folder)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    """A copy of the model to damage."""
    (tmp_path / "model").mkdir()
    for path in saved.iterdir():
        (tmp_path / "model" / path.name).write_bytes(path.read_bytes())
    return tmp_path / "model"


FILES = ("question.json", "rows.json", "calibration.json", "scorer.json", "booster.txt")


def test_the_manifest_names_every_file(saved: Path) -> None:
    assert sorted(json.loads((saved / "manifest.json").read_text())["files"]) == sorted(FILES)
    assert sorted(path.name for path in saved.iterdir()) == sorted([*FILES, "manifest.json"])


def test_all_of_forty_truncated_tree_files_are_refused(copied: Path) -> None:
    whole = (copied / "booster.txt").read_bytes()
    for cut in range(40):
        (copied / "booster.txt").write_bytes(whole[: len(whole) * cut // 40])
        with pytest.raises(ArtefactError, match=r"booster\.txt differs"):
            ChoiceModel.load(copied)
    (copied / "booster.txt").write_bytes(whole)
    ChoiceModel.load(copied)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file_is_refused(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(ArtefactError, match=name):
        ChoiceModel.load(copied)


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_refused(copied: Path, name: str) -> None:
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(bytes(content))
    with pytest.raises(ArtefactError, match=f"{name} differs"):
        ChoiceModel.load(copied)


@pytest.mark.parametrize("name", ["extra.json", "folder/extra.txt"])
def test_an_extra_file_is_refused(copied: Path, name: str) -> None:
    (copied / name).parent.mkdir(exist_ok=True)
    (copied / name).write_text("{}")
    with pytest.raises(ArtefactError, match="not in the manifest"):
        ChoiceModel.load(copied)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"files": 3}', "\x00"])
def test_a_damaged_manifest_is_refused(copied: Path, content: str) -> None:
    (copied / "manifest.json").write_text(content)
    with pytest.raises(ArtefactError):
        ChoiceModel.load(copied)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="train again"):
        ChoiceModel.load(tmp_path / "nowhere")


def test_a_save_that_fails_leaves_nothing_behind(told: Callable[..., Any], tmp_path: Path) -> None:
    model, _ = told([[0, 0, 0, 0, 0]])
    with pytest.raises(OSError, match="disk is full"):
        model.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_save_overwrites_no_model(saved: Path, copied: Path) -> None:
    with pytest.raises(ArtefactError, match="new folder"):
        ChoiceModel.load(saved).save(copied)
    ChoiceModel.load(copied)

"""The ensemble: the mean of its members' utilities, each fitted as it was, with nobody worse than the prior."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.errors import ArtefactError, InputError
from serving.choice import MANIFEST, ChoiceModel, verify
from serving.ensemble import EnsembleScorer
from serving.registry import _check_ordinary
from serving.scorers import SCORER_FILE, PriorScorer
from training import fit_counts, fit_ensemble, fit_lightgbm, fit_prior
from training.families import Fitted

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def fitted(choice_world: Make) -> dict[str, Fitted]:
    train, valid = choice_world(600, 1), choice_world(300, 2)
    parts = (train.question, train.examples, valid.examples)
    return {"prior": fit_prior.fit(*parts), "counts": fit_counts.fit(*parts), "lightgbm": fit_lightgbm.fit(*parts)}


@pytest.fixture(scope="module")
def ensemble(fitted: dict[str, Fitted], choice_world: Make) -> Fitted:
    train = choice_world(600, 1)
    chosen = {name: fitted[name] for name in ("counts", "lightgbm")}
    return fit_ensemble.of(train.question, train.examples, chosen, fitted["prior"])


def test_its_probabilities_are_the_normalised_geometric_mean_whatever_is_available(
    fitted: dict[str, Fitted], ensemble: Fitted, choice_world: Make
) -> None:
    world = choice_world(200, 3)
    rows, question = world.examples.rows, world.question
    draw = np.random.default_rng(0)
    for share in (1.0, 0.5, 0.2):
        available = draw.random((200, 4)) < share
        each = [
            question.probabilities(fitted[name].scorer.utilities(rows), available) for name in ("counts", "lightgbm")
        ]
        outside = [1 - np.nansum(one, axis=1) for one in each]
        product = np.where(available, np.sqrt(np.nan_to_num(each[0]) * np.nan_to_num(each[1])), 0)
        total = product.sum(axis=1) + np.sqrt(outside[0] * outside[1])
        found = np.nan_to_num(question.probabilities(ensemble.scorer.utilities(rows), available))
        np.testing.assert_allclose(found, product / total[:, None], atol=2e-6)


def test_nothing_is_fitted_again_where_the_members_are_there(fitted: dict[str, Fitted], ensemble: Fitted) -> None:
    assert isinstance(ensemble.scorer, EnsembleScorer)
    assert [member is fitted[member.family].scorer for member in ensemble.scorer.members] == [True, True]
    assert ensemble.seconds == fitted["counts"].seconds + fitted["lightgbm"].seconds


def test_a_refit_fits_each_member_again_with_its_own_rounds(ensemble: Fitted, choice_world: Make) -> None:
    more = choice_world(700, 4)
    like = replace(ensemble, parts=(replace(ensemble.parts[0], rounds=1), replace(ensemble.parts[1], rounds=3)))
    again = fit_ensemble.refit(more.question, more.examples, like)
    assert [part.rounds for part in again.parts] == [1, 3]
    alone = fit_lightgbm.refit(more.question, more.examples, like.parts[1])
    assert isinstance(again.scorer, EnsembleScorer)
    rows = more.examples.rows
    np.testing.assert_array_equal(again.scorer.members[1].utilities(rows), alone.scorer.utilities(rows))


def test_who_is_surely_worse_than_the_prior_is_no_member(fitted: dict[str, Fitted], choice_world: Make) -> None:
    valid = choice_world(300, 2).examples
    prior = fitted["prior"].scorer
    assert isinstance(prior, PriorScorer)
    wrong = replace(fitted["counts"], scorer=PriorScorer(prior.layout, -prior.prior))
    assert list(fit_ensemble.members(fitted, valid)) == ["counts", "lightgbm"]
    assert list(fit_ensemble.members({**fitted, "counts": wrong}, valid)) == ["lightgbm"]


def test_an_ensemble_of_nobody_is_an_error_that_says_why(fitted: dict[str, Fitted], choice_world: Make) -> None:
    world = choice_world(50, 1)
    with pytest.raises(InputError, match="surely worse than the prior"):
        fit_ensemble.of(world.question, world.examples, {}, fitted["prior"])


@pytest.fixture
def saved(ensemble: Fitted, choice_world: Make, tmp_path: Path) -> Path:
    from serving.calibration import IDENTITY

    world = choice_world(1, 1)
    ChoiceModel(world.question, ensemble.scorer, IDENTITY, world.examples.rows.schema).save(tmp_path / "model")
    return tmp_path / "model"


def test_members_lie_in_folders_of_their_own_and_every_file_is_verified(saved: Path) -> None:
    files = json.loads((saved / MANIFEST).read_text())["files"]
    assert {"scorer.json", "counts/scorer.json", "counts/tables.safetensors", "lightgbm/booster.txt"} <= set(files)
    _check_ordinary(saved)
    (saved / "counts/tables.safetensors").write_bytes(b"damaged")
    with pytest.raises(ArtefactError, match="damaged"):
        verify(saved)
    (saved / "counts/tables.safetensors").unlink()
    with pytest.raises(ArtefactError, match="missing"):
        verify(saved)


def test_what_lies_deeper_than_the_members_is_not_ordinary(saved: Path) -> None:
    (saved / "counts/inner").mkdir()
    with pytest.raises(ArtefactError, match="inner"):
        _check_ordinary(saved)


@pytest.mark.parametrize("name", ["../prior", "ensemble", 3])
def test_a_member_that_is_no_family_s_folder_is_refused(saved: Path, name: object) -> None:
    document = json.loads((saved / SCORER_FILE).read_text())
    document["config"]["members"] = [name]
    (saved / SCORER_FILE).write_text(json.dumps(document))
    with pytest.raises(ArtefactError, match="members are families"):
        EnsembleScorer.load(saved)


def test_a_member_of_other_rows_is_refused(saved: Path) -> None:
    document = json.loads((saved / "counts" / SCORER_FILE).read_text())
    document["layout"]["fingerprint"] = "another"
    (saved / "counts" / SCORER_FILE).write_text(json.dumps(document))
    with pytest.raises(ArtefactError, match="same rows"):
        EnsembleScorer.load(saved)

"""The gate in a world whose truth is known: who passes, who is refused, and by which rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from features.schema import Attribute, Float64, RowSchema
from serving.question import Question
from training.predictions import CHAMPION, MODEL, Predictions
from training.promotion.candidate import Candidate
from training.promotion.gate import Verdict, judge_promotion
from training.promotion.gate_relative import shared
from training.promotion.leak import Leaks, Separation

PRODUCTS = ("account", "card", "loan", "fund")
CUSTOMERS, TIMES = 1200, 2
COSTS = {"latency_ms_p50": 2.0, "latency_ms_p99": 4.0, "model_bytes": 30e6}
HONEST = Leaks((Separation("age", "card", 0.7, 0.5, 90),), {"card": 90, "loan": 90})
SCHEMA = RowSchema(PRODUCTS, (True,) * 4, ("app",), (), (), "UTC", ("age",), (), ())


class World:
    """Customers of two segments who are asked twice; each has a favourite that is taken three times in ten, and what
    else may be had one time in fifty. About every tenth product is held. `truth` are the true probabilities."""

    def __init__(self, seed: int = 0, start: int = 0) -> None:
        draw = np.random.default_rng(seed)
        count = CUSTOMERS * TIMES
        customers = np.repeat(np.array([f"c{place}" for place in range(CUSTOMERS)], dtype=object), TIMES)
        favourite = np.repeat(draw.integers(4, size=CUSTOMERS), TIMES)
        self.available = draw.random((count, 4)) > 0.1
        self.truth = np.where(np.arange(4) == favourite[:, None], 0.3, 0.02)
        lot = draw.random((count, 1))
        upper = np.cumsum(np.where(self.available, self.truth, 0.0), axis=1)
        self.taken = (lot < upper) & (lot >= np.concatenate([np.zeros((count, 1)), upper[:, :-1]], axis=1))
        self.segment = np.repeat(np.where(draw.random(CUSTOMERS) < 0.4, "few", "many").astype(object), TIMES)
        self.customers = customers
        self.as_of = start + np.tile(np.arange(TIMES, dtype=np.int64), CUSTOMERS)
        self.known = np.repeat(draw.random(CUSTOMERS) < 0.5, TIMES)

    @property
    def half_of_the_truth(self) -> Float64:
        """What somebody says who knows the favourites of half of the customers: calibrated, and worse."""
        return np.where(self.known[:, None], self.truth, 0.09)

    @property
    def prior(self) -> Float64:
        return np.full(self.truth.shape, 0.09)

    def says(self, said: Float64, **others: Float64) -> Predictions:
        every = np.ones(len(said), np.bool_)
        told = {MODEL: said, "prior": self.prior, **others}
        return Predictions(
            Question("next-best-product", PRODUCTS, "product", "joint", True, 30.0),
            self.customers,
            self.as_of,
            self.available,
            self.taken,
            every,
            self.taken.any(axis=1),
            every,
            {name: np.where(self.available, values, np.nan) for name, values in told.items()},
            {"segment": self.segment},
        )

    def candidate(self, said: Float64 | None = None, run_id: str = "a" * 32, **changes: object) -> Candidate:
        """Who says this, `truth` unless told otherwise; everything else about it is in order."""
        params = {"model": "next-best-product", "chosen_family": "lightgbm"}
        rest = {"costs": COSTS, "params": params, "leaks": HONEST, "schema": SCHEMA, **changes}
        return Candidate(run_id, self.says(self.truth if said is None else said), **rest)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def champion(world: World) -> Candidate:
    """It knows the truth."""
    return world.candidate(run_id="b" * 32)


def refused(verdict: Verdict) -> set[str]:
    assert verdict.passed is not any(check.passed is False for check in verdict.checks)
    return {check.name for check in verdict.refusals}


def uncounted(verdict: Verdict) -> dict[str, str]:
    return {check.name: check.reason for check in verdict.not_counted}


def test_who_knows_the_truth_passes_alone_and_beside_its_like(world: World, champion: Candidate) -> None:
    assert refused(judge_promotion(world.candidate(), None)) == set()
    assert refused(judge_promotion(world.candidate(), champion)) == set()


def test_a_truly_better_model_passes(world: World) -> None:
    champion = world.candidate(world.half_of_the_truth, "b" * 32)
    verdict = judge_promotion(world.candidate(), champion)
    assert refused(verdict) == set()
    gain = next(check for check in verdict.checks if check.name == "not worse than the champion")
    assert gain.measured is not None
    assert gain.measured > 0.02


def test_a_worse_model_is_refused(world: World, champion: Candidate) -> None:
    worse = world.candidate(world.half_of_the_truth)
    assert "not worse than the champion" in refused(judge_promotion(worse, champion))


def test_a_model_that_is_surely_a_little_worse_is_refused(world: World, champion: Candidate) -> None:
    """It knows the favourites of nine in ten, and so loses a tenth of the lead over the prior: surely, and no more."""
    tenth = np.repeat(np.arange(CUSTOMERS) % 10 == 0, TIMES)
    verdict = judge_promotion(world.candidate(np.where(tenth[:, None], 0.09, world.truth)), champion)
    gap = next(check for check in verdict.refusals if check.name == "not worse than the champion")
    assert gap.measured is not None
    assert gap.allowed is not None
    assert gap.allowed / 2 < gap.measured < 0


def test_a_model_that_may_be_too_much_worse_is_refused_until_there_are_rows_enough_to_tell(world: World) -> None:
    """Each knows the favourites of the half of which the other knows nothing: on the whole they are as good."""
    one = world.candidate(np.where(world.known[:, None], 0.09, world.truth))
    other = world.candidate(world.half_of_the_truth, "b" * 32)
    assert refused(judge_promotion(one, other)) == set()
    few = [each.predictions.take(np.arange(300)) for each in (one, other) if each.predictions is not None]
    one, other = replace(one, predictions=few[0]), replace(other, predictions=few[1])
    verdict = judge_promotion(one, other)
    assert "not worse than the champion" in refused(verdict)
    gap = next(check for check in verdict.refusals if check.name == "not worse than the champion")
    assert gap.measured is not None
    assert gap.allowed is not None
    assert gap.measured > gap.allowed


def test_a_model_that_is_worse_than_knowing_nothing_is_refused_without_a_champion(world: World) -> None:
    backwards = np.where(world.truth > 0.1, 0.02, 0.11)
    assert "not worse than the prior" in refused(judge_promotion(world.candidate(backwards), None))


def test_probabilities_times_two_are_refused_with_and_without_a_champion(world: World, champion: Candidate) -> None:
    double = world.candidate(world.truth * 2)
    assert "calibration" in refused(judge_promotion(double, None))
    assert {"calibration", "calibration beside the champion"} <= refused(judge_promotion(double, champion))


def test_where_times_have_changed_for_all_the_model_is_not_blamed(world: World) -> None:
    fewer = World()
    fewer.taken &= np.random.default_rng(5).random((len(fewer.taken), 1)) < 0.3
    verdict = judge_promotion(fewer.candidate(), None)
    assert refused(verdict) == set()
    assert "times have changed" in next(check.reason for check in verdict.checks if check.name == "calibration")


def test_a_segment_at_half_the_rate_is_refused(world: World, champion: Candidate) -> None:
    halved = world.candidate(np.where((world.segment == "few")[:, None], world.truth / 2, world.truth))
    assert {"calibration in groups beside the champion", "targeted rates"} <= refused(judge_promotion(halved, champion))
    assert "calibration in groups" in refused(judge_promotion(halved, None))


def test_a_segment_may_be_targeted_less_where_more_of_its_takers_are_reached(world: World) -> None:
    """The champion targets nobody but the few, whoever they are; the truth targets whoever takes something."""
    few = (world.segment == "few")[:, None]
    wasteful = world.candidate(np.where(few, 0.1, 0.08), "b" * 32)
    verdict = judge_promotion(world.candidate(), wasteful)
    assert "targeted rates" not in refused(verdict)
    worst = next(check for check in verdict.checks if check.name == "targeted rates")
    assert worst.measured is not None
    assert worst.measured < 0.8


def test_a_prior_targets_nobody_so_no_rates_are_compared_with_it(world: World) -> None:
    prior = world.candidate(world.prior, "b" * 32, params={"chosen_family": "prior"})
    verdict = judge_promotion(world.candidate(), prior)
    assert refused(verdict) == set()
    assert {"targeted rates", "latency beside the champion"} <= set(uncounted(verdict))


@pytest.mark.parametrize(
    ("costs", "rule"),
    [
        ({"latency_ms_p50": 3.1}, "latency beside the champion"),
        ({"latency_ms_p50": 20.5, "champion_latency_ms_p50": 20.0}, "latency"),
        ({"model_bytes": 61e6}, "size"),
    ],
)
def test_a_slower_or_larger_model_is_refused(
    world: World, champion: Candidate, costs: Mapping[str, float], rule: str
) -> None:
    params = {"champion_run": champion.run_id}
    assert refused(judge_promotion(world.candidate(costs=COSTS | costs, params=params), champion)) == {rule}


def test_a_quick_model_may_take_twice_as_long(world: World) -> None:
    quick = world.candidate(run_id="b" * 32, costs=COSTS | {"latency_ms_p50": 0.3, "model_bytes": 1e6})
    assert refused(judge_promotion(world.candidate(costs=COSTS | {"latency_ms_p50": 0.9}), quick)) == {"size"}


def test_latencies_that_were_measured_side_by_side_count_before_those_of_another_day(
    world: World, champion: Candidate
) -> None:
    costs = COSTS | {"latency_ms_p50": 4.0, "champion_latency_ms_p50": 3.5}
    slow_day = world.candidate(costs=costs, params={"champion_run": champion.run_id})
    assert refused(judge_promotion(slow_day, champion)) == set()
    another = replace(slow_day, params={"champion_run": "c" * 32})
    assert refused(judge_promotion(another, champion)) == {"latency beside the champion"}


LEAK = Leaks((Separation("result", "any", 0.99, 0.6, 500, ("any",)),), {"card": 250, "loan": 250})


def test_a_model_with_a_leaked_column_is_refused(world: World) -> None:
    verdict = judge_promotion(world.candidate(leaks=LEAK), None)
    assert refused(verdict) == {"leak"}
    assert "'result'" in verdict.reasons


def test_a_column_that_the_model_does_not_use_is_no_leak(world: World) -> None:
    unused = Leaks((replace(LEAK.columns[0], gain=0.01),), LEAK.take_ups)
    assert refused(judge_promotion(world.candidate(leaks=unused), None)) == set()


def test_where_a_family_does_not_tell_what_it_uses_a_column_that_tells_all_is_a_leak(world: World) -> None:
    unknown = Leaks((replace(LEAK.columns[0], gain=None),), LEAK.take_ups)
    assert refused(judge_promotion(world.candidate(leaks=unknown), None)) == {"leak"}


def test_a_column_that_tells_one_rare_product_is_no_leak(world: World) -> None:
    junior = Separation("age", "junior", 0.99, 0.4, 30, ("junior",))
    rare = Leaks((junior,), {"card": 500, "junior": 30})
    assert refused(judge_promotion(world.candidate(leaks=rare), None)) == set()
    usual = Leaks((junior,), {"card": 100, "junior": 30})
    assert refused(judge_promotion(world.candidate(leaks=usual), None)) == {"leak"}


def test_the_columns_of_one_text_are_a_leak_together(world: World) -> None:
    words = tuple(Separation(f"next = {name}", name, 0.99, 0.1, 100, (name,)) for name in PRODUCTS)
    together = Leaks(words, dict.fromkeys(PRODUCTS, 100))
    assert refused(judge_promotion(world.candidate(leaks=together), None)) == {"leak"}
    alone = Leaks(words[:1], dict.fromkeys(PRODUCTS, 100))
    assert refused(judge_promotion(world.candidate(leaks=alone), None)) == set()


def test_a_missing_probability_and_a_ranked_holding_are_refused(world: World) -> None:
    one = world.candidate()
    assert one.predictions is not None
    said = one.predictions.probabilities[MODEL].copy()
    row, held = np.argwhere(~world.available)[0]
    gap = np.argwhere(world.available)[0]
    said[row, held], said[tuple(gap)] = 0.1, np.nan
    broken = replace(one, predictions=replace(one.predictions, probabilities={MODEL: said}))
    assert {"rules", "probabilities"} <= refused(judge_promotion(broken, None))


def test_a_damaged_artefact_is_refused(world: World) -> None:
    assert refused(judge_promotion(world.candidate(damage="scorer.json differs"), None)) == {"artefact"}


def test_nothing_measured_is_no_pass() -> None:
    assert refused(judge_promotion(Candidate("a" * 32, None), None)) == {"evidence"}


def test_without_rows_that_neither_has_learned_from_nothing_is_shown(world: World, champion: Candidate) -> None:
    later = World(start=1000)
    verdict = judge_promotion(later.candidate(), champion)
    assert refused(verdict) == {"not worse than the champion"}
    assert "train on later rows" in verdict.reasons


def test_later_rows_count_where_the_run_asked_this_very_champion(champion: Candidate) -> None:
    later = World(start=1000)
    said = later.says(later.truth, **{CHAMPION: later.truth})
    asked = later.candidate(params={"champion_run": champion.run_id})
    asked = replace(asked, predictions=said)
    assert refused(judge_promotion(asked, champion)) == set()
    assert refused(judge_promotion(asked, replace(champion, version="7"))) == {"not worse than the champion"}
    this_version = replace(asked, params={"champion_version": "7"})
    assert refused(judge_promotion(this_version, replace(champion, version="7"))) == set()


def test_rows_in_which_something_else_could_be_had_are_not_shared(world: World, champion: Candidate) -> None:
    other = World()
    other.available = ~other.available
    assert len(shared(world.candidate(), champion)) == CUSTOMERS * TIMES
    assert len(shared(other.candidate(), champion)) == 0


def test_a_champion_that_cannot_read_the_rows_or_answers_another_question_is_no_measure(
    world: World, champion: Candidate
) -> None:
    worse = world.candidate(world.half_of_the_truth)
    other_rows = replace(champion, schema=replace(SCHEMA, attributes=(Attribute("income", "number"),)))
    assert champion.predictions is not None
    question = replace(champion.predictions.question, horizon_days=60.0)
    other_question = replace(champion, predictions=replace(champion.predictions, question=question))
    for unfit in (other_rows, other_question):
        verdict = judge_promotion(worse, unfit)
        assert refused(verdict) == set()
        assert list(uncounted(verdict)) == ["champion"]


def test_a_champion_that_leaks_is_no_measure(world: World) -> None:
    """It looks better than anybody can be, and nobody honest would ever get past it."""
    seer = world.candidate(np.where(world.taken, 0.9, 0.001), "b" * 32, leaks=LEAK)
    assert refused(judge_promotion(world.candidate(), seer)) == set()
    assert "not worse than the champion" in refused(judge_promotion(world.candidate(), replace(seer, leaks=HONEST)))


def test_a_policy_value_that_is_surely_lower_is_refused_and_a_withheld_one_is_no_evidence(
    world: World, champion: Candidate
) -> None:
    def value(mean: float) -> dict[str, float]:
        return {"test/dr_value": mean, "test/dr_value_low": mean - 1, "test/dr_value_high": mean + 1}

    good = replace(champion, metrics=value(10.0))
    assert refused(judge_promotion(world.candidate(metrics=value(9.0)), good)) == set()
    assert refused(judge_promotion(world.candidate(metrics=value(7.0)), good)) == {"policy value"}
    assert "policy value" in uncounted(judge_promotion(world.candidate(), good))


def test_the_difference_of_policy_values_counts_before_the_values(world: World, champion: Candidate) -> None:
    gap = {"test/dr_value_minus_champion": -1.0, "test/dr_value_minus_champion_low": -1.5}
    surely = world.candidate(metrics=gap | {"test/dr_value_minus_champion_high": -0.5})
    perhaps = world.candidate(metrics=gap | {"test/dr_value_minus_champion_high": 0.5})
    assert refused(judge_promotion(surely, champion)) == {"policy value"}
    assert refused(judge_promotion(perhaps, champion)) == set()


def test_a_content_policy_passes_where_it_is_surely_better_than_the_best_constant_one_or_is_that() -> None:
    gap = {"test/dr_value_minus_best_constant": 1.0, "test/dr_value_minus_best_constant_high": 2.0}
    costs = {"latency_ms_p50": 1.0}

    def judged(low: float, family: str) -> set[str]:
        metrics = gap | {"test/dr_value_minus_best_constant_low": low}
        one = Candidate("a" * 32, None, costs, {"chosen_family": family}, metrics)
        return refused(judge_promotion(one, None))

    assert judged(0.5, "lightgbm") == set()
    assert judged(-0.5, "lightgbm") == {"better than a constant policy"}
    assert judged(-0.5, "constant") == set()


def test_the_champion_itself_is_only_looked_at_alone(champion: Candidate) -> None:
    verdict = judge_promotion(champion, champion)
    assert verdict.champion is None
    assert refused(verdict) == set()


def test_the_same_seed_gives_the_same_verdict_and_json_keeps_it(world: World, champion: Candidate) -> None:
    worse = world.candidate(world.half_of_the_truth)
    verdict = judge_promotion(worse, champion, 3)
    assert verdict == judge_promotion(worse, champion, 3)
    assert verdict != judge_promotion(worse, champion, 4)
    assert Verdict.from_json(verdict.to_json()) == verdict

"""What actions are worth, factor by factor."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.arbitration import FACTORS, Arbitration, Declared, Weight, read_declared
from features.catalog import Catalog, Channel, Product
from features.errors import InputError
from features.evidence import Evidence
from features.schema import Rows, RowSchema
from serving.calibration import Calibration
from serving.choice import ChoiceModel, Question
from serving.response import Rates, opt_out_rates, responses, smoothed, usual_rates
from serving.scoring import Panel, Source, source_of
from serving.value import Factors, Worth

CATALOG = Catalog(
    "EUR",
    "UTC",
    (Product("a", "A", margin=100.0, group="cards"), Product("b", "B", margin=300.0), Product("c", "C")),
    (Channel("push", "Push", cost=0.5), Channel("sms", "SMS", cost=2.0)),
)
BARE = Arbitration(opt_out=0.0, benefit_share=0.0, disturbance=0.0)
COSTS = np.array([0.5, 2.0])
PRODUCTS, CHANNELS, PAIRS = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.25]), [(0, 0), (1, 1)]


def worth(*weights: Weight, **rules: Any) -> Worth:
    return Worth.of(CATALOG, Declared(replace(BARE, **rules), weights))


def values(of: Worth, **more: Any) -> Any:
    return of.expected(PRODUCTS, CHANNELS, PAIRS, **more)


def test_value_is_probability_times_margin_minus_cost() -> None:
    assert values(worth()) == pytest.approx([0.1 * 0.5 * 100 - 0.5, 0.2 * 0.25 * 300 - 2.0])


def test_a_contact_costs_what_it_may_lose_in_reachability_more_so_for_a_tired_customer() -> None:
    tiring = worth(opt_out=0.01, opt_out_growth=0.5, reachability=50.0)
    assert values(tiring) == pytest.approx(values(worth()) - 0.01 * 50)
    assert values(tiring, pressure=2.0) == pytest.approx(values(worth()) - 0.01 * 2 * 50)
    assert values(tiring, pressure=1e9) == pytest.approx(values(worth()) - 50), "one cannot lose more than everything"


def test_the_customers_side_adds_what_a_take_up_brings_them_and_subtracts_the_disturbance() -> None:
    both = worth(benefit_share=0.2, disturbance=0.3)
    assert values(both) == pytest.approx(values(worth()) + np.array([0.05 * 20 - 0.3, 0.05 * 60 - 0.3]))


def test_defaults_cost_a_little_and_scale_with_the_margins() -> None:
    default = Worth.of(CATALOG, Declared(Arbitration(benefit_share=0.0)))
    assert values(default) == pytest.approx(values(worth()) - 0.002 * 0.05 * 200 - 0.0001 * 200)


def test_a_lever_weighs_its_product_group_or_channel_and_nothing_else() -> None:
    gross = values(worth()) + COSTS
    for lever in ({"product": "a"}, {"group": "cards"}, {"channel": "push"}):
        pushed = worth(Weight("l", 3.0, **lever))  # type: ignore[arg-type]
        assert values(pushed) == pytest.approx([3 * gross[0] - 0.5, gross[1] - 2])


def test_a_context_weighs_only_customers_that_it_fits() -> None:
    rainy = worth(Weight("x", 2.0, attribute="segment", equals="young"))
    assert values(rainy, customer={"segment": "young"}) == pytest.approx(2 * (values(worth()) + COSTS) - COSTS)
    assert values(rainy, customer={"segment": "old"}) == pytest.approx(values(worth()))
    assert values(rainy) == pytest.approx(values(worth()))


@pytest.mark.parametrize("factor", FACTORS)
def test_a_factor_that_is_switched_off_no_longer_tells_actions_apart(factor: str) -> None:
    names = {"customer": ("benefit", "disturbance")}.get(factor, (factor,))
    same = {item.name: np.array([0.5, 0.5]) for item in fields(Factors)}
    different = Factors(**{**same, **{name: np.array([0.1, 0.4]) for name in names}})
    assert np.ptp(different.total()) > 0
    assert np.ptp(different.total({factor})) == pytest.approx(0)
    assert np.isfinite(different.total({factor})).all()


def test_factors_switched_off_in_the_catalogue_are_left_out_of_the_value() -> None:
    assert values(worth(off=("cost",))) == pytest.approx(values(worth()) + COSTS)


def test_a_take_up_through_a_message_is_never_more_than_certain() -> None:
    sure = replace(worth(), response=np.full((3, 2), 1e9))
    assert values(sure) == pytest.approx([100 - 0.5, 300 - 2])


def test_a_product_without_a_margin_counts_as_the_mean_of_the_others() -> None:
    assert worth().margins.tolist() == [100, 300, 200]


def test_without_any_margin_values_count_take_ups_and_everything_in_money_is_left_out() -> None:
    bare = Worth.of(replace(CATALOG, products=(Product("a", "A"), Product("b", "B"))))
    assert bare.unit == "take-ups"
    assert bare.expected(np.array([0.1, 0.2]), np.array([0.5, 0.25]), [(1, 1)]) == pytest.approx([0.05])


def test_no_pairs_have_no_values() -> None:
    assert worth().expected(np.zeros(3), np.zeros(2), []).shape == (0,)


def test_factors_of_an_action_can_be_stacked_again() -> None:
    found = worth().factors(PRODUCTS, CHANNELS, PAIRS)
    again = Factors.stack(found.rows())
    assert again.total() == pytest.approx(found.total())


def test_a_product_is_smoothed_towards_the_start_propensity_by_its_lack_of_evidence() -> None:
    mixed = smoothed(np.array([0.5, 0.5, np.nan]), np.array([0.0, 20.0, 5.0]), 20.0, 0.1)
    assert mixed == pytest.approx([0.1, (20 * 0.1 + 20 * 0.5) / 40, np.nan], nan_ok=True)


def test_without_a_declared_start_propensity_products_with_evidence_give_it() -> None:
    assert smoothed(np.array([0.9, 0.2, 0.4]), np.array([0.0, 1e9, 1e9]), 20.0, None) == pytest.approx([0.3, 0.2, 0.4])
    assert smoothed(np.array([0.9, 0.2]), np.zeros(2), 20.0, None).tolist() == [0.9, 0.2]


def log(contacts: Any, converted: Any) -> Evidence:
    pairs, taken = np.array(contacts, dtype=np.float64), np.array(converted, dtype=np.float64)
    return Evidence(pairs, taken, pairs.sum(axis=0), np.zeros(pairs.shape[1]), taken.sum(axis=1))


USUAL = Rates(np.array([0.1, 0.01]), np.array([0.5, 0.2]))


def test_without_evidence_or_priors_the_response_factor_is_one() -> None:
    nothing = log(np.zeros((2, 2)), np.zeros((2, 2)))
    assert responses(nothing, USUAL, 20.0) == pytest.approx(np.ones((2, 2)))
    assert responses(nothing, USUAL, 0.0) == pytest.approx(np.ones((2, 2)))
    assert responses(log(np.full((2, 2), 100), np.full((2, 2), 50)), None, 20.0) == pytest.approx(np.ones((2, 2)))


class Says:
    """A model that says the same of everybody."""

    row_schema: Any = None

    def __init__(self, *probabilities: float) -> None:
        self.probabilities_of_all = np.array([probabilities])

    def probabilities(self, rows: Any, available: Any) -> Any:
        return self.probabilities_of_all


def test_usual_rates_are_the_priors_and_unknown_without_one() -> None:
    champion, prior = (
        Source("champion", "2", ("a", "b"), Says(0.9, 0.9)),
        Source("prior", "1", ("a", "b"), Says(0.1, 0.2)),
    )
    both, alone = Panel("q", ("a", "b"), True, (champion, prior)), Panel("q", ("a", "b"), True, (champion,))
    found = usual_rates(both, alone, "prior", lambda schema: schema)  # type: ignore[arg-type, return-value]
    assert found.products.tolist() == [0.1, 0.2]
    assert np.isnan(found.channels).all()
    seen = log(np.full((2, 2), 1e6), np.full((2, 2), 1e4))
    assert responses(seen, found, 20.0) == pytest.approx(np.ones((2, 2))), "what no prior expects is not compared"


@dataclass
class Scorer:
    """A scorer of some family that says the same of everybody."""

    family: str

    def utilities(self, rows: Any) -> Any:
        return np.zeros((1, 3), dtype=np.float32)

    def save(self, folder: Path) -> None: ...


def test_a_prior_that_is_the_champion_itself_tells_the_usual_rates_too() -> None:
    schema = RowSchema(("a", "b"), (False, False), (), (), (), "UTC", (), (), ())
    none = np.zeros((1, 2), dtype=np.bool_)
    blank = np.zeros((1, 2, 0), np.float32)
    nobody = Rows(blank[:, 0], blank, blank, none, none, schema)

    def panel(family: str) -> Panel:
        question = Question("q", ("a", "b"), "product", "joint", True, 7.0)
        model = ChoiceModel(question, Scorer(family), Calibration("identity"), schema)
        return Panel("q", ("a", "b"), True, (Source("champion", "7", ("a", "b"), model),))

    found = usual_rates(panel("prior"), panel("lightgbm"), "prior", lambda _: nobody)
    assert found.products == pytest.approx([1 / 3, 1 / 3])
    assert np.isnan(found.channels).all(), "a champion that looks at the customer is no usual rate"


def test_an_answer_from_scores_that_are_no_probabilities_says_so() -> None:
    schema = RowSchema(("a", "b"), (False, False), (), (), (), "UTC", (), (), ())
    none = np.zeros((1, 2), dtype=np.bool_)
    blank = np.zeros((1, 2, 0), np.float32)
    nobody = Rows(blank[:, 0], blank, blank, none, none, schema)
    question = Question("q", ("a", "b"), "product", "joint", True, 7.0)
    for calibration in (Calibration("none", (), "3 taken"), Calibration("identity")):
        model = ChoiceModel(question, Scorer("lightgbm"), calibration, schema)
        panel = Panel("q", ("a", "b"), True, (source_of("champion", "7", model),))
        said = panel.score(lambda _: nobody, ~none[0]).degraded
        told = "champion of q is uncalibrated: its scores rank, they are no probabilities (3 taken)"
        assert said == ((told,) if calibration.kind == "none" else ())


def test_with_much_evidence_the_response_factor_makes_the_priors_agree_with_the_log() -> None:
    contacts = np.full((2, 2), 1e7)
    rate = np.array([[0.08, 0.01], [0.002, 0.006]])
    found = responses(log(contacts, contacts * rate), USUAL, 20.0)
    assert found * USUAL.products[:, None] * USUAL.channels[None, :] == pytest.approx(rate, rel=0.02)


def test_a_pair_that_was_never_tried_takes_after_its_product_and_its_channel() -> None:
    contacts = np.array([[1e6, 0.0], [1e6, 1e6]])
    expected = USUAL.products[:, None] * USUAL.channels[None, :]
    found = responses(log(contacts, contacts * expected * np.array([[3.0, 1.0], [1.0, 1.0]])), USUAL, 20.0)
    assert found[0, 1] == pytest.approx(3.0, rel=0.05)


def test_a_channel_is_not_credited_for_the_products_that_it_was_used_for() -> None:
    usual = Rates(np.array([0.1, 0.1, 0.1]), np.array([0.5, 0.5]))
    contacts = np.array([[1e6, 1e3], [1e3, 1e6], [0.0, 0.0]])
    found = responses(log(contacts, contacts * 0.05 * np.array([[5.0], [1.0], [0.0]])), usual, 20.0)
    assert found[2, 0] == pytest.approx(found[2, 1], rel=0.05), "nothing but the products differed"


def test_the_declared_opt_out_rate_gives_way_to_the_log() -> None:
    seen = replace(log(np.zeros((1, 2)), np.zeros((1, 2))), sent=np.array([0.0, 1e9]), opted_out=np.array([0.0, 1e7]))
    assert opt_out_rates(seen, 0.002) == pytest.approx([0.002, 0.01], rel=1e-3)


def declared(*policies: dict[str, Any]) -> Declared:
    return read_declared(replace(CATALOG, policies=policies))


def test_declarations_of_the_catalogue_are_read() -> None:
    found = declared(
        {"id": "w", "kind": "arbitration", "reachability": 30, "off": ["lever"]},
        {"id": "l", "kind": "lever", "product": "a", "weight": 1.5},
        {"id": "c", "kind": "context", "channel": "sms", "attribute": "age", "equals": 40, "weight": 0},
        {"id": "m", "kind": "maturity", "mature_at": 50},
        {"id": "x", "kind": "arms", "salt": "s", "shares": {"agent": 0.9, "holdout": 0.1}, "products": {"b": 0.2}},
        {"id": "cap", "kind": "cap", "limit": 3, "days": 30},
    )
    assert (found.arbitration.reachability, found.arbitration.off) == (30, ("lever",))
    assert found.weights == (
        Weight("l", 1.5, product="a"),
        Weight("c", 0, channel="sms", attribute="age", equals=40),
    )
    assert found.maturity is not None
    assert found.maturity.mature_at == 50
    assert found.arms.shares == {"agent": 0.9, "holdout": 0.1}
    assert declared() == Declared()


@pytest.mark.parametrize(
    ("policy", "complaint"),
    [
        ({"kind": "arbitration", "opt_out": 1.5}, "opt_out must be a number from 0 to 1"),
        ({"kind": "arbitration", "reachability": -1}, "reachability must be a number of at least 0"),
        ({"kind": "arbitration", "reachability": float("inf")}, "reachability must be a number"),
        ({"kind": "arbitration", "off": ["weather"]}, "off must be a list out of propensity"),
        ({"kind": "arbitration", "oops": 1}, "oops is not a key"),
        ({"kind": "lever", "product": "yacht", "weight": 1}, "product must be one of the catalogue"),
        ({"kind": "lever", "product": "a"}, "weight is missing"),
        ({"kind": "context", "weight": 1, "equals": 1}, "attribute is missing"),
        ({"kind": "maturity", "mature_at": 0}, "mature_at must be above 0"),
        ({"kind": "arms", "salt": "s", "shares": {"agent": 0.5, "holdout": 0.4}}, "shares must sum to 1"),
        ({"kind": "arms", "salt": "s", "shares": {"agent": 1.5, "holdout": -0.5}}, "share of agent must be"),
        ({"kind": "arms", "salt": "s", "shares": {"oracle": 1.0}}, "shares must name arms"),
        ({"kind": "arms", "shares": {"agent": 1.0}}, "salt must be"),
        ({"kind": "arms", "salt": "s", "period_days": 0}, "period_days must be"),
        ({"kind": "arms", "salt": "s", "products": {"yacht": 0.1}}, "products must name products"),
    ],
)
def test_a_wrong_declaration_is_refused_by_name(policy: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=f"p: {complaint}"):
        declared({"id": "p", **policy})


def test_two_arbitrations_are_one_too_many() -> None:
    with pytest.raises(InputError, match="p, q: one policy of kind arbitration"):
        declared({"id": "p", "kind": "arbitration"}, {"id": "q", "kind": "arbitration"})

"""What all tests share: where the real data sets are, if they are here, and a world of choices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Before Feast: its import makes Prometheus counters files that all apps of a process share.
import prometheus_client.values  # noqa: F401
import pytest

from features.schema import Attribute, Bool, Float32, Rows, RowSchema
from serving.question import Link, Question
from training.examples import Examples

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets, which lie beside the repository and are never part of it."""
    if not REAL_DATA.is_dir():
        pytest.skip("the real data sets do not lie beside this checkout (../shared/data)")
    return REAL_DATA


PRODUCTS = ("account", "card", "loan", "fund")
CARD = PRODUCTS.index("card")


@dataclass(frozen=True)
class ChoiceWorld:
    """Customers whose choices have a provable optimum, for everything that learns or scores choices.

    Who has the flag takes the card whenever it can be had. Of the others, `TAKES` take something: of what is available
    besides the card, one product like another. The other customer columns and the candidates' columns are noise, with
    missing values. About every seventh product is held, hence not available.
    """

    question: Question
    examples: Examples

    TAKES = 0.4

    @property
    def flagged(self) -> Bool:
        """bool [n]: customers with the flag for whom the card is available."""
        return (self.examples.rows.customer[:, 0] == 1) & self.examples.available[:, CARD]

    @property
    def plain(self) -> Bool:
        """bool [n]: customers without the flag."""
        return self.examples.rows.customer[:, 0] == 0

    @classmethod
    def make(cls, rows: int, seed: int, link: Link = "joint", outside: bool = True) -> ChoiceWorld:
        schema = RowSchema(
            products=PRODUCTS,
            holdable=(True,) * 4,
            channels=("push", "branch"),
            attributes=(Attribute("flag", "flag"),),
            vocabularies=(),
            time_zone="UTC",
            customer_names=("flag", "age", "balance", "segment: a, b"),
            product_names=("visits", "days_since_visit"),
            channel_names=("touches",),
        )
        draw = np.random.default_rng(seed)
        customer = draw.normal(size=(rows, 4)).astype(np.float32)
        customer[:, 0] = draw.random(rows) < 0.3
        customer[:, 1:][draw.random((rows, 3)) < 0.2] = np.nan
        product = draw.exponential(size=(rows, 4, 2)).astype(np.float32)
        product[draw.random(product.shape) < 0.3] = np.nan
        held = draw.random((rows, 4)) < 0.15
        held[:, 0] = False
        facts = Rows(customer, product, np.zeros((rows, 2, 1), np.float32), held, np.zeros((rows, 2), bool), schema)
        available = np.concatenate([~held, np.full((rows, 1), outside)], axis=1)
        if link == "each":  # one candidate is tried on each customer
            available[:, :-1] = np.arange(4) == draw.integers(4, size=(rows, 1))
        chosen = cls._choose(draw, customer[:, 0] == 1, available)
        question = Question("next-best-product", PRODUCTS, "product", link, outside, 30.0)
        return cls(question, Examples(facts, available, chosen, np.ones(rows, np.float32)))

    @classmethod
    def _choose(cls, draw: np.random.Generator, flag: Bool, available: Bool) -> Float32:
        wanted = available[:, :-1].copy()  # [n, m]
        wanted[:, CARD] = False
        wanted[flag] = False
        wanted |= (flag[:, None] & available[:, :-1]) & (np.arange(len(PRODUCTS)) == CARD)
        wanted |= ~available[:, -1:] & available[:, :-1] & ~wanted.any(axis=1, keepdims=True)
        something = (flag | (draw.random(len(flag)) < cls.TAKES) | ~available[:, -1]) & wanted.any(axis=1)
        lot = np.where(wanted, draw.random(wanted.shape), -1.0).argmax(axis=1)
        option = np.where(something, lot, len(PRODUCTS))
        return np.eye(len(PRODUCTS) + 1, dtype=np.float32)[option]


@pytest.fixture(scope="session")
def choice_world() -> Callable[..., ChoiceWorld]:
    """`choice_world(rows, seed, link, outside)` makes a world of customers with provable choices."""
    return ChoiceWorld.make


@pytest.fixture(scope="session")
def simulated_bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated bank of 300 customers over six months, made once for all tests; nobody writes into it."""
    from features.simulate import simulate

    folder = tmp_path_factory.mktemp("simulated") / "bank"
    simulate(folder, customers=300, months=6, seed=11)
    return folder

"""The sequence network: what it may see, what it learns, and that it is the same however it is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from features.catalog import Catalog, Channel, Product
from features.errors import ArtefactError
from features.schema import Int64
from serving.calibration import Calibration
from training.examples import Examples, log_loss
from training.fit_prior import log_popularity
from training.sequence.fit_sequence import Course, FittedSequence, Histories, Settings, fit, refit, utilities
from training.sequence.machine import Machine, operations_per_token
from training.sequence.sequence_model import NETWORK_FILE, SequenceModel
from training.sequence.tokens import Tokens
from training.sequence.two_heads import losses
from training.sequence.vocabulary import Encoded, Vocabulary
from training.sequence.windows import Asked, Windows, batch

DAY = 86_400_000_000
LENGTH = 8
SMALL = Settings(
    length=LENGTH, width=32, layers=1, heads=2, dropout=0.0, rows=64, warm_steps=10, learning_rate=5e-3, most_epochs=16
)
CPU = Machine()
CATALOG = Catalog(
    "EUR",
    "UTC",
    tuple(Product(name, name.title()) for name in ("account", "card", "loan", "fund")),
    (Channel("app", "App"), Channel("web", "Web")),
)
CARD, LOAN, NOTHING = 1, 2, 4


@dataclass(frozen=True)
class OrderWorld:
    """Customers with four visits to the app and four to the web, one a day, in an order by lot; then a row each.

    Who went from the app to the web last takes the card, from the web to the app the loan, others nothing: no count of
    anything tells them apart.
    """

    tokens: Tokens
    customer_id: Any
    as_of: Int64
    examples: Examples

    @classmethod
    def make(cls, rows: int, seed: int, choices: Any, by_lot: bool = False) -> OrderWorld:
        draw = np.random.default_rng(seed)
        channel = np.stack([draw.permutation(np.repeat([0, 1], 4)) for _ in range(rows)])  # [n, 8]
        frame = pd.DataFrame(
            {
                "customer_id": np.repeat([f"c{row:04}" for row in range(rows)], 8),
                "at": np.tile(np.arange(8) * DAY, rows),
                "known": 0,
                "kind": "visited",
                "channel": np.array(CATALOG.channel_ids)[channel.ravel()],
                "product_id": None,
                "category": None,
                "amount": np.nan,
            }
        )
        option = np.select(
            [channel[:, -2] < channel[:, -1], channel[:, -2] > channel[:, -1]], [CARD, LOAN], default=NOTHING
        )
        option = draw.permutation(option) if by_lot else option
        chosen = np.eye(5, dtype=np.float32)[option]
        examples = replace(choices(rows, seed).examples, available=np.ones((rows, 5), bool), chosen=chosen)
        names = np.array([f"c{row:04}" for row in range(rows)], dtype=object)
        return cls(Tokens.of_frame(frame, CATALOG), names, np.full(rows, 8 * DAY), examples)

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.learn(self.tokens, np.arange(len(self.tokens)), CATALOG)

    @property
    def encoded(self) -> Encoded:
        return self.vocabulary.encode(self.tokens)

    def rows(self, which: slice = slice(None)) -> Histories:
        index = np.arange(len(self.as_of))[which]
        facts = self.examples.rows.customer[:, :0]
        asked = Asked.of(self.tokens, self.customer_id, self.as_of, facts, "UTC")
        return Histories(asked.take(index), self.examples.take(index))

    def fitted(self, settings: Settings = SMALL, machine: Machine = CPU, seed: int = 0) -> FittedSequence:
        half = len(self.as_of) // 2
        train, valid = self.rows(slice(half)), self.rows(slice(half, None))
        return fit(self.encoded, self.vocabulary.sizes, train, valid, settings, machine, seed)

    def course(self, settings: Settings = SMALL, machine: Machine = CPU) -> Course:
        """A network that has something to say of every token and every moment."""
        with machine.reproducible(0):
            course = Course(self.encoded, self.vocabulary.sizes, self.rows(), settings, machine, None, 0)
        with torch.no_grad():
            course.network.take_up.weight.normal_(generator=torch.Generator().manual_seed(0))
            course.network.nothing.normal_(generator=torch.Generator().manual_seed(1))
        return course


@pytest.fixture(scope="module")
def order_world(choice_world: Callable[..., Any]) -> OrderWorld:
    return OrderWorld.make(800, 1, choice_world)


@pytest.fixture(scope="module")
def fitted(order_world: OrderWorld) -> FittedSequence:
    return order_world.fitted()


def unseen_loss(fitted: FittedSequence, world: OrderWorld) -> float:
    rows = world.rows()
    return log_loss(utilities(fitted.network, rows.asked, world.encoded, LENGTH, CPU), rows.examples)


def test_it_learns_from_the_order_of_events_what_no_count_of_them_tells(
    fitted: FittedSequence, choice_world: Callable[..., Any]
) -> None:
    other = OrderWorld.make(600, 2, choice_world)
    # All counts are equal, so the best that counting can say is the share of each option.
    shares = other.examples.chosen.mean(axis=0)
    counting = float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())
    assert counting > 1.0
    assert unseen_loss(fitted, other) < 0.1 * counting


def test_where_nothing_can_be_learned_it_is_no_better_than_the_prior(choice_world: Callable[..., Any]) -> None:
    lot = OrderWorld.make(400, 3, choice_world, by_lot=True)
    unseen = OrderWorld.make(2000, 4, choice_world, by_lot=True)
    learned = lot.fitted(replace(SMALL, most_epochs=6))
    prior = np.tile(log_popularity(lot.rows(slice(200)).examples), (2000, 1))
    # Nobody can say more of choices by lot than their shares.
    with np.errstate(divide="ignore"):
        shares = np.tile(np.log(unseen.examples.chosen.mean(axis=0)), (2000, 1))
    best = log_loss(np.maximum(shares, -50.0), unseen.examples)
    assert best <= unseen_loss(learned, unseen) < log_loss(prior, unseen.examples) * 1.02


def test_an_untrained_network_is_the_prior(order_world: OrderWorld) -> None:
    world = order_world
    course = Course(world.encoded, world.vocabulary.sizes, world.rows(), SMALL, CPU, None, 0)
    said = utilities(course.network, world.rows().asked, world.encoded, LENGTH, CPU)
    np.testing.assert_array_equal(said, np.tile(log_popularity(world.examples), (len(said), 1)))


def answers(course: Course, tokens: Tokens, vocabulary: Vocabulary, *rows: tuple[str, float]) -> Any:
    customer_id = np.array([name for name, _ in rows], dtype=object)
    as_of = np.array([int(days * DAY) for _, days in rows], dtype=np.int64)
    asked = Asked.of(tokens, customer_id, as_of, np.zeros((len(rows), 0), np.float32), "UTC")
    return utilities(course.network, asked, vocabulary.encode(tokens), LENGTH, CPU)


ASKED = [("c0000", days) for days in (-1.0, 0.0, 0.5, 2.0, 3.7, 5.0, 6.9)] + [("nobody", 3.0)]


def later_changed(tokens: Tokens, after: float) -> Tokens:
    """The same history up to a day, another one after it: other kinds, channels, amounts and times."""
    later = tokens.known > after * DAY
    return replace(
        tokens,
        kind=np.where(later, (tokens.kind + 3) % 9, tokens.kind),
        channel=np.where(later, 1 - tokens.channel, tokens.channel),
        product=np.where(later, 2, tokens.product),
        amount=np.where(later, 777.0, tokens.amount),
        known=np.where(later, tokens.known + DAY // 3, tokens.known),
    )


@pytest.mark.parametrize("row", range(len(ASKED)))
def test_no_event_after_its_moment_changes_the_answer_of_a_row(row: int, order_world: OrderWorld) -> None:
    course, vocabulary = order_world.course(), order_world.vocabulary
    tokens, (name, days) = order_world.tokens, ASKED[row]
    everything = answers(course, tokens, vocabulary, *ASKED)[row]
    changed = answers(course, later_changed(tokens, days), vocabulary, *ASKED)[row]
    past = tokens.known <= days * DAY
    fields = (
        getattr(tokens, field)[past]
        for field in ("owner", "at", "known", "kind", "channel", "product", "category", "amount")
    )
    gone = answers(course, Tokens(tokens.customers, *fields), vocabulary, (name, days))[0]
    np.testing.assert_array_equal(changed, everything)
    np.testing.assert_allclose(gone, everything, atol=1e-6)


def test_every_event_before_its_moment_can_change_the_answer_of_a_row(order_world: OrderWorld) -> None:
    course, vocabulary, tokens = order_world.course(), order_world.vocabulary, order_world.tokens
    before = answers(course, tokens, vocabulary, ("c0000", 7.5))
    for event in range(8):
        channel = tokens.channel.copy()
        channel[event] = 1 - channel[event]
        changed = answers(course, replace(tokens, channel=channel), vocabulary, ("c0000", 7.5))
        assert np.abs(changed - before).max() > 1e-4


def test_its_attention_sees_how_long_ago_events_were(order_world: OrderWorld) -> None:
    course, vocabulary = order_world.course(), order_world.vocabulary
    with torch.no_grad():  # nothing else tells the moment
        for parameter in (course.network.asked_gap.weight, course.network.asked_waves.weight):
            parameter.zero_()
    one, other = answers(course, order_world.tokens, vocabulary, ("c0000", 8.0), ("c0000", 30.0))
    assert np.abs(one - other).max() > 1e-3


def test_when_a_history_began_changes_nothing_of_its_attention(order_world: OrderWorld) -> None:
    weeks = 52 * 7 * DAY  # the same hours and weekdays
    course, vocabulary, tokens = order_world.course(), order_world.vocabulary, order_world.tokens
    moved = replace(tokens, at=tokens.at + weeks, known=tokens.known + weeks)
    here = answers(course, tokens, vocabulary, ("c0003", 7.5))
    there = answers(course, moved, vocabulary, ("c0003", 7.5 + 52 * 7))
    np.testing.assert_allclose(here, there, atol=1e-6)


def test_neither_padding_nor_company_changes_an_answer(order_world: OrderWorld) -> None:
    course, vocabulary, tokens = order_world.course(), order_world.vocabulary, order_world.tokens
    rows = [(f"c{who:04}", days) for who in range(5) for days in (-1.0, 0.0, 3.0, 8.0, 8.0)]
    together = answers(course, tokens, vocabulary, *rows)
    alone = np.concatenate([answers(course, tokens, vocabulary, row) for row in rows])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    asked = order_world.rows().asked
    windows = Windows.over(asked, LENGTH)
    plain, padded = (batch(asked, order_world.encoded, windows, np.arange(3), multiple) for multiple in (1, 32))
    with torch.no_grad():
        found = [course.network(CPU.seen(part))[0].numpy()[:, : plain.row.shape[1]] for part in (plain, padded)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_the_gradient_of_parts_is_that_of_the_whole(order_world: OrderWorld) -> None:
    course = order_world.course()
    windows = course.windows
    weights = np.random.default_rng(0).uniform(0.5, 2.0, len(windows)).astype(np.float32)
    course.labels = replace(course.labels, weight=weights)
    cuts = (np.arange(100), np.arange(100, 130), np.arange(130, 400))
    pieces = [batch(course.asked, course.encoded, windows, cut) for cut in cuts]
    whole = [batch(course.asked, course.encoded, windows, np.arange(400))]
    gradients = []
    for parts in (pieces, whole):
        course.gradient(parts)
        gradients.append([parameter.grad.clone() for parameter in course.network.parameters()])
    assert max(float(gradient.abs().max()) for gradient in gradients[1]) > 1e-3
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_the_next_event_is_learned_too(order_world: OrderWorld, fitted: FittedSequence) -> None:
    world = order_world
    before = world.course()
    part = batch(before.asked, world.encoded, before.windows, np.arange(200))
    nats = []
    for network in (before.network, fitted.network):
        _, following = losses(network, network, part, before.labels, CPU, (200.0, float(part.told[:, 1:].sum())))
        nats.append(following.item())
    # Kind, product and gap are always the same; of the channel, which has to be foretold from the seven before it,
    # ln 2 is left at most.
    assert nats[0] > 1.0
    assert nats[1] < 0.75 * np.log(2) / 4 + 0.05


def test_one_seed_is_one_network_and_torch_stays_as_it_was(order_world: OrderWorld) -> None:
    quick = replace(SMALL, dropout=0.2, most_epochs=1)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (order_world.fitted(quick, seed=seed).network.state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_fit_on_all_rows_takes_as_many_epochs_as_the_first(order_world: OrderWorld) -> None:
    first = order_world.fitted(replace(SMALL, most_epochs=2))
    again = refit(order_world.encoded, order_world.rows(), first, SMALL, CPU)
    assert again.epochs == first.epochs
    assert again.tokens == first.epochs * len(order_world.tokens)


def test_bfloat16_is_of_the_products_alone_and_moves_little(order_world: OrderWorld) -> None:
    plain, half = (
        order_world.course(replace(SMALL, most_epochs=1), machine) for machine in (CPU, replace(CPU, bf16=True))
    )
    for course in (plain, half):
        course.epoch()
    assert {parameter.dtype for parameter in half.network.parameters()} == {torch.float32}
    rows = order_world.rows().asked
    exact, rough = (utilities(course.network, rows, order_world.encoded, LENGTH, CPU) for course in (plain, half))
    gap = np.abs(exact - rough).max()
    assert 0 < gap < 0.5


def test_operations_are_counted_as_published() -> None:
    # nanoGPT's GPT-2 of 124 million parameters at 1024 tokens: 6 N + 12 x 12 x 768 x 1024
    assert operations_per_token(124_000_000, 12, 768, 1024) == pytest.approx(8.57e8, rel=1e-3)


def test_a_processor_promises_no_peak(fitted: FittedSequence) -> None:
    assert CPU.peak is None
    assert fitted.utilisation(CPU, LENGTH) is None
    assert fitted.events_per_second > 0


@pytest.fixture
def model(order_world: OrderWorld, fitted: FittedSequence, choice_world: Callable[..., Any]) -> SequenceModel:
    question = choice_world(1, 1).question
    schema, raw = order_world.examples.rows.schema, Calibration("identity")
    return SequenceModel(question, order_world.vocabulary, fitted.shape, fitted.network, LENGTH, raw, schema)


def test_a_model_that_was_kept_says_the_same_to_the_last_bit(
    model: SequenceModel, order_world: OrderWorld, tmp_path: Path
) -> None:
    model.save(tmp_path / "kept")
    asked = (order_world.tokens, order_world.customer_id, order_world.as_of, order_world.examples.rows)
    found = SequenceModel.load(tmp_path / "kept").utilities(*asked)
    np.testing.assert_array_equal(found, model.utilities(*asked))


def test_a_damaged_model_is_refused(model: SequenceModel, tmp_path: Path) -> None:
    model.save(tmp_path / "kept")
    file = tmp_path / "kept" / NETWORK_FILE
    file.write_bytes(file.read_bytes()[:-1] + b"\x00\x01")
    with pytest.raises(ArtefactError, match="differs from its SHA-256"):
        SequenceModel.load(tmp_path / "kept")


def test_rows_of_another_schema_are_refused(model: SequenceModel, order_world: OrderWorld) -> None:
    rows = order_world.examples.rows
    other = replace(rows, schema=replace(rows.schema, time_zone="Europe/Berlin"))
    with pytest.raises(ArtefactError, match="was trained on feature rows"):
        model.utilities(order_world.tokens, order_world.customer_id, order_world.as_of, other)

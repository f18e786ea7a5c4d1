"""The course of the simulation: decision by decision for all customers at once.

Each customer is decided for in steps of ten days, on a day and at an hour of its own: at least five and a half days
lie between two decisions, and all that can change what is feasible (delivery, opt-out) settles before the next one.
Only take-ups come later; `ownership` keeps those. So a step may handle all customers together although their clocks
differ: at a customer's decision its own past is complete.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.progress import Advance
from features.schema import Bool, Float64
from features.simulation.calendar import DAY, Ints, at_local, month_of, to_micros
from features.simulation.catalog import CHANNELS
from features.simulation.events import EventLog
from features.simulation.files import TableFile, ids, numbers, texts, timestamps
from features.simulation.logging_policy import ARMS, Choice, decide, under_caps
from features.simulation.messages import Counters, Sent, log_conversions, send
from features.simulation.ownership import Ownership
from features.simulation.population import People
from features.simulation.truth import Outcome, Truth
from features.simulation.visits import first_opt_outs, inbound, opt_in, service

STEP_DAYS = 10
JITTER_DAYS = 5
TAKES_PART = 0.92
"""Share of a customer's steps in which the bank decides anything at all."""
_REMEMBERED = 6  # messages per customer: more than can be sent within the longest cap's window


@dataclass
class Contacts:
    """What the bank remembers of its own messages to N customers."""

    opted_out: Bool  # [N, H]
    fatigue: Float64  # [N] decayed contacts as of `fatigue_at`
    fatigue_at: Float64  # [N]
    sent_at: Float64  # [remembered, N]
    sent_channel: npt.NDArray[np.int64]  # [remembered, N]

    def tired(self, customer: Ints, when: Float64, half_life_days: float) -> Float64:
        age = (when - self.fatigue_at[customer]) / DAY
        return np.asarray(self.fatigue[customer] * 0.5 ** (age / half_life_days))

    def remember(self, sent: Sent, half_life_days: float) -> None:
        """Messages to customers, in their order of time per customer."""
        self.fatigue[sent.customer] = self.tired(sent.customer, sent.sent_at, half_life_days) + 1.0
        self.fatigue_at[sent.customer] = sent.sent_at
        for memory, new in ((self.sent_at, sent.sent_at), (self.sent_channel, sent.channel)):
            memory[1:, sent.customer] = memory[:-1, sent.customer]
            memory[0, sent.customer] = new
        self.opted_out[sent.customer[sent.opt_out], sent.channel[sent.opt_out]] = True
        self.opted_out[sent.customer[sent.opt_out_all]] = True


class Steps:
    """Runs the decisions and everything between them."""

    def __init__(
        self,
        random: np.random.Generator,
        people: People,
        truth: Truth,
        ownership: Ownership,
        log: EventLog,
        decisions: TableFile,
        digits: int,
    ) -> None:
        self._random = random
        self._people = people
        self._truth = truth
        self._ownership = ownership
        self._log = log
        self._decisions = decisions
        self._digits = digits
        self._counters = Counters()
        self._decided = 0
        self._end = float(truth.month_starts[-1])
        n = len(people.known)
        self._offset = np.floor(random.random(n) * STEP_DAYS)
        self._contacts = Contacts(
            opted_out=first_opt_outs(random, log, people.known, len(CHANNELS)),
            fatigue=np.zeros(n),
            fatigue_at=np.zeros(n),
            sent_at=np.full((_REMEMBERED, n), -np.inf),
            sent_channel=np.full((_REMEMBERED, n), -1),
        )

    @staticmethod
    def count(days: float) -> int:
        """Number of steps that cover so many days for every customer."""
        return int(np.ceil(days / STEP_DAYS)) + 1

    def run(self, advance: Advance) -> None:
        """All steps, writing the timeline as it settles."""
        steps = self.count(self._end / DAY)
        now = self._decision_times(-1)
        written = 0
        for step in range(-1, steps):
            then = self._decision_times(step + 1)
            if step >= 0:
                self._decide(now)
            self._live(np.maximum(now, self._people.known), np.minimum(then, self._end))
            # Later steps add nothing before the first of their decisions.
            settled = min(at_local(np.array([float((step + 1) * STEP_DAYS)]), np.array([0.0]))[0], self._end)
            month = int(np.searchsorted(self._truth.month_starts, settled, side="right")) - 1
            if month > written:
                self._log.flush(float(self._truth.month_starts[month]))
                written = month
            now = then
            advance(1)
        self._log.flush(np.inf)

    def _decision_times(self, step: int) -> Float64:
        """Business hours only, outside all quiet hours: 9:00 to 19:45 local."""
        n = len(self._offset)
        day = step * STEP_DAYS + self._offset + np.floor(self._random.random(n) * JITTER_DAYS)
        return at_local(day, 9.0 + 10.75 * self._random.random(n))

    def _decide(self, now: Float64) -> None:
        random, people, contacts = self._random, self._people, self._contacts
        there = (now > people.known) & (now < self._end) & (random.random(len(now)) < TAKES_PART)
        customer = np.flatnonzero(there)
        at = now[customer]
        month = month_of(at, self._truth.month_starts)
        fatigue = contacts.tired(customer, at, self._truth.parameters.fatigue_half_life)
        held = self._ownership.held[customer]
        caps = under_caps(contacts.sent_at[:, customer], contacts.sent_channel[:, customer], at)
        choice = decide(
            random,
            products=~held,
            channels=people.address[month, customer] & ~contacts.opted_out[customer] & caps,
            language=people.english[customer].astype(np.int64),
            segment=people.segment[month, customer].astype(np.int64),
            age_band=people.age_band[month, customer].astype(np.int64),
            fatigue=fatigue,
        )
        rows = np.flatnonzero(choice.contact)
        outcome = self._truth.outcome(
            customer[rows], choice.product[rows], choice.channel[rows], choice.content[rows], at[rows],
            fatigue[rows], held[rows],
        )  # fmt: skip
        sent = send(random, self._log, self._truth, choice, outcome, customer, at, self._decided, self._counters)
        contacts.remember(sent, self._truth.parameters.fatigue_half_life)
        done = sent.responded
        reason = np.stack([sent.decision, sent.message, sent.channel, sent.content])[:, done]
        self._ownership.expect(sent.customer[done], sent.product[done], sent.responds_at[done], reason)
        self._write_truth(customer, at, fatigue, choice, outcome, sent)
        self._decided += len(customer)

    def _live(self, begin: Float64, finish: Float64) -> None:
        """Everything between a decision and the next one."""
        random, month = self._random, month_of(begin, self._truth.month_starts)
        address = self._people.address[month, np.arange(len(begin))]
        out_before = self._contacts.opted_out.copy()
        log_conversions(random, self._log, self._ownership.advance(begin, finish))
        inbound(random, self._log, self._truth, address[:, 1], begin, finish)
        service(random, self._log, address, begin, finish, self._counters)
        again = opt_in(random, self._log, out_before, begin, finish)
        self._contacts.opted_out[again] = False

    def _write_truth(
        self, customer: Ints, at: Float64, fatigue: Float64, choice: Choice, outcome: Outcome, sent: Sent
    ) -> None:
        """The true probabilities behind each decision; null for no contact."""
        n = len(customer)
        rows = np.flatnonzero(choice.contact)

        def full(values: Float64) -> pa.Array:
            column = np.full(n, np.nan)
            column[rows] = values
            return numbers(column)

        def flag(values: Bool) -> pa.Array:
            column = np.zeros(n, dtype=np.bool_)
            column[rows] = values
            return pa.array(column, mask=~choice.contact)

        self._decisions.write(
            pa.table(
                {
                    "decision_id": ids("d", np.arange(self._decided, self._decided + n), self._digits),
                    "customer_id": ids("c", customer, 8),
                    "event_timestamp": timestamps(to_micros(at)),
                    "arm": texts(ARMS, choice.arm),
                    "feasible_actions": pa.array(choice.feasible.astype(np.int32)),
                    "p_business_as_usual": pa.array(choice.business),
                    "propensity": pa.array(choice.propensity),
                    "fatigue": pa.array(fatigue),
                    "p_reach": full(outcome.reach),
                    "p_open": full(outcome.open),
                    "p_respond": full(outcome.respond),
                    "p_take_up": full(outcome.take_up),
                    "p_click": full(outcome.click),
                    "p_opt_out": full(outcome.opt_out),
                    "p_complain": full(outcome.complain),
                    "reached": flag(sent.reached),
                    "opened": flag(sent.opened),
                    "responded": flag(sent.responded),
                }
            )
        )

"""The `customers` table: what the bank's forms know of the people, with the gaps that forms have."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.columns import CUSTOMER_ID, EVENT_TIMESTAMP
from features.schema import Bool, Float64
from features.simulation.calendar import DAY, START_SECONDS, to_micros
from features.simulation.catalog import LANGUAGES
from features.simulation.files import texts, timestamps
from features.simulation.life import JOBS, REGIONS, Life
from features.simulation.population import SEGMENTS, People, segments

GAPS = {
    "birth_date": 0.02,
    "gender": 0.03,
    "income": 0.08,
    "married": 0.10,
    "homeowner": 0.25,
    "risk_score": 0.40,
}
"""Share of customers of whom the bank never learnt the attribute."""


def customers_table(random: np.random.Generator, people: People, customer_ids: pa.Array) -> pa.Table:
    """One row per customer when it becomes known and one per change of its profile, sorted by time."""
    count = len(people.known)
    missing = {name: random.random(count) < share for name, share in GAPS.items()}
    gender = (random.random(count) < 0.5).astype(np.int8)
    tenure = np.where(people.known > 0, 0.0, random.gamma(2.0, 1500.0, count))
    adult = (people.birth / DAY) + 18 * 365.25
    joined = np.maximum(people.known / DAY - tenure, np.minimum(adult, people.known / DAY))
    risk = np.clip(np.round(50.0 + 18.0 * (people.taste["risk"] + random.normal(0.0, 0.5, count))), 0.0, 100.0)
    who = np.concatenate([customer for customer, _, _ in people.changes])
    at = np.concatenate([times for _, times, _ in people.changes])
    life = _concatenate([state for _, _, state in people.changes])
    order = np.lexsort((who, at))
    who, at, life = who[order], at[order], life.take(order)
    age = (at - people.birth[who]) / (365.25 * DAY)

    def known(name: str) -> Bool:
        return np.asarray(~missing[name][who])

    return pa.table(
        {
            CUSTOMER_ID: customer_ids.take(pa.array(who)),
            EVENT_TIMESTAMP: timestamps(to_micros(at)),
            "birth_date": _dates(people.birth[who], known("birth_date")),
            "gender": texts(("f", "m"), gender[who], known("gender")),
            "region": texts(REGIONS, life.region),
            "segment": texts(SEGMENTS, segments(life, age)),
            "occupation": texts(JOBS, life.job),
            "income": pa.array(life.income, mask=~known("income")),
            "married": pa.array(life.married, mask=~known("married")),
            "children": pa.array(life.children.astype(np.int64)),
            "homeowner": pa.array(life.homeowner, mask=~known("homeowner")),
            "risk_score": pa.array(risk[who], mask=~known("risk_score")),
            "language": texts(LANGUAGES, people.english[who]),
            "has_app": pa.array(life.app),
            "wechat_bound": pa.array(life.wechat),
            "email_known": pa.array(life.email),
            "joined_on": _dates((joined * DAY)[who], np.ones(len(who), dtype=np.bool_)),
        }
    )


def _concatenate(lives: list[Life]) -> Life:
    names = vars(lives[0])
    return Life(**{name: np.concatenate([getattr(life, name) for life in lives]) for name in names})


def _dates(when: Float64, known: Bool) -> pa.Array:
    days: npt.NDArray[np.int32] = np.floor((START_SECONDS + when) / DAY).astype(np.int32)
    return pa.array(days, mask=~known).cast(pa.date32())

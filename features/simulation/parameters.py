"""The numbers behind the truth: how needs, channels, contents and fatigue move a simulated customer.

Every number is written to `truth/parameters.json`. Logits are natural; intensities are take-ups per 30 days.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from features.schema import Float64
from features.simulation.catalog import CHANNELS, PRODUCTS, Style, content_styles

TRAITS = (
    "age", "age_squared", "income", "married", "child", "homeowner", "travel", "online", "saver", "risk",
    "moved", "newborn", "retired", "raised",
)  # fmt: skip
"""What needs are made of: standardised profile values, latent tastes (they show in the transactions) and fresh
life events (1 in the month after the event, fading)."""

NEED_WEIGHTS: dict[str, dict[str, float]] = {
    "salary_account": {"age": -0.7, "age_squared": -0.3, "income": 0.2, "raised": 0.8},
    "savings_account": {"saver": 0.8, "child": 0.3, "newborn": 0.8, "age": -0.3},
    "credit_card": {"online": 0.9, "age": -0.6, "saver": -0.5, "income": 0.2, "raised": 0.6},
    "gold_card": {"income": 1.1, "travel": 0.8, "raised": 1.2, "age_squared": -0.2},
    "term_deposit": {"age": 0.7, "saver": 0.9, "risk": -0.7, "retired": 1.5},
    "personal_loan": {"saver": -1.0, "income": -0.3, "moved": 1.0, "newborn": 0.8, "age_squared": -0.4},
    "car_loan": {"child": 0.6, "married": 0.4, "newborn": 1.6, "raised": 0.9, "saver": -0.4, "age_squared": -0.5},
    "mortgage": {
        "married": 0.9, "homeowner": -1.2, "moved": 2.2, "income": 0.6, "newborn": 1.0, "age_squared": -0.8,
    },
    "life_insurance": {"child": 1.0, "newborn": 1.8, "married": 0.5, "risk": -0.5, "age_squared": -0.3},
    "travel_insurance": {"travel": 1.4, "income": 0.4, "retired": 0.7},
    "fund_plan": {"risk": 1.1, "income": 0.5, "saver": 0.6, "raised": 0.8, "age_squared": -0.2},
    "pension_plan": {"age": 0.8, "saver": 0.5, "income": 0.3, "retired": -1.0, "age_squared": -0.9, "risk": 0.3},
}  # fmt: skip

COMPLEMENTS: dict[tuple[str, str], float] = {
    ("salary_account", "credit_card"): 0.6,
    ("salary_account", "savings_account"): 0.4,
    ("salary_account", "personal_loan"): 0.4,
    ("savings_account", "term_deposit"): 0.7,
    ("savings_account", "fund_plan"): 0.4,
    ("credit_card", "gold_card"): 1.2,
    ("credit_card", "travel_insurance"): 0.5,
    ("gold_card", "credit_card"): -2.0,
    ("gold_card", "travel_insurance"): 0.6,
    ("mortgage", "life_insurance"): 1.0,
    ("mortgage", "personal_loan"): -0.6,
    ("car_loan", "personal_loan"): -0.6,
    ("term_deposit", "fund_plan"): -0.3,
    ("fund_plan", "pension_plan"): 0.8,
}
"""(held, wanted) → what holding the one adds to the need of the other."""

#                       per 30 days, first holding, response logit, days held (mean), fixed term
PRODUCT_NUMBERS: dict[str, tuple[float, float, float, float, bool]] = {
    "salary_account": (0.0420, 0.75, -1.9, 4000.0, False),
    "savings_account": (0.0126, 0.35, -2.3, 2500.0, False),
    "credit_card": (0.0112, 0.30, -2.2, 2500.0, False),
    "gold_card": (0.0021, 0.04, -3.4, 2500.0, False),
    "term_deposit": (0.0056, 0.10, -2.8, 120.0, True),
    "personal_loan": (0.0028, 0.07, -3.4, 700.0, False),
    "car_loan": (0.0014, 0.04, -4.0, 1100.0, False),
    "mortgage": (0.0007, 0.08, -5.0, 6000.0, False),
    "life_insurance": (0.0021, 0.08, -3.8, 3000.0, False),
    "travel_insurance": (0.0042, 0.01, -2.6, 25.0, True),
    "fund_plan": (0.0042, 0.08, -3.0, 1500.0, False),
    "pension_plan": (0.0028, 0.06, -3.5, 5000.0, False),
}

#                 reach logit, its slope on preference, on activity; open logit, click logit, opt-out, complaint
CHANNEL_NUMBERS: dict[str, tuple[float, float, float, float, float, float, float]] = {
    "app_push": (2.2, 0.4, 0.0, -1.3, -0.8, 0.2, 0.0),
    "in_app": (0.0, 0.0, 0.0, -0.2, -0.9, -0.6, -0.5),
    "sms": (3.2, 0.0, 0.0, -0.4, -1.4, 0.4, 0.2),
    "email": (2.2, 0.2, 0.0, -1.2, -0.9, 0.2, -0.2),
    "wechat": (2.0, 0.4, 0.0, -0.6, -0.9, 0.0, 0.0),
    "voice": (-0.2, 0.5, 2.0, 0.9, -0.6, 0.8, 1.4),
    "branch": (-1.2, 0.7, 0.0, 1.4, -0.3, -0.8, -0.4),
}

CHANNEL_FIT: dict[tuple[str, str], float] = {
    ("voice", "loans"): 0.6,
    ("voice", "insurance"): 0.4,
    ("branch", "loans"): 1.0,
    ("branch", "investments"): 0.8,
    ("branch", "insurance"): 0.6,
    ("app_push", "cards"): 0.3,
    ("app_push", "deposits"): 0.2,
    ("in_app", "investments"): 0.4,
    ("in_app", "accounts"): 0.3,
    ("email", "investments"): 0.3,
    ("email", "loans"): 0.2,
    ("sms", "loans"): -0.4,
    ("sms", "investments"): -0.4,
    ("wechat", "insurance"): 0.3,
}
"""(channel, product group) → response logit: some things are not bought from a short text."""

STYLE_SLOPES: dict[Style, float] = {"price": 0.6, "benefit": -0.6, "detail": 0.0}
"""What a customer's price sensitivity does to the response to each style of content."""


@dataclass(frozen=True)
class Parameters:
    """Parameters of the response functions. P products, H channels, K contents, in the catalogue's order."""

    intensity: Float64  # [P] organic take-ups per 30 days at need 0
    complement: Float64  # [P held, P wanted] added to the need
    respond_base: Float64  # [P] logit of a take-up given an opened message
    respond_need: float
    respond_preference: float
    respond_fit: Float64  # [H, P]
    content_style: Float64  # [K] slope on price sensitivity
    content_quality: Float64  # [K]
    reach_base: Float64  # [H]
    reach_preference: Float64  # [H]
    reach_activity: Float64  # [H]
    app_visits: float  # per day at preference 0
    app_visits_preference: float
    in_app_days: float  # an in-app message waits so long for the next visit
    open_base: Float64  # [H]
    open_preference: float
    open_activity: float
    open_fatigue: float
    rhythm_peaks: Float64  # [3] local hours
    rhythm_width: float  # hours
    rhythm_centre: float
    click_base: Float64  # [H]
    click_need: float
    opt_out_base: Float64  # [H]
    opt_out_fatigue: float
    opt_out_preference: float
    complain_base: Float64  # [H]
    complain_fatigue: float
    fatigue_half_life: float  # days

    def to_json(self) -> str:
        raw = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in raw.items()}
        return json.dumps(plain, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Parameters:
        raw: dict[str, Any] = json.loads(text)
        values: dict[str, Any] = {key: np.array(v) if isinstance(v, list) else v for key, v in raw.items()}
        return cls(**values)


def draw_parameters(random: np.random.Generator) -> Parameters:
    """The parameters of one simulated bank; only the quality of each content is drawn."""
    products = [product.id for product in PRODUCTS]
    product = np.array([PRODUCT_NUMBERS[name][:4] for name in products])
    channel = np.array([CHANNEL_NUMBERS[item.id] for item in CHANNELS])
    styles = content_styles()
    return Parameters(
        intensity=product[:, 0],
        complement=np.array([[COMPLEMENTS.get((a, b), 0.0) for b in products] for a in products]),
        respond_base=product[:, 2],
        respond_need=0.7,
        respond_preference=0.35,
        respond_fit=np.array([[CHANNEL_FIT.get((c.id, p.group or ""), 0.0) for p in PRODUCTS] for c in CHANNELS]),
        content_style=np.array([STYLE_SLOPES[style] for style in styles]),
        content_quality=np.round(random.normal(0.0, 0.2, len(styles)), 6),
        reach_base=channel[:, 0],
        reach_preference=channel[:, 1],
        reach_activity=channel[:, 2],
        app_visits=0.07,
        app_visits_preference=0.6,
        in_app_days=4.0,
        open_base=channel[:, 3],
        open_preference=0.8,
        open_activity=2.2,
        open_fatigue=0.35,
        rhythm_peaks=np.array([8.0, 12.5, 20.5]),
        rhythm_width=2.0,
        rhythm_centre=0.3,
        click_base=channel[:, 4],
        click_need=0.4,
        opt_out_base=channel[:, 5] - 6.2,
        opt_out_fatigue=0.5,
        opt_out_preference=-0.4,
        complain_base=channel[:, 6] - 7.5,
        complain_fatigue=0.6,
        fatigue_half_life=10.0,
    )


def need_weights() -> Float64:
    """float64 [traits, P]."""
    return np.array([[NEED_WEIGHTS[p.id].get(trait, 0.0) for p in PRODUCTS] for trait in TRAITS])

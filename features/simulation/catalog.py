"""The simulated bank's catalogue: what it sells, how it reaches people, what it says and how often it may."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from features.catalog import Catalog, Channel, Content, Product
from features.simulation.calendar import TIME_ZONE

CURRENCY = "CNY"
LANGUAGES = ("zh", "en")

Style = Literal["price", "benefit", "detail"]

PRODUCTS = (
    Product("salary_account", "Salary account", True, "accounts", 60.0),
    Product("savings_account", "Savings account", True, "accounts", 80.0),
    Product("credit_card", "Credit card", True, "cards", 300.0),
    Product("gold_card", "Gold credit card", True, "cards", 800.0),
    Product("term_deposit", "Term deposit", False, "deposits", 200.0),
    Product("personal_loan", "Personal loan", True, "loans", 1200.0),
    Product("car_loan", "Car loan", True, "loans", 1500.0),
    Product("mortgage", "Home mortgage", True, "loans", 6000.0),
    Product("life_insurance", "Life insurance", True, "insurance", 900.0),
    Product("travel_insurance", "Travel insurance", False, "insurance", 40.0),
    Product("fund_plan", "Fund savings plan", True, "investments", 500.0),
    Product("pension_plan", "Pension plan", True, "investments", 700.0),
)

CHANNELS = (
    Channel("app_push", "App push", "outbound", 0.01, 500_000, ("21:00", "08:00"), 120),
    Channel("in_app", "In-app message", "both", 0.0, None, None, 200),
    Channel("sms", "SMS", "outbound", 0.05, 300_000, ("21:00", "08:00"), 160, "sms"),
    Channel("email", "E-mail", "outbound", 0.02, 1_000_000, None, 2000, "html"),
    Channel("wechat", "WeChat official account", "both", 0.03, 400_000, ("22:00", "08:00"), 300),
    Channel("voice", "Phone call", "both", 4.0, 5_000, ("20:00", "09:00"), 400),
    Channel("branch", "Branch adviser", "both", 15.0, 3_000, ("18:00", "09:00"), 400),
)

CAPS: tuple[Mapping[str, Any], ...] = (
    {"id": "cap_overall", "kind": "cap", "limit": 3, "days": 30},
    {"id": "cap_sms", "kind": "cap", "channel": "sms", "limit": 2, "days": 30},
    {"id": "cap_voice", "kind": "cap", "channel": "voice", "limit": 1, "days": 30},
    {"id": "cap_branch", "kind": "cap", "channel": "branch", "limit": 1, "days": 30},
)
REACH: tuple[Mapping[str, Any], ...] = tuple(
    {"id": f"reach_{channel}", "kind": "reach", "channel": channel, "attribute": attribute}
    for channel, attribute in (
        ("app_push", "has_app"),
        ("in_app", "has_app"),
        ("wechat", "wechat_bound"),
        ("email", "email_known"),
    )
)
"""Channels on which the bank has no address of everybody: what it knows stands in the customers' attributes."""

_CHINESE_NAMES = {
    "salary_account": "工资账户",
    "savings_account": "储蓄账户",
    "credit_card": "信用卡",
    "gold_card": "信用卡金卡",
    "term_deposit": "定期存款",
    "personal_loan": "个人消费贷款",
    "car_loan": "汽车贷款",
    "mortgage": "住房按揭贷款",
    "life_insurance": "人寿保险",
    "travel_insurance": "旅行保险",
    "fund_plan": "基金定投",
    "pension_plan": "养老金计划",
}

_TEMPLATES: tuple[tuple[str, str | None, Style, Mapping[str, str]], ...] = (
    (
        "price",
        None,
        "price",
        {
            "zh": "{name}限时优惠, 办理即享专属价格。回复T退订",
            "en": "{{{{ product_name }}}} at a special rate this month. Open the app to save.",
        },
    ),
    (
        "benefit",
        None,
        "benefit",
        {
            "zh": "{name}: 省心、安全, 几分钟即可办好。回复T退订",
            "en": "{{{{ product_name }}}}: simple, safe and ready in minutes. Open the app to see how.",
        },
    ),
    (
        "letter",
        "email",
        "detail",
        {
            "zh": "尊敬的客户: 我们为您准备了{name}的详细介绍。欢迎在手机银行或{{{{ region }}}}的任一网点了解条款。",
            "en": "Dear customer, we prepared a guide to our {{{{ product_name }}}}. "
            "Read the terms in the app or at any branch in {{{{ region }}}}.",
        },
    ),
    (
        "script",
        "voice",
        "detail",
        {
            "zh": "您好, 这里是您的客户经理, 想用一分钟为您介绍{name}, 您现在方便吗?",
            "en": "Hello, this is your adviser. May I take a minute to explain our {{{{ product_name }}}}?",
        },
    ),
)

_PLAIN: Mapping[str, Mapping[str, str]] = {
    "letter": {
        "zh": "尊敬的客户: 我们为您准备了{name}的详细介绍。欢迎在手机银行或任一网点了解条款。",
        "en": "Dear customer, we prepared a guide to our {{{{ product_name }}}}. "
        "Read the terms in the app or at any branch.",
    },
}
"""For a customer of whom a variable of the template is not known."""


def bank_catalog() -> Catalog:
    """The catalogue of every simulated bank. A content without a channel fits every channel."""
    contents = tuple(
        Content(
            id=f"{product.id}.{variant}.{language}",
            language=language,
            template=templates[language].format(name=_CHINESE_NAMES[product.id]),
            product_id=product.id,
            channel=channel,
            plain=_PLAIN[variant][language].format(name=_CHINESE_NAMES[product.id]) if variant in _PLAIN else None,
        )
        for product in PRODUCTS
        for variant, channel, _, templates in _TEMPLATES
        for language in LANGUAGES
    )
    return Catalog(CURRENCY, TIME_ZONE, PRODUCTS, CHANNELS, contents, (*CAPS, *REACH))


def content_styles() -> tuple[Style, ...]:
    """The style of each content, in the catalogue's order."""
    return tuple(style for _ in PRODUCTS for _, _, style, _ in _TEMPLATES for _ in LANGUAGES)


def content_slots(channel: Channel) -> tuple[int, ...]:
    """The templates that fit a channel, as indices into one product's templates: those of it or of no channel."""
    return tuple(i for i, (_, only, _, _) in enumerate(_TEMPLATES) if only in (None, channel.id))


def content_index(
    product: npt.NDArray[np.int64], template: npt.NDArray[np.int64], language: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Index into the catalogue's contents of each product's template in a language (index into LANGUAGES)."""
    return (product * len(_TEMPLATES) + template) * len(LANGUAGES) + language


def catalog_toml(catalog: Catalog) -> str:
    """`catalog.toml` of the catalogue; fields that are not set are left out."""
    lines = [f"currency = {_value(catalog.currency)}", f"time_zone = {_value(catalog.time_zone)}"]
    sections: tuple[tuple[str, list[Mapping[str, Any]]], ...] = (
        ("products", [vars(product) for product in catalog.products]),
        ("channels", [vars(channel) for channel in catalog.channels]),
        ("contents", [vars(content) for content in catalog.contents]),
        ("policies", list(catalog.policies)),
    )
    for section, items in sections:
        for item in items:
            lines += ["", f"[[{section}]]"]
            lines += [f"{key} = {_value(value)}" for key, value in item.items() if value is not None]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    # JSON's strings, booleans, numbers and lists of strings are written the same way in TOML.
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)

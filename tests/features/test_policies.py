"""What may be declared in `[[policies]]`, and what every mistake is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from features.catalog import Catalog
from features.catalog_file import parse_catalog
from features.errors import InputError
from features.policies import AudienceRule, CapRule, PeriodRule, SuppressionRule, Target, version
from features.policy_file import declared
from features.quality import check
from features.simulation.catalog import bank_catalog

BANK: Mapping[str, Any] = {
    "currency": "EUR",
    "time_zone": "Europe/Berlin",
    "products": [{"id": "card", "name": "Card", "group": "cards"}, {"id": "loan", "name": "Loan"}],
    "channels": [{"id": "sms", "name": "SMS", "direction": "outbound", "cost": 0}],
}
CAP = {"id": "x", "kind": "cap", "limit": 3, "days": 30}


def catalog_with(*policies: Mapping[str, Any]) -> Catalog:
    catalog = parse_catalog({**BANK, "policies": list(policies)}).catalog
    assert catalog is not None
    return catalog


def test_the_caps_of_the_simulated_bank_are_read_as_they_are_written() -> None:
    rules = declared(bank_catalog())
    assert rules[:2] == (
        CapRule("cap_overall", Target(), 3, 30, None),
        CapRule("cap_sms", Target("channel", "sms"), 2, 30, None),
    )


def test_declarations_become_typed_rules_with_their_defaults() -> None:
    rules = declared(
        catalog_with(
            {"id": "adults", "kind": "audience", "product": "card", "attribute": "born", "min": 18},
            {"id": "spring", "kind": "period", "from": date(2024, 3, 1), "until": date(2024, 3, 31)},
            {"id": "calm", "kind": "suppression", "per": "channel", "after": 2, "days": 30},
            {"id": "weekly", "kind": "cap", "group": "cards", "limit": 1, "calendar": "week", "note": {"why": ["law"]}},
        )
    )
    assert rules == (
        AudienceRule("adults", Target("product", "card"), "born", 18, None, (), (), False),
        PeriodRule(
            "spring",
            Target(),
            datetime(2024, 2, 29, 23, tzinfo=UTC),  # the bank's midnights; the last day is meant with all of it
            datetime(2024, 3, 31, 22, tzinfo=UTC),
            (),
        ),
        SuppressionRule("calm", Target("channel"), 2, 30, None, ("complained", "opted_out")),
        CapRule("weekly", Target("group", "cards"), 1, None, "week"),
    )


MISTAKES: Mapping[str, tuple[Mapping[str, Any], str, str]] = {
    "no kind": ({"limit": 3, "days": 30}, "kind", "kind of a policy is known"),
    "a misspelt kind": ({**CAP, "kind": "caps"}, "kind", "kind of a policy is known"),
    "a misspelt key": ({**CAP, "chanel": "sms"}, "chanel", "belongs to its kind"),
    "a key of another kind": ({**CAP, "after": 2}, "after", "belongs to its kind"),
    "no limit": ({"kind": "cap", "days": 30}, "limit", "fits its key"),
    "a negative limit": ({**CAP, "limit": -1}, "limit", "fits its key"),
    "half a limit": ({**CAP, "limit": 1.5}, "limit", "fits its key"),
    "a limit of true": ({**CAP, "limit": True}, "limit", "fits its key"),
    "a window of no days": ({**CAP, "days": 0}, "days", "fits its key"),
    "a window of nan": ({**CAP, "days": float("nan")}, "days", "fits its key"),
    "no window": ({"kind": "cap", "limit": 3}, "kind", "fits its key"),
    "two windows": ({**CAP, "calendar": "week"}, "kind", "fits its key"),
    "an unknown calendar": ({"kind": "cap", "limit": 1, "calendar": "decade"}, "calendar", "fits its key"),
    "an unknown channel": ({**CAP, "channel": "fax"}, "channel", "channel is in the catalogue"),
    "an unknown product": ({**CAP, "product": "yacht"}, "product", "product is in the catalogue"),
    "an unknown group": ({**CAP, "group": "boats"}, "group", "group is of a product"),
    "two targets": ({**CAP, "channel": "sms", "product": "card"}, "kind", "one channel, product or group"),
    "a suppression after nothing": ({"kind": "suppression", "after": 0, "days": 1}, "after", "fits its key"),
    "a response that is none": (
        {"kind": "suppression", "after": 1, "days": 1, "responses": ["clicked"]},
        "responses",
        "fits its key",
    ),
    "an audience without a test": ({"kind": "audience", "attribute": "age"}, "kind", "fits its key"),
    "an audience of nobody": ({"kind": "audience", "attribute": "age", "min": 9, "max": 8}, "min", "fits its key"),
    "a holding of an unknown product": ({"kind": "holding", "requires": ["yacht"]}, "requires", "product is in"),
    "a share above all": (
        {"kind": "affordability", "attribute": "income", "payment": 1, "share": 1.1},
        "share",
        "fits its key",
    ),
    "a date as text": ({"kind": "period", "from": "2024-01-01"}, "from", "fits its key"),
    "a lever without a weight": ({"kind": "lever", "product": "card"}, "", "fits its key"),
}


@pytest.mark.parametrize(("policy", "key", "rule"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_wrong_declaration_is_refused_by_its_key(policy: Mapping[str, Any], key: str, rule: str) -> None:
    reading = parse_catalog({**BANK, "policies": [{"id": "x", **policy}]})
    (problem,) = reading.problems
    assert problem.column == (f"policies.{key}" if key else "policies")
    assert (problem.severity, reading.catalog) == ("error", None)
    assert rule in problem.rule
    assert "x" in problem.first[0]


@pytest.mark.parametrize(
    ("policy", "key"),
    [
        ('kind = "audience"\nattribute = "wealth"\nmin = 1', "attribute"),
        ('kind = "audience"\nattribute = "city"\nmin = 1', "attribute"),
        ('kind = "audience"\nattribute = "student"\nany_of = ["yes"]', "any_of"),
        ('kind = "affordability"\nattribute = "birth_date"\npayment = 1\nshare = 0.5', "attribute"),
        ('kind = "reach"\nchannel = "voice"\nattribute = "phone"', "attribute"),
    ],
)
def test_data_check_reports_an_attribute_that_customers_lack_or_that_does_not_fit(
    small_bank_folder: Path, policy: str, key: str
) -> None:
    path = small_bank_folder / "catalog.toml"
    path.write_text(path.read_text("utf-8") + f'\n[[policies]]\nid = "new"\n{policy}\n', "utf-8")
    (problem,) = check(small_bank_folder).errors
    assert (problem.table, problem.column) == ("catalog", f"policies.{key}")


def test_the_version_changes_with_a_rule_or_quiet_hours_and_not_with_a_note() -> None:
    catalog = catalog_with(CAP)
    noted = replace(catalog, policies=({**CAP, "note": "by law"},))
    stricter = replace(catalog, policies=({**CAP, "limit": 2},))
    quiet = replace(catalog, channels=(replace(catalog.channels[0], quiet_hours=("21:00", "08:00")),))
    named = replace(catalog, currency="USD")
    assert version(noted) == version(named) == version(catalog)
    assert len({version(catalog), version(stricter), version(quiet)}) == 3


def test_a_catalogue_that_was_never_checked_is_refused() -> None:
    with pytest.raises(InputError, match="limit"):
        declared(replace(catalog_with(), policies=({"id": "x", "kind": "cap", "days": 1},)))

"""Words of providers for delivery states."""

from __future__ import annotations

import pytest

from features.catalog import Catalog, Channel
from features.columns import Kind
from serving.statuses import NoEvent, Statuses

CATALOG = Catalog(
    "EUR",
    "UTC",
    (),
    (
        Channel("sms", "SMS"),
        Channel("voice", "Voice", statuses={"ANSWERED": "delivered", "busy": "called", "Completed": "replied"}),
    ),
)
STATUSES = Statuses.of(CATALOG)


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("DELIVRD", Kind.DELIVERED),
        ("UNDELIV", Kind.FAILED),
        ("delivered", Kind.DELIVERED),
        (" Bounce ", Kind.FAILED),
        ("spamreport", Kind.COMPLAINED),
        ("unsubscribe", Kind.OPTED_OUT),
        ("read", Kind.OPENED),
    ],
)
def test_usual_words_mean_the_same_on_every_channel_in_any_case(word: str, kind: Kind) -> None:
    assert STATUSES.kind("sms", word) is kind
    assert STATUSES.kind("voice", word.upper()) is kind


def test_what_the_catalogue_declares_for_a_channel_comes_first_and_holds_there_alone() -> None:
    assert STATUSES.kind("voice", "answered") is Kind.DELIVERED
    assert (STATUSES.kind("voice", "BUSY"), STATUSES.kind("sms", "BUSY")) == (Kind.CALLED, Kind.FAILED)
    assert STATUSES.kind("voice", "completed") is Kind.REPLIED
    with pytest.raises(NoEvent, match="declare it"):
        STATUSES.kind("sms", "ANSWERED")


@pytest.mark.parametrize("word", ["queued", "ENROUTE", "deferred", "unknown"])
def test_a_state_on_the_way_is_no_event(word: str) -> None:
    with pytest.raises(NoEvent, match="on the way"):
        STATUSES.kind("sms", word)

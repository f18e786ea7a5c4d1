"""The JSON of events and timelines; see `serving.contract`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, WithJsonSchema, model_validator

from features.columns import WORDS_FOR_NULL, Kind
from serving.contract import Id, Moment, Purpose, Strict

MOST_EVENTS = 500


def _no_word_for_nothing(name: str) -> str:
    if name in WORDS_FOR_NULL:
        raise ValueError("must be an id, not a word for a missing one")
    return name


KindName = Annotated[Kind, WithJsonSchema({"type": "string", "enum": [str(kind) for kind in Kind]})]
FreeId = Annotated[Id, AfterValidator(_no_word_for_nothing)]


class EventItem(Strict):
    event_id: FreeId = Field(description="Names the event once and for all.")
    customer_id: FreeId
    event_timestamp: Moment = Field(description="When it happened, with its zone; it may arrive late.")
    kind: KindName | None = Field(None, description="Or `status`.")
    status: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        None, description="A provider's word for a delivery state, instead of `kind`; the channel says whose."
    )
    channel: Id | None = None
    purpose: Purpose | None = None
    product_id: Id | None = None
    content_id: Id | None = None
    decision_id: FreeId | None = None
    message_id: FreeId | None = None
    propensity: Annotated[float, Field(gt=0, le=1)] | None = None
    value: float | None = None

    @model_validator(mode="after")
    def _says_what_happened(self) -> Self:
        if (self.kind is None) == (self.status is None):
            raise ValueError("say what happened, by a kind or by a status, not both")
        if self.status is not None and self.channel is None:
            raise ValueError("a status needs its channel: its words are the provider's")
        return self


class EventsRequest(Strict):
    events: list[Any] = Field(
        min_length=1,
        max_length=MOST_EVENTS,
        description="Each is validated by itself: one that breaks the contract is rejected and the others are not.",
        json_schema_extra={"items": EventItem.model_json_schema()},
    )


class EventResult(BaseModel):
    event_id: str | None = Field(description="null: it could not be read.")
    status: Literal["accepted", "duplicate", "conflict", "rejected"]
    reason: str | None = None


class EventsAnswer(BaseModel):
    results: list[EventResult] = Field(description="One per event, in their order.")


class EventDocument(BaseModel):
    event_id: str
    customer_id: str
    event_timestamp: datetime
    kind: str
    direction: Literal["uplink", "downlink"]
    channel: str | None = None
    purpose: str | None = None
    product_id: str | None = None
    content_id: str | None = None
    decision_id: str | None = None
    message_id: str | None = None
    propensity: float | None = None
    value: float | None = None


class TimelineAnswer(BaseModel):
    customer_id: str
    as_of: datetime
    events: list[EventDocument] = Field(description="Newest first.")
    next: str | None = Field(description="`before` of the next page; null: there is no more.")
    consent: dict[str, dict[str, bool]] = Field(
        description="Channel → purpose → whether the customer may be contacted, as of `as_of`; silence is consent."
    )

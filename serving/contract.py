"""The JSON of the HTTP calls: strict, bounded, nothing extra; the source of /openapi.json."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from serving.decision import Ask, Message
from serving.problems import Problem

# C0, C1, DEL and the Unicode line ends: nothing that could break a line of a log or a terminal.
_NO_CONTROL = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+$"
Id = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=_NO_CONTROL)]
FIRST, LAST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def _within_calendar(time: datetime) -> datetime:
    """Within these no conversion between zones overflows, and no bank has facts beyond them."""
    if not FIRST <= time <= LAST:
        raise ValueError("must lie between the years 1900 and 2200")
    return time


Moment = Annotated[AwareDatetime, AfterValidator(_within_calendar)]
Language = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,3}$")]
Purpose = Literal["marketing", "service", "mandatory"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class RankRequest(Strict):
    customer_id: Id
    as_of: Moment | None = Field(None, description="The moment of the question, with its zone; default: now.")
    eligible: list[Id] | None = Field(None, max_length=1000, description="Only these products.")
    limit: int | None = Field(None, ge=1, le=1000)

    def ask(self, now: datetime) -> Ask:
        return Ask(self.customer_id, self.as_of or now, _tuple(self.eligible))


class DecideRequest(Strict):
    customer_id: Id
    as_of: Moment | None = Field(None, description="The moment of the question, with its zone; default: now.")
    eligible: list[Id] | None = Field(None, max_length=1000, description="Only these products.")
    channels: list[Id] | None = Field(None, max_length=100, description="Only these channels.")
    purpose: Purpose = "marketing"
    language: Language | None = Field(None, description="Of the content; default: the customer's, or the catalogue's.")

    def ask(self, now: datetime) -> Ask:
        return Ask(
            self.customer_id,
            self.as_of or now,
            _tuple(self.eligible),
            _tuple(self.channels),
            self.purpose,
            self.language,
        )


class RouteRequest(Strict):
    customer_id: Id
    as_of: Moment | None = Field(None, description="The moment of the question, with its zone; default: now.")
    purpose: Purpose = "service"
    product_id: Id | None = Field(None, description="What the message is about: any of this product's contents.")
    content_id: Id | None = Field(None, description="Exactly this content.")
    channels: list[Id] | None = Field(None, max_length=100, description="Only these channels.")
    language: Language | None = Field(None, description="Of the content; default: the customer's, or the catalogue's.")
    worth: Annotated[float, Field(ge=0, le=1e12)] | None = Field(
        None, description="Of reaching the customer, catalogue currency; default: the best channel, whatever it costs."
    )

    @model_validator(mode="after")
    def _names_a_message(self) -> Self:
        if self.product_id is None and self.content_id is None:
            raise ValueError("name a product_id, a content_id, or both")
        return self

    def ask(self, now: datetime) -> Ask:
        message = Message(self.product_id, self.content_id, self.worth)
        as_of = self.as_of or now
        return Ask(self.customer_id, as_of, None, _tuple(self.channels), self.purpose, self.language, message)


class ActionDocument(BaseModel):
    product_id: str | None = Field(description="null: a given message about no product.")
    channel: str
    content_id: str | None
    text: str | None


class ReasonDocument(BaseModel):
    rule: str
    reason: str


class RemovedDocument(BaseModel):
    subject: str
    rule: str
    reason: str
    count: int
    ids: list[str]


class VersionsDocument(BaseModel):
    models: dict[str, str]
    policy: str
    features: str
    catalog: str
    rules: str = Field(description="Hash of the declared policies.")


class Answer(BaseModel):
    customer_id: str
    as_of: datetime
    reasons: list[ReasonDocument]
    removed: list[RemovedDocument]
    degraded: bool
    degraded_because: list[str]
    versions: VersionsDocument


class HopDocument(BaseModel):
    channel: str
    send_at: datetime
    deadline: datetime = Field(description="Failed, or not arrived by then: the next channel follows.")
    content_id: str | None = Field(description="What is said on this channel; null: the catalogue has no contents.")
    text: str | None


class DecideAnswer(Answer):
    decision_id: str
    purpose: Purpose
    action: ActionDocument | None = Field(description="null: no contact")
    propensity: float = Field(description="Probability of exactly this action under policy and lottery of arms.")
    arm: str = Field(description="Who decided: agent, random, business_as_usual or holdout.")
    arm_propensity: float = Field(description="Probability of exactly this action given the arm.")
    value: float = Field(description="Expected, in the catalogue's currency.")
    fallback_channels: list[str]
    send_at: datetime | None = Field(description="When to send; null: no contact.")
    chain: list[HopDocument] = Field(description="The action's channel, then its fallbacks, one after the other.")


class FeaturesDocument(BaseModel):
    view: str
    at: float | None = Field(description="Seconds since 1970 of the state; null: nothing was known.")
    age_seconds: float | None
    values: dict[str, float | str] | None = Field(description="Known ones by name; null: the views have changed since.")


class CandidateDocument(BaseModel):
    product_id: str | None
    channel: str | None = Field(description="null: no contact.")
    content_id: str | None
    value: float
    propensity: float
    factors: dict[str, float] | None = Field(None, description="What the value is made of.")


class RemovedCandidateDocument(BaseModel):
    subject: str
    id: str
    rule: str
    reason: str


class InsteadDocument(BaseModel):
    product_id: str | None
    channel: str
    content_id: str | None


class ChangeDocument(BaseModel):
    change: Literal["value", "exploration", "rule"]
    reason: str
    by: float = Field(description="Difference in value, catalogue currency.")
    instead: InsteadDocument | None = Field(description="null: no contact.")
    rule: str | None = Field(None, description="Without which the action would have been possible.")


class ReplayDocument(BaseModel):
    replayed: bool = Field(description="false: it could not be made again; see reason.")
    equal: bool | None = Field(description="Bit for bit; null where it was not replayed.")
    different: list[str] = Field(description="Fields of the record that came out otherwise.")
    reason: str | None


class DecisionDocument(DecideAnswer):
    removed: list[RemovedCandidateDocument]  # type: ignore[assignment]  # the answer sums them up, the record lists them
    recorded_at: datetime
    features: list[FeaturesDocument] | None
    candidates: list[CandidateDocument]
    runner_up: CandidateDocument | None
    would_change: list[ChangeDocument]
    replay: ReplayDocument | None = Field(None, description="Only with replay=true.")


class RankedDocument(BaseModel):
    product_id: str
    probability: float
    rank: int


class RankAnswer(Answer):
    products: list[RankedDocument]


Request = TypeVar("Request", bound=Strict)


def parse(kind: type[Request], body: bytes) -> Request:
    """The request in `body`; raises Problem 400 where it is not JSON, 422 where it breaks the contract."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        errors = flaws(error)
        if errors is None:
            raise Problem(400, "not-json", "the body is not JSON") from None
        raise Problem(422, "invalid-request", "the request breaks the contract; see errors", errors) from None


def flaws(error: ValidationError) -> list[tuple[str, str]] | None:
    """Where the contract is broken, the first 20 as (JSON pointer, detail); None: it is not JSON at all."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    if found[0]["type"] == "json_invalid":
        return None
    # Names of extra fields come from the caller, so the pointer stops above them.
    return [(_pointer(item["loc"], item["type"]), item["msg"]) for item in found[:20]]


def fingerprint(call: str, request: Strict) -> str:
    """SHA-256 of what was asked: equal for bodies that mean the same."""
    return hashlib.sha256(f"{call}\n{request.model_dump_json()}".encode()).hexdigest()


def body_schema(kind: type[Strict]) -> dict[str, Any]:
    """The OpenAPI entry of a request body."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": kind.model_json_schema()}}}}


def _pointer(location: tuple[int | str, ...], kind: str) -> str:
    shown = location[:-1] if kind == "extra_forbidden" else location
    return "".join(f"/{part}" for part in shown)


def _tuple(names: list[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)

"""The JSON of the HTTP calls: strict, bounded, nothing extra; the source of /openapi.json."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from serving.decision import Ask
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


class ActionDocument(BaseModel):
    product_id: str
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


class Answer(BaseModel):
    customer_id: str
    as_of: datetime
    reasons: list[ReasonDocument]
    removed: list[RemovedDocument]
    degraded: bool
    degraded_because: list[str]
    versions: VersionsDocument


class DecideAnswer(Answer):
    decision_id: str
    purpose: Purpose
    action: ActionDocument | None = Field(description="null: no contact")
    propensity: float = Field(description="Probability with which exactly this action was drawn.")
    value: float = Field(description="Expected, in the catalogue's currency.")
    fallback_channels: list[str]


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
        found = error.errors(include_url=False, include_input=False, include_context=False)
        if found[0]["type"] == "json_invalid":
            raise Problem(400, "not-json", "the body is not JSON") from None
        # Names of extra fields come from the caller, so the pointer stops above them.
        errors = [(_pointer(item["loc"], item["type"]), item["msg"]) for item in found[:20]]
        raise Problem(422, "invalid-request", "the request breaks the contract; see errors", errors) from None


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
